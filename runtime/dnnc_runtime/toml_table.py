"""TOML files read strictly: every fault names the file, the line, the key, what was found and what is allowed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeGuard

from dnnc_runtime.errors import UsageFault

Path = tuple[str | int, ...]
"""Where a value stands in a file: keys, and indexes into arrays of tables."""

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*([\w\-."' ]+?)\s*=""")


def nearest(word: str, known: Collection[str]) -> str:
    """A clause that suggests the known word nearest to a misspelt one ("" where none is near) and lists them all."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}allowed: {', '.join(known) or 'none'}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a TOML file. Its readers return a value of the type asked for or raise a UsageFault."""

    source: str
    lines: Mapping[Path, int]
    path: Path
    content: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, source: str) -> Table:
        """The root table of a TOML text; ``source`` names it in faults."""
        try:
            return cls(source, dict(_key_lines(text)), (), tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise UsageFault(f"{source}: not TOML: {error}") from None

    def fault(self, sentence: str, *key: str | int) -> UsageFault:
        """A fault that names the file, the line and the key (relative to this table), to be raised."""
        path = (*self.path, *key)
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        where = self.source if line is None else f"{self.source}:{line}"
        return UsageFault(": ".join(part for part in (where, spelled(path), sentence) if part))

    def expect(self, required: Collection[str], optional: Collection[str] = ()) -> Table:
        """This table, if it has every required key and no key that is neither required nor optional."""
        known = (*required, *optional)
        for key in self.content:
            if key not in known:
                raise self.fault(f"unknown key; {nearest(key, known)}", key)
        for key in required:
            if key not in self.content:
                raise self.fault(f"missing key {key!r}; required here: {', '.join(required)}")
        return self

    def string(self, key: str) -> str:
        """The string at a key."""
        return str(self._typed(key, str, "a string"))

    def integer(self, key: str) -> int:
        """The integer at a key."""
        return int(self._typed(key, int, "an integer"))

    def number(self, key: str) -> float:
        """The integer or float at a key, as a float."""
        return float(self._typed(key, (int, float), "a number"))

    def flag(self, key: str) -> bool:
        """The true or false at a key."""
        return bool(self._typed(key, bool, "true or false"))

    def strings(self, key: str) -> tuple[str, ...]:
        """The array of strings at a key."""
        items: list[Any] = self._typed(key, list, "an array of strings")
        for item in items:
            if not isinstance(item, str):
                raise self.fault(f"found {item!r}, expected an array of strings", key)
        return tuple(items)

    def table(self, key: str) -> Table:
        """The table at a key."""
        return Table(self.source, self.lines, (*self.path, key), self._typed(key, dict, f"a table [{key}]"))

    def tables(self, key: str) -> tuple[Table, ...]:
        """The array of tables at a key, at least one."""
        items: list[Any] = self._typed(key, list, f"one or more tables [[{key}]]")
        if not items or not all(isinstance(item, dict) for item in items):
            raise self.fault(f"found {items!r}, expected one or more tables [[{key}]]", key)
        return tuple(Table(self.source, self.lines, (*self.path, key, i), item) for i, item in enumerate(items))

    def _typed(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self.content[key]
        # A TOML boolean is no number, but a Python bool is an int.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fault(f"found {value!r}, expected {what}", key)
        return value


def toml(content: Mapping[str, Any]) -> str:
    """The TOML text of plain values and arrays of them, then tables and arrays of tables (tables in those inline)."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in content.items() if not _tables(v)]
    for key, value in content.items():
        header = f"[{_key(key)}]" if _is_table(value) else f"[[{_key(key)}]]"
        for table in _tables(value):
            lines += ["", header, *(f"{_key(k)} = {_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> list[Mapping[str, Any]]:
    """The tables that a value is written as: it itself, its items, or none."""
    return [item for item in (value if _is_array(value) else [value]) if _is_table(item)]


def _is_table(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if _is_table(value):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if _is_array(value):
        return "[" + ", ".join(map(_value, value)) + "]"
    # Of the plain values, JSON and TOML write the same ones the same way.
    return json.dumps(value, ensure_ascii=False)


def spelled(path: Path) -> str:
    """A path as people write it: ``modes[1].spread.lane``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def _key_lines(text: str) -> Iterator[tuple[Path, int]]:
    """Paths of headers and keys with their 1-based lines (keys of inline tables stand at their outer key)."""
    header: Path = ()
    counts: dict[Path, int] = {}
    quoted = False
    for number, line in enumerate(text.splitlines(), start=1):
        was_quoted, quoted = quoted, quoted ^ (line.count('"""') % 2 == 1) ^ (line.count("'''") % 2 == 1)
        if was_quoted:
            continue
        if match := _HEADER.match(line):
            header = _names(match[2])
            if match[1] == "[[":
                yield header, number
                counts[header] = counts.get(header, -1) + 1
            header = _indexed(header, counts)
            yield header, number
        elif match := _KEY.match(line):
            yield (*header, *_names(match[1])), number


def _names(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _indexed(names: Path, counts: Mapping[Path, int]) -> Path:
    """The path with the current index after every prefix that is an array of tables."""
    path: Path = ()
    for n, name in enumerate(names, start=1):
        path += (name, counts[names[:n]]) if names[:n] in counts else (name,)
    return path
