"""What every word on chip holds: the element's identity as one number, zero where it holds nothing.

An element of a role with a view is the word of DRAM that the view gives it, so that layers know each other's tensors
under whatever views; an element that never leaves the chip is one of its section alone.

Most reads are of pieces just as they were written, and are settled without looking at words. Only where one is not
(a ring, a part of a tile, another view, a fault), the words of the memory are tagged, with all that was written to it
until then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple, NoReturn

import numpy as np

from dnnc_runtime.addressing import (
    Bank,
    Box,
    Integers,
    Reach,
    alike,
    banks,
    emptied,
    placed,
    reach,
    row_major,
    window,
)
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import SPACES, Frame
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kept, Role, Tensor
from dnnc_runtime.tensor import Piece, Region, View, span

_Strides = tuple[int, ...]
_NOTHING = 0


class _Write(NamedTuple):
    """A write of elements whose tags are first + sum(coordinate * stride); nothing's first is zero."""

    first: int
    strides: _Strides
    pieces: Sequence[Piece]
    width: int
    words: Reach


class _Held(NamedTuple):
    """A piece as it was written: elements of tags first + sum(coordinate * stride)."""

    piece: Piece
    first: int
    strides: _Strides
    words: Reach


class _Unit:
    """One unit's memory: the pieces that nothing was written on top of, in order of their words."""

    def __init__(self) -> None:
        self._starts, self._ends = list[int](), list[int]()
        self._pieces: dict[int, _Held] = {}

    def put(self, held: _Held) -> None:
        """A piece is written."""
        first, end = held.words
        if first < end:
            self._put(first, end, [first], [end])
            self._pieces[first] = held

    def clear(self, words: Reach) -> None:
        """Words are written that are no piece."""
        self._put(*words, [], [])

    def _put(self, first: int, end: int, start: list[int], stop: list[int]) -> None:
        starts, ends = self._starts, self._ends
        low, high = bisect_right(ends, first), bisect_left(starts, end)
        if low < high or start:
            for at in starts[low:high]:
                del self._pieces[at]
            starts[low:high], ends[low:high] = start, stop

    def find(self, first: int, strides: _Strides, piece: Piece) -> Reach | None:
        """The words of a piece if it was written just so and nothing on top of it."""
        held = self._pieces.get(piece.base)
        if held is None or held.piece.pitch != piece.pitch or held.strides != strides:
            return None
        if held.first != first or held.piece.region != piece.region:
            there, here = _first(held.first, strides, held.piece), _first(first, strides, piece)
            if there != here or not alike(held.piece, piece):
                return None
        return held.words

    def inside(self, ranges: Sequence[tuple[int, int]]) -> Iterator[_Held]:
        """The pieces that lie wholly in a range."""
        for first, end in ranges:
            low, high = bisect_left(self._starts, first), bisect_right(self._ends, end)
            yield from (self._pieces[at] for at in self._starts[low:high])


