"""How the pieces of an access lie, found once for all tiles that lie alike: at other bases, of other planes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from dnnc_runtime.addressing import Bank, Box, Reach, Taken, extents, placed, reach, row_major
from dnnc_runtime.memo import MOST_SHARED, Shared
from dnnc_runtime.tensor import Piece, Region, extent


class Layout:
    """Pieces that hold a region, with words counted from the base of the first one.

    It serves for all of equal outline, whatever their base and their first plane.
    """

    def __init__(self, bank: Bank, pieces: Sequence[Piece], need: Region, width: int) -> None:
        self._bank, self._pieces, self._need, self._width = bank, pieces, need, width

    @cached_property
    def inside(self) -> bool:
        """Whether the region is a box of intervals and the pieces lie inside it."""
        return _inside(self._pieces, self._need)

    @cached_property
    def boxes(self) -> list[Box]:
        """The words of the pieces, and their places in a dense array of the region, which has to be a box."""
        strides = row_major(extents(self._need))
        first = -sum([axis[0].start * stride for axis, stride in zip(self._need, strides, strict=True)])
        base = _base(self._pieces)
        found = placed(self._bank, self._pieces, first, strides)
        return [(counts, here - base, pitch, there, steps) for counts, here, pitch, there, steps in found]

    @cached_property
    def taken(self) -> list[tuple[Sequence[int], int, int]]:
        """The units and the words of every piece."""
        base = _base(self._pieces)
        found = [(piece.instances, reach(self._bank, piece, self._width)[0]) for piece in self._pieces]
        return [(units, words.first - base, words.end - base) for units, words in found]


class Placed:
    """A layout at the base of its first piece."""

    __slots__ = ("_base", "_layout")

    def __init__(self, layout: Layout, base: int) -> None:
        self._layout, self._base = layout, base

    @property
    def inside(self) -> bool:
        """:attr:`Layout.inside`."""
        return self._layout.inside

    def boxes(self) -> list[Box]:
        """:attr:`Layout.boxes`, counted from the start of the memory."""
        base = self._base
        return [(counts, here + base, pitch, there, steps) for counts, here, pitch, there, steps in self._layout.boxes]

    def taken(self) -> Taken:
        """:attr:`Layout.taken`, likewise."""
        base = self._base
        return Taken([(units, Reach(first + base, end + base)) for units, first, end in self._layout.taken])


class Layouts:
    """The layouts that were met."""

    def __init__(self) -> None:
        self._by_pieces: Shared[Placed] = Shared()
        self._by_outline: dict[tuple[object, ...], Layout] = {}

    def of(self, bank: Bank, pieces: tuple[Piece, ...], need: Region, width: int) -> Placed:
        """How pieces of elements of ``width`` words lie that together hold a region, which may be empty."""
        asked = bank.name, need, width
        found = self._by_pieces.get(pieces, asked)
        if found is None:
            found = Placed(self._layout(bank, pieces, need, width), _base(pieces))
            self._by_pieces.put(pieces, asked, found)
        return found

    def _layout(self, bank: Bank, pieces: tuple[Piece, ...], need: Region, width: int) -> Layout:
        key = _outline(bank, pieces, need, width)
        if key is None:
            return Layout(bank, pieces, need, width)
        found = self._by_outline.get(key)
        if found is None:
            if len(self._by_outline) >= MOST_SHARED:
                self._by_outline.clear()
            # It holds the axes, so that no others have their identities.
            found = self._by_outline[key] = Layout(bank, pieces, need, width)
        return found


def _base(pieces: Sequence[Piece]) -> int:
    return pieces[0].base if pieces else 0


def _outline(bank: Bank, pieces: Sequence[Piece], need: Region, width: int) -> tuple[object, ...] | None:
    """What the layout of pieces depends on, with axes by their identity; None if not all have all of an interval of
    planes."""
    planes, base = need[-1], _base(pieces)
    if len(planes) != 1 or planes[0].step != 1:
        return None
    out: list[object] = [bank.name, width, extent(planes), *map(id, need[:-1])]
    for piece in pieces:
        region = piece.region
        if region[-1] is not planes:
            return None
        out += (piece.base - base, piece.instances, piece.pitch, *map(id, region[:-1]))
    return tuple(out)


def _inside(pieces: Sequence[Piece], need: Region) -> bool:
    if not is_box(need):
        return False
    for piece in pieces:
        for axis, whole in zip(piece.region, need, strict=True):
            if axis is not whole:
                start, stop = whole[0].start, whole[0].start + whole[0].count
                if axis[0].start < start or axis[-1].start + (axis[-1].count - 1) * axis[-1].step >= stop:
                    return False
    return True


def is_box(region: Region) -> bool:
    """Whether every axis of a region is one interval."""
    return all(len(axis) == 1 and axis[0].step == 1 for axis in region)
