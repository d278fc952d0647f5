"""What one unit's memory holds: the pieces that were written last, and a tag for every word that lies under none.

Most reads are of pieces just as they were written, and are settled without looking at words. Only where one is not (a
ring, a part of two tiles, another view, a fault), the pieces that it touches are tagged, word by word.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dnnc_runtime.addressing import Box, Integers, Reach, alike, boxes, stretch, window
from dnnc_runtime.tensor import Axis, Piece, Region, elements, extent, span

NOTHING = 0
"""The tag of a word that holds nothing."""

Strides = tuple[int, ...]


class Held(NamedTuple):
    """A piece that was written, of elements whose tags are first + sum(coordinate * stride).

    The first of nothing is zero.
    """

    piece: Piece
    first: int
    strides: Strides
    words: Reach
    width: int


class Tiles:
    """Pieces that differ in nothing but their planes and what they hold: tiles of maps that lie at the same places.

    ``parts`` are the words, those of the first pixel, from which on and up to which planes lie as those of a piece that
    was written do. Tiles of planes that are written next to each other are one part.
    """

    __slots__ = ("_high", "_low", "_room", "_shape", "parts")

    def __init__(self, held: Held) -> None:
        self._shape = held
        self._low = self._high = self._room = -1
        self.parts = [(held.piece.base, _end(held), held)]

    def add(self, held: Held) -> bool:
        """Write a tile; False, with nothing changed, if it is not at the same places."""
        piece, here = held.piece, self._shape.piece
        if piece.pitch != here.pitch or held.width != self._shape.width:
            return False
        # Planes closer to each other than an element is wide would lie on top of each other.
        if piece.pitch[-1] < held.width or not _beside(piece.region, here.region):
            return False
        if self._room < 0:
            self._low, self._high, self._room = here.base, _end(self._shape), _room(here)
        step, low, high = piece.pitch[-1], piece.base, _end(held)
        begin, stop = min(self._low, low), max(self._high, high)
        if stop - begin > self._room or (low - begin) % step or (here.base - begin) % step:
            return False
        self._low, self._high = begin, stop
        parts: list[tuple[int, int, Held]] = []
        for part in self.parts:
            start, end, other = part
            if end < low or high < start:
                parts.append(part)
            elif _goes_on(other, held):
                low, high = min(low, start), max(high, end)
            else:
                if start < low:
                    parts.append((start, low, other))
                if high < end:
                    parts.append((high, end, other))
        parts.append((low, high, held))
        self.parts = parts
        return True

    def find(self, first: int, strides: Strides, piece: Piece) -> Reach | None:
        """The words of a piece, if its elements lie where they were written."""
        for low, high, held in self.parts:
            if held.strides == strides:
                there = held.piece
                if held.first == first:
                    words = _part(held, piece, low, high)
                    if words:
                        return words
                elif low == there.base and high == _end(held) and _alike(held, first, piece):
                    return held.words
        return None

    def regions(self) -> Iterator[tuple[Held, Region]]:
        """The parts, and the elements that they hold."""
        for low, high, held in self.parts:
            region, step = held.piece.region, held.piece.pitch[-1]
            if low == held.piece.base and high == _end(held):
                yield held, region
            else:
                start = region[-1][0].start + (low - held.piece.base) // step
                yield held, (*region[:-1], span(start, (high - low) // step))


class Unit:
    """The words of one unit's memory.

    Pieces are held in order of their words; those that reach into each other as tiles, or else the later alone. What is
    tagged counts only where no piece is held.
    """

    def __init__(self, words: int) -> None:
        self._words = words
        self._starts, self._ends = list[int](), list[int]()
        self._held: dict[int, Held | Tiles] = {}
        # Which of them are tagged, too. Memories may be large: their tags take up space once there are any.
        self._tagged = set[int]()
        self._tags: Integers | None = None

    def put(self, held: Held) -> None:
        """A piece is written, whose elements lie apart."""
        first, end = held.words
        before = self._held.get(first)
        if isinstance(before, Held) and before.words == held.words and _same(before, held):
            self._held[first] = held
            self._tagged.discard(first)
            return
        if first >= end:
            # It has no elements.
            return
        starts, ends = self._starts, self._ends
        low = bisect_right(ends, first)
        if low == len(starts) or starts[low] >= end:
            # Of one pixel alone, planes lie behind others.
            if not (low and ends[low - 1] == first and self._add(low - 1, held, behind=True)):
                starts.insert(low, first)
                ends.insert(low, end)
                self._held[first] = held
            return
        high = bisect_left(starts, end, low)
        if high - low == 1 and (starts[low] < first or end < ends[low]) and self._add(low, held):
            return
        self._displace(low, high, held)
        starts.insert(low, first)
        ends.insert(low, end)
        self._held[first] = held

    def _add(self, at: int, held: Held, behind: bool = False) -> bool:
        """Write a tile among others; False if it is no such, or does not go on ``behind`` the last as it should."""
        start, (first, end) = self._starts[at], held.words
        tiles = self._held[start]
        last = tiles if isinstance(tiles, Held) else tiles.parts[-1][2]
        if behind and not _goes_on(last, held):
            return False
        if isinstance(tiles, Held):
            tiles = Tiles(tiles)
        if not tiles.add(held):
            return False
        self._forget(start)
        self._starts[at], self._ends[at] = min(start, first), max(self._ends[at], end)
        self._held[self._starts[at]] = tiles
        return True

    def write(self, held: Held) -> None:
        """A piece is written, whose elements may lie on top of each other."""
        low, high = bisect_right(self._ends, held.words.first), bisect_left(self._starts, held.words.end)
        self._displace(low, high, held)
        self._tag(held, held.piece.region)

    def clear(self, words: Reach) -> None:
        """All of some words hold nothing any more."""
        low, high = bisect_right(self._ends, words.first), bisect_left(self._starts, words.end)
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if start < words.first or words.end < end:
                self._tag_all(start)
            self._forget(start)
        del self._starts[low:high], self._ends[low:high]
        if self._tags is not None:
            self._tags[words.first : words.end] = NOTHING

    def _displace(self, low: int, high: int, by: Held) -> None:
        """A piece is written on top of some: what may be left of them is tagged."""
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if not (_same(self._held[start], by) or _covers(by, Reach(start, end))):
                self._tag_all(start)
            self._forget(start)
        del self._starts[low:high], self._ends[low:high]

    def _forget(self, start: int) -> None:
        del self._held[start]
        self._tagged.discard(start)

    def find(self, first: int, strides: Strides, piece: Piece) -> Reach | None:
        """The words of a piece, if it was written just so, perhaps as a part of another, and nothing on top of it."""
        held = self._held.get(piece.base)
        if held is None:
            at = bisect_right(self._starts, piece.base)
            if not at or piece.base >= self._ends[at - 1]:
                return None
            held = self._held[self._starts[at - 1]]
        if not isinstance(held, Held):
            return held.find(first, strides, piece)
        if held.strides != strides:
            return None
        if held.first == first:
            if held.piece.region == piece.region and held.piece.base == piece.base and held.piece.pitch == piece.pitch:
                return held.words
            return _part(held, piece, held.piece.base, _end(held))
        return held.words if _alike(held, first, piece) else None

    def tags(self, words: Reach) -> Integers:
        """The tags of the whole memory, of which those of some words are as they should be."""
        low, high = bisect_right(self._ends, words.first), bisect_left(self._starts, words.end)
        for start in self._starts[low:high]:
            self._tag_all(start)
        return self._all()

    def _all(self) -> Integers:
        if self._tags is None:
            self._tags = np.zeros(self._words, np.int64)
        return self._tags

    def _tag_all(self, start: int) -> None:
        if start not in self._tagged:
            for held, region in _regions(self._held[start]):
                self._tag(held, region)
            self._tagged.add(start)

    def _tag(self, held: Held, region: Region) -> None:
        tags, piece = self._all(), held.piece
        base = piece.base
        if region is not piece.region:
            base += (region[-1][0].start - piece.region[-1][0].start) * piece.pitch[-1]
        for box in boxes(region, base, piece.pitch, held.first, held.strides):
            wanted = expected(box) if held.first else NOTHING
            for word in range(held.width):
                window(tags, box[0], box[1] + word, box[2])[...] = wanted


def expected(box: Box) -> Integers:
    """The tags of elements that lie in a box, by their tags on its other side."""
    tags: Integers = _ramp(box[0], box[4]) + box[3]
    return tags


@lru_cache(maxsize=64)
def _ramp(counts: tuple[int, ...], steps: tuple[int, ...]) -> Integers:
    """sum(index * step) for every index below the counts."""
    ramp: Integers = np.zeros((), np.int64)
    for count, step in zip(reversed(counts), reversed(steps), strict=True):
        outer = np.arange(count, dtype=np.int64) * step
        ramp = outer.reshape(count, *(1,) * ramp.ndim) + ramp
    return ramp


def _covers(held: Held, words: Reach) -> bool:
    """Whether a piece takes up all of some words."""
    (first, end), piece = held.words, held.piece
    if words.first < first or end < words.end or elements(piece.region) * held.width < end - first:
        return False
    return stretch(piece.pitch, piece.region, held.width)[1]


def _regions(held: Held | Tiles) -> Iterator[tuple[Held, Region]]:
    return iter([(held, held.piece.region)]) if isinstance(held, Held) else held.regions()


def _same(held: Held | Tiles, by: Held) -> bool:
    """Whether a piece takes up just the words of another."""
    return isinstance(held, Held) and held.width == by.width and alike(held.piece, by.piece)


def _alike(held: Held, first: int, piece: Piece) -> bool:
    """Whether a piece lies as one that was written, and its elements are the same though the tags start elsewhere."""
    ahead = _ahead(held.strides, held.piece) - _ahead(held.strides, piece)
    return held.first + ahead == first and alike(held.piece, piece)


def _beside(region: Region, other: Region) -> bool:
    """Whether regions are of as many elements along all axes but the last, on which both are intervals."""
    for axis, beside in zip(region[:-1], other[:-1], strict=True):
        if axis is not beside:
            if len(axis) != 1 or len(beside) != 1:
                return False
            if axis[0].count != beside[0].count or axis[0].step != beside[0].step:
                return False
    return _interval(region[-1]) and _interval(other[-1])


def _interval(axis: Axis) -> bool:
    return len(axis) == 1 and axis[0].step == 1


def _end(held: Held) -> int:
    """Where the next plane of a piece's first pixel would lie."""
    planes = held.piece.region[-1]
    return held.piece.base + (planes[0].count * held.piece.pitch[-1] if len(planes) == 1 else 0)