class Tags:
    """The tags of all memories, from section to section."""

    def __init__(self, machine: Machine, tensors: Sequence[Tensor]) -> None:
        self._banks = banks(machine)
        self._names = [tensor.name for tensor in tensors]
        self._at = {name: at for at, name in enumerate(self._names)}
        self._firsts = np.cumsum([1, *(tensor.words for tensor in tensors)]).tolist()
        self._top = self._firsts[-1]
        self._units = {bank.name: [_Unit() for _ in range(bank.units)] for bank in self._banks.values()}
        # Memories may be large: their words take up space once they are tagged, those above the last written never.
        self._tags = {bank.name: _blank(bank) for bank in self._banks.values()}
        self._tagged, self._tops = set[str](), dict.fromkeys(self._tags, 0)
        self._later: dict[str, list[_Write]] = {name: [] for name in self._tags}
        self._tidied = dict.fromkeys(self._tags, 0)

    def begin(self, frame: Frame) -> None:
        """A section starts: its roles get their identities."""
        self._frame = frame
        self._places: dict[Role, tuple[int, _Strides]] = {}
        for role in SPACES:
            if role in frame.views:
                self._places[role] = self._place(frame.views[role])
            elif role in frame.shapes:
                self._places[role] = self._top, row_major(frame.shapes[role])
                self._top += prod(frame.shapes[role])

    def end(self, kept: Sequence[Kept]) -> None:
        """Empty all words that are not kept."""
        for bank in self._banks.values():
            some = [k for k in kept if k.memory == bank.name]
            if not some:
                self._empty(bank)
                continue
            pieces: list[Piece] = []
            for unit, words in emptied(bank, some):
                self._units[bank.name][unit].clear(words)
                end = min(words.end, self._tops[bank.name])
                if words.first < end:
                    pieces.append(Piece((unit,), words.first, (1,), (span(0, end - words.first),)))
            ranges = [bound for k in some for words in k.ranges for bound in words]
            self._tidy(bank, Reach(min(ranges, default=0), max(ranges, default=0)))
            self._later[bank.name].append(_Write(_NOTHING, (0,), pieces, 1, Reach(0, bank.words)))

    def _empty(self, bank: Bank) -> None:
        if bank.name in self._tagged:
            self._tags[bank.name] = _blank(bank)
            self._tagged.discard(bank.name)
        self._later[bank.name].clear()
        self._tidied[bank.name] = self._tops[bank.name] = 0
        self._units[bank.name] = [_Unit() for _ in range(bank.units)]

    def _tidy(self, bank: Bank, words: Reach) -> None:
        """Forget writes outside of words, all others being emptied; now and then."""
        later = self._later[bank.name]
        if len(later) > 2 * self._tidied[bank.name] + 64:
            later[:] = [write for write in later if write.words.first < words.end and words.first < write.words.end]
            self._tidied[bank.name] = len(later)

    def kept(self, bank: Bank, kept: Sequence[Kept]) -> Iterator[Region]:
        """Regions of the section's output that lie among the kept words of a bank just as they were written."""
        first, strides = self._places["output"]
        for some in kept:
            if some.memory == bank.name:
                for held in self._units[bank.name][some.unit].inside(some.ranges):
                    if (held.first, held.strides) == (first, strides):
                        yield held.piece.region

    def in_ranges(self, bank: Bank, kept: Sequence[Kept]) -> Iterator[Integers]:
        """The words of the output's tensor that the kept words of a bank hold."""
        self._settle(bank)
        tags = self._tags[bank.name].reshape(bank.units, bank.words)
        for some in kept:
            if some.memory == bank.name:
                for first, end in some.ranges:
                    yield self._named(tags[some.unit, first:end])

    def in_pieces(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Iterator[Integers]:
        """The words of the output's tensor that the words of pieces hold."""
        self._settle(bank)
        tags = self._tags[bank.name]
        for box in placed(bank, pieces, _NOTHING, _nowhere(pieces)):
            for word in range(width):
                yield self._named(window(tags, box[0], box[1] + word, box[2]))

    def _named(self, tags: Integers) -> Integers:
        """Which words of the output's tensor are among tags."""
        at = self._at[self._frame.views["output"].tensor]
        first, end = self._firsts[at : at + 2]
        words: Integers = tags[(first <= tags) & (tags < end)] - first
        return words

    def read(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Reach:
        """Every word of the pieces (of one unit each) has to hold its element of the role."""
        units, low, high = self._units[bank.name], bank.words, 0
        first, strides = self._places[role]
        changed: list[Piece] = []
        for piece in pieces:
            (unit,) = piece.instances
            words = units[unit].find(first, strides, piece) if 0 <= unit < bank.units else None
            if words is None:
                changed.append(piece)
                words, _ = reach(bank, piece, self._frame.widths[role])
            begin, end = words
            low, high = begin if begin < low else low, end if end > high else high
        if changed:
            self._settle(bank)
            self._compare(role, bank, changed)
        return Reach(low, high)

    def write(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Reach:
        """From now on the words of the pieces hold their elements of the role."""
        return self._overwrite(*self._places[role], bank, pieces, self._frame.widths[role])

    def clear(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Reach:
        """From now on the words of the pieces, ``width`` for each element, hold nothing."""
        return self._overwrite(_NOTHING, _nowhere(pieces), bank, pieces, width)

    def _overwrite(self, first: int, strides: _Strides, bank: Bank, pieces: Sequence[Piece], width: int) -> Reach:
        units, low, high = self._units[bank.name], bank.words, 0
        last: Piece | None = None
        words, apart = Reach(0, 0), False
        for piece in pieces:
            if last is None or not alike(last, piece):
                words, apart = reach(bank, piece, width)
                low, high = min(low, words.first), max(high, words.end)
                last = piece
            held = _Held(piece, first, strides, words) if first and apart else None
            for unit in piece.instances:
                if not 0 <= unit < bank.units:
                    raise DisagreementFault(f"unit {unit} of memory {bank.name!r}, which has {bank.units}")
                if held:
                    units[unit].put(held)
                else:
                    units[unit].clear(words)
        if high > self._tops[bank.name]:
            self._tops[bank.name] = high
        self._later[bank.name].append(_Write(first, strides, pieces, width, Reach(low, high)))
        return Reach(low, high)

    def _settle(self, bank: Bank) -> None:
        """Tag the words that were written since."""
        tags, later = self._tags[bank.name], self._later[bank.name]
        if later:
            self._tagged.add(bank.name)
        for first, strides, pieces, width, _ in later:
            for box in placed(bank, pieces, first, strides):
                wanted = _expected(box) if first else _NOTHING
                for word in range(width):
                    window(tags, box[0], box[1] + word, box[2])[...] = wanted
        later.clear()
        self._tidied[bank.name] = 0

    def _compare(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> None:
        width, tags = self._frame.widths[role], self._tags[bank.name]
        for box in placed(bank, pieces, *self._places[role]):
            wanted = _expected(box)
            for word in range(width):
                if not (window(tags, box[0], box[1] + word, box[2]) == wanted).all():
                    self._explain(role, bank, box, word, wanted)

    def _explain(self, role: Role, bank: Bank, box: Box, extra: int, wanted: Integers) -> NoReturn:
        counts, here, pitch, _, _ = box
        found = window(self._tags[bank.name], counts, here + extra, pitch)
        at = np.unravel_index(int(np.argmax(found != wanted)), counts)
        flat = here + extra + sum(int(i) * step for i, step in zip(at, pitch, strict=True))
        unit, word = divmod(flat, bank.words)
        raise DisagreementFault(
            f"word {word} of memory {bank.name!r} of unit {unit} holds {self._name(int(found[at]), role)}, "
            f"expected {self._name(int(wanted[at]), role)}"
        )

    def _name(self, tag: int, role: Role) -> str:
        """A tag as its role and coordinates, those of the given role if it may be one of that."""
        if tag == _NOTHING:
            return "nothing"
        for known in (role, *self._places):
            first, strides = self._places[known]
            point = _point(tag - first, self._frame.shapes[known], strides)
            if point is not None:
                return f"{known} {point}"
        if tag >= self._firsts[-1]:
            return "what only a section before could read"
        at = bisect_right(self._firsts, tag) - 1
        return f"word {tag - self._firsts[at]} of tensor {self._names[at]!r}"

    def _place(self, view: View) -> tuple[int, _Strides]:
        """The tag of a view's first element, and strides to those of others; along an axis of one, none."""
        first = self._firsts[self._at[view.tensor]] + view.offset
        return first, tuple(s if size > 1 else 0 for size, s in zip(view.shape, view.strides, strict=True))


def _nowhere(pieces: Sequence[Piece]) -> _Strides:
    """Strides for pieces whose elements do not matter."""
    return (0,) * len(pieces[0].region) if pieces else ()


def _point(distance: int, shape: Sequence[int], strides: _Strides) -> tuple[int, ...] | None:
    """The coordinates whose strides add up to a distance, if the axes nest."""
    point = [0] * len(shape)
    for axis in sorted(range(len(shape)), key=lambda axis: -strides[axis]):
        if strides[axis] and distance > 0:
            point[axis] = min(distance // strides[axis], shape[axis] - 1)
            distance -= point[axis] * strides[axis]
    return tuple(point) if distance == 0 else None


def _first(first: int, strides: _Strides, piece: Piece) -> int:
    """The tag of the element that a piece starts with."""
    starts = [axis[0].start if axis else 0 for axis in piece.region]
    return first + sum(start * stride for start, stride in zip(starts, strides, strict=True))


def _blank(bank: Bank) -> Integers:
    """Tags of words that hold nothing."""
    tags: Integers = np.zeros(bank.words * bank.units, np.int64)
    return tags


def _expected(box: Box) -> Integers:
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
