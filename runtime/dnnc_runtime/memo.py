"""Remembers what was found in memories, for as long as nobody writes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dnnc_runtime.addressing import Taken
from dnnc_runtime.frame import Access
from dnnc_runtime.program import Role
from dnnc_runtime.tensor import Piece, Region

MOST_SHARED = 1 << 14
"""Pieces of which something is remembered at a time."""

T = TypeVar("T")


class Memo(Generic[T]):
    """Accesses of tiles and what they found; a write to their words forgets them.

    Tiles that stay for many instructions are most of what a program reads.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[_Key, tuple[Sequence[Access], Taken, T, object]]] = {}

    def get(self, memory: str, accesses: Sequence[Access], of: object = None) -> T | None:
        """What equal accesses, all of one role, found, if that still holds, and they were made for the same."""
        kept = self._kept.get(memory)
        found = kept.get(_key(accesses)) if kept else None
        return found[2] if found and found[0] == accesses and found[3] == of else None

    def put(self, memory: str, accesses: Sequence[Access], words: Taken, found: T, of: object = None) -> None:
        """Remember what accesses found, if it matters with what they were made for."""
        self._kept.setdefault(memory, {})[_key(accesses)] = accesses, words, found, of

    def keeps(self, memory: str) -> bool:
        """Whether anything in a memory is remembered."""
        return bool(self._kept.get(memory))

    def written(self, memory: str, words: Taken) -> None:
        """Words of a memory are written."""
        kept = self._kept.get(memory)
        if kept:
            first, end = words.first, words.end
            # Most that is remembered lies elsewhere.
            met = [
                key
                for key, (_, held, *_) in kept.items()
                if held.first < end and first < held.end and held.meets(words)
            ]
            for key in met:
                del kept[key]


_Key = tuple[Role, tuple[int, ...], tuple[int, ...]]


def _key(accesses: Sequence[Access]) -> _Key:
    """The first unit and where its region begins: cheaper to look up than the accesses, and seldom shared."""
    role, pieces, need = accesses[0]
    units = pieces[0].instances if pieces else ()
    return role, units, tuple([axis[0].start if axis else -1 for axis in need])


class Outlines:
    """Which parts are known to make up a region, by the identity of all their axes but the last.

    Tiles of further planes are cut as those before them, and programs share their axes. It is remembered where the last
    axis of the region and of all its parts is one and the same object, and not empty.
    """

    def __init__(self, find: Callable[[Sequence[Region], Region], bool]) -> None:
        self._find = find
        self._found: dict[tuple[tuple[int, ...], ...], tuple[Region, Sequence[Region]]] = {}

    def hold(self, parts: Sequence[Region], whole: Region) -> bool:
        """What ``find`` says of some parts of a region, which has to be as true for any planes."""
        planes = whole[-1]
        if not planes or any(part[-1] is not planes for part in parts):
            return self._find(parts, whole)
        key = (tuple(map(id, whole[:-1])), *[tuple(map(id, part[:-1])) for part in parts])
        if key in self._found:
            return True
        if not self._find(parts, whole):
            return False
        if len(self._found) >= MOST_SHARED:
            self._found.clear()
        # As long as they are remembered, no other axes have their identities.
        self._found[key] = whole, parts
        return True


class Shared(Generic[T]):
    """What follows from pieces alone, whatever memories hold, by their identity: programs share what they use often."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[tuple[Piece, ...], object, T]] = {}

    def get(self, pieces: tuple[Piece, ...], of: object) -> T | None:
        """What was found of pieces last, if it was asked of the same."""
        found = self._found.get(id(pieces))
        return found[2] if found and found[1] == of else None

    def put(self, pieces: tuple[Piece, ...], of: object, found: T) -> T:
        """Remember what was found; as long as it is, no other object has the identity of the pieces."""
        if len(self._found) >= MOST_SHARED:
            self._found.clear()
        self._found[id(pieces)] = pieces, of, found
        return found