def _room(piece: Piece) -> int:
    """How many words the planes of a pixel, no closer than they are wide, may take up where pixels lie apart."""
    room, inner = sys.maxsize, 0
    for axis, step in zip(reversed(piece.region[:-1]), reversed(piece.pitch[:-1]), strict=True):
        count = extent(axis)
        if count > 1:
            room = min(room, step - inner)
            inner += (count - 1) * step
    return max(room, 0)


def _goes_on(held: Held, more: Held) -> bool:
    """Whether the elements of two tiles lie as those of one would, at all its planes."""
    here, there = held.piece, more.piece
    if not (_interval(here.region[-1]) and _interval(there.region[-1])):
        return False
    ahead = there.region[-1][0].start - here.region[-1][0].start
    if there.base - here.base != ahead * here.pitch[-1] or held.first != more.first:
        return False
    return held.strides == more.strides and here.pitch == there.pitch and here.region[:-1] == there.region[:-1]


def _part(held: Held, piece: Piece, low: int, high: int) -> Reach | None:
    """The words of a piece whose elements lie where they do in another one, of which it has some planes."""
    whole = held.piece
    *axes, planes = zip(whole.region, piece.region, whole.pitch, piece.pitch, strict=True)
    axis, some, pitch, step = planes
    if not (_interval(axis) and _interval(some)) or pitch != step or step < held.width:
        return None
    # There may be fewer planes than were written, or more.
    at = (some[0].start - axis[0].start) * pitch
    if whole.base + at < low or high < whole.base + at + some[0].count * pitch:
        return None
    last = (some[0].count - 1) * step + held.width
    for axis, some, pitch, step in axes:
        count = extent(some)
        if count > 1:
            if pitch != step:
                return None
            last += (count - 1) * step
        if axis is not some:
            ahead = _ahead_in(axis, some)
            if ahead is None:
                return None
            at += ahead * pitch
    return Reach(piece.base, piece.base + last) if whole.base + at == piece.base else None


def _ahead_in(axis: Axis, some: Axis) -> int | None:
    """How far into an axis an interval of it begins; None if it is none."""
    if axis == some:
        return 0
    if not (_interval(axis) and _interval(some)):
        return None
    ahead = some[0].start - axis[0].start
    return ahead if ahead >= 0 and ahead + some[0].count <= axis[0].count else None


def _ahead(strides: Strides, piece: Piece) -> int:
    """How far the tag of a piece's first element is from that of the first of all."""
    starts = [axis[0].start if axis else 0 for axis in piece.region]
    return sum(start * stride for start, stride in zip(starts, strides, strict=True))
