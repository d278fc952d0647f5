"""JSON documents of frozen dataclasses: sealed with a digest, written all or nothing, read strictly.

A document is one JSON object; its ``sha256`` is that of all its other members in canonical form (keys sorted, no
blanks), so that it holds however the file is laid out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

SEAL = "sha256"
"""The member that holds the digest of the others."""

_T = TypeVar("_T")


class Damaged(Exception):
    """A document is not what was written; the message says where and why, to follow the document's name."""


def plain(value: Any) -> Any:
    """Frozen dataclasses, tuples and mappings as JSON objects and arrays."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if _is_object(value):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if _is_array(value) else value


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seal(content: Any) -> str:
    """The text of a document with a frozen dataclass' fields and the seal."""
    members: dict[str, Any] = plain(content)
    return json.dumps({**members, SEAL: digest(members)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def unseal(text: bytes) -> dict[str, Any]:
    """The members of a document. Raises Damaged if it is not JSON, or the seal is broken."""
    members = opened(text)
    found = members.pop(SEAL, None)
    if not isinstance(found, str):
        raise Damaged(f"has no {SEAL!r}")
    if found != digest(members):
        raise Damaged(f"its content does not have the {SEAL} that it states: it was damaged or changed")
    return members


def opened(text: bytes) -> dict[str, Any]:
    """The members of a JSON object, the seal not looked at. Raises Damaged if the text is not one."""
    try:
        found: Any = json.loads(text.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"not a JSON document: {error}") from None
    if not _is_object(found):
        raise Damaged("not a JSON object")
    return dict(found)


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def parse(kind: type[_T], found: Any, where: str = "") -> _T:
    """The dataclass that a JSON value stands for: every member is there, of its type, and there are no others.

    Args:
        kind: a dataclass; its fields are dataclasses, tuples, mappings by string, literals, numbers, strings,
            flags, or one of these or None.
        found: what JSON held.
        where: names ``found`` in faults.

    Raises:
        Damaged: the value does not stand for one.
    """
    value: _T = _parse(kind, found, where)
    return value


def _parse(kind: Any, found: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _record(kind, found, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (inner,) = (arg for arg in args if arg is not NoneType)
        return None if found is None else _parse(inner, found, where)
    if origin is tuple and _is_array(found):
        kinds = [args[0]] * len(found) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(found):
            return tuple(_parse(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, found, strict=True)))
    elif origin is Mapping and _is_object(found):
        return {key: _parse(args[1], item, _inside(where, key)) for key, item in found.items()}
    elif (origin is Literal and found in args) or _is_plain(kind, found):
        return float(found) if kind is float else found
    raise Damaged(f"{where or 'document'}: found {str(found)[:40]!r}, expected {_spelled(kind)}")


def _is_plain(kind: Any, found: Any) -> bool:
    """Whether a JSON value is a number, string or flag as asked; true is no number, and 1 is a float as well."""
    return (kind in (int, float, str, bool) and type(found) is kind) or (kind is float and type(found) is int)


def _record(kind: Any, found: Any, where: str) -> Any:
    hints = _hints(kind)
    if not _is_object(found):
        raise Damaged(f"{where or 'document'}: not an object")
    if odd := sorted({*found} ^ {*hints}):
        raise Damaged(f"{where or 'document'}: missing or unknown: {', '.join(odd)}; it has {', '.join(hints)}")
    return kind(**{name: _parse(hint, found[name], _inside(where, name)) for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _spelled(kind: Any) -> str:
    return kind.__name__ if kind in (int, float, str, bool) else str(kind).removeprefix("typing.")


ABSENT = object()
"""Stands for a member that one of two values does not have."""


def difference(mine: Any, other: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Where two values first differ, as members and items are written, and the two values there; None if nowhere."""
    a, b = (plain(side) for side in (mine, other))
    if a == b:
        return None
    if _is_object(a) and _is_object(b):
        names = [(_inside(where, name), a.get(name, ABSENT), b.get(name, ABSENT)) for name in {**a, **b}]
    elif _is_array(a) and _is_array(b) and len(a) == len(b):
        names = [(f"{where}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return where, a, b
    return next(filter(None, (difference(x, y, path) for path, x, y in names)), None)


def write(path: Path, text: str) -> None:
    """Write a file all or nothing. Raises OSError if it cannot be written."""
    draft, target = _draft(path)
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out whether :func:`write` could write a file, and leave nothing behind. Raises OSError if it cannot."""
    draft, _ = _draft(path)
    draft.touch(exist_ok=False)
    draft.unlink()


def _draft(path: Path) -> tuple[Path, Path]:
    """A new file beside the one to be written, links followed, that takes its place when it is complete."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target.with_name(f".{target.name[:100]}.{token_hex(4)}"), target
