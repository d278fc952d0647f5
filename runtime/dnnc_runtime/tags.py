"""What every word on chip holds: the element's identity as one number, zero where it holds nothing.

An element of a role with a view is the word of DRAM that the view gives it, so that layers know each other's tensors
under whatever views; an element that never leaves the chip is one of its section alone.

Most reads are of pieces just as they were written, and are settled without looking at words. Only where one is not
(a ring, a part of a tile, another view, a fault), the words of the memory are tagged, with all that was written to it
until then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from operator import mul
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

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
from dnnc_runtime.tensor import Piece, View, span

_Strides = tuple[int, ...]
_Key = tuple[int, int]
_NOTHING = 0


class _Write(NamedTuple):
    """A write of elements whose tags are first + sum(coordinate * stride); nothing's first is zero."""

    first: int
    strides: _Strides
    pieces: Sequence[Piece]
    width: int
    words: Reach


class _Unit:
    """One unit's memory: where every write went, and the last piece written at every place."""

    def __init__(self) -> None:
        self._writes: list[Reach] = []
        self._pieces: dict[_Key, tuple[Piece, _Strides, int]] = {}

    def put(self, key: _Key | None, strides: _Strides, piece: Piece, words: Reach) -> None:
        """Words are written, as a piece of elements unless the key is None."""
        if key is not None:
            self._pieces[key] = piece, strides, len(self._writes)
        self._writes.append(words)

    def find(self, key: _Key, strides: _Strides, piece: Piece) -> Reach | None:
        """The words of a piece if it was written just so and nothing on top of it."""
        held, spread, when = self._pieces.get(key, (None, (), 0))
        if held is None or held.pitch != piece.pitch or spread != strides:
            return None
        if held.region != piece.region and not alike(held, piece):
            return None
        first, end = words = self._writes[when]
        for other, stop in self._writes[when + 1 :]:
            if other < end and first < stop:
                return None
        return words

    def keep(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Forget all pieces but those that lie wholly in a range."""
        bounds = np.array(self._writes, np.int64).reshape(-1, 2)
        writes, pieces = list[Reach](), dict[_Key, tuple[Piece, _Strides, int]]()
        for key, (piece, strides, when) in self._pieces.items():
            words = self._writes[when]
            if not any(first <= words.first and words.end <= end for first, end in ranges):
                continue
            later = bounds[when + 1 :]
            if not ((later[:, 0] < words.end) & (words.first < later[:, 1])).any():
                pieces[key] = piece, strides, len(writes)
                writes.append(words)
        self._writes, self._pieces = writes, pieces


class Tags:
    """The tags of all memories, from section to section."""

    def __init__(self, machine: Machine, tensors: Sequence[Tensor]) -> None:
        self._banks = banks(machine)
        self._names = [tensor.name for tensor in tensors]
        self._at = {name: at for at, name in enumerate(self._names)}
        self._firsts = np.cumsum([1, *(tensor.words for tensor in tensors)]).tolist()
        self._top = self._firsts[-1]
        self._tags = {bank.name: np.zeros(bank.words * bank.units, np.int64) for bank in self._banks.values()}
        self._later: dict[str, list[_Write]] = {name: [] for name in self._tags}
        self._units = {bank.name: [_Unit() for _ in range(bank.units)] for bank in self._banks.values()}

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
            ranges: dict[int, list[tuple[int, int]]] = {}
            for some in kept:
                if some.memory == bank.name:
                    ranges.setdefault(some.unit, []).extend(some.ranges)
            gaps = emptied(bank, kept)
            if not ranges:
                self._tags[bank.name].fill(_NOTHING)
                self._later[bank.name].clear()
                self._units[bank.name] = [_Unit() for _ in range(bank.units)]
                continue
            for unit, of in enumerate(self._units[bank.name]):
                of.keep(ranges.get(unit, ()))
            low, high = min(r[0][0] for r in ranges.values()), max(r[-1][1] for r in ranges.values())
            later = [write for write in self._later[bank.name] if write.words.first < high and low < write.words.end]
            pieces = [Piece((unit,), words.first, (1,), (span(0, words.end - words.first),)) for unit, words in gaps]
            self._later[bank.name] = [*later, _Write(_NOTHING, (0,), pieces, 1, Reach(0, bank.words))]

    def holding(self, bank: Bank, view: View, kept: Sequence[Kept]) -> NDArray[np.bool_]:
        """Which elements of a view the kept words of a bank hold."""
        self._settle(bank)
        tags = self._tags[bank.name].reshape(bank.units, bank.words)
        some = [k for k in kept if k.memory == bank.name]
        return self._named(view, [tags[k.unit, first:end] for k in some for first, end in k.ranges])

    def held(self, bank: Bank, view: View, pieces: Sequence[Piece], width: int) -> NDArray[np.bool_]:
        """Which elements of a view the words of pieces hold."""
        self._settle(bank)
        found = placed(bank, pieces, width, _NOTHING, _nowhere(pieces))
        tags = self._tags[bank.name]
        return self._named(view, [window(tags, b[0], b[1] + word, b[2]) for b in found for word in range(width)])

    def _named(self, view: View, tags: Iterable[Integers]) -> NDArray[np.bool_]:
        """Which elements of a view are among tags."""
        at = self._at[view.tensor]
        first, end = self._firsts[at : at + 2]
        found = np.zeros(end - first, np.bool_)
        for some in tags:
            found[some[(first <= some) & (some < end)] - first] = True
        return window(found, view.shape, view.offset, view.strides)

    def read(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Reach:
        """Every word of the pieces (of one unit each) has to hold its element of the role."""
        units, low, high = self._units[bank.name], bank.words, 0
        first, strides = self._places[role]
        changed: list[Piece] = []
        for piece in pieces:
            (unit,) = piece.instances
            words = units[unit].find(_key(first, strides, piece), strides, piece) if unit < bank.units else None
            if words is None:
                changed.append(piece)
                words, _ = reach(bank, piece, self._frame.widths[role])
            low, high = min(low, words.first), max(high, words.end)
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
            key = _key(first, strides, piece) if first and apart else None
            for unit in piece.instances:
                if not 0 <= unit < bank.units:
                    raise DisagreementFault(f"unit {unit} of memory {bank.name!r}, which has {bank.units}")
                units[unit].put(key, strides, piece, words)
        self._later[bank.name].append(_Write(first, strides, pieces, width, Reach(low, high)))
        return Reach(low, high)

    def _settle(self, bank: Bank) -> None:
        """Tag the words that were written since."""
        tags, later = self._tags[bank.name], self._later[bank.name]
        for first, strides, pieces, width, _ in later:
            for box in placed(bank, pieces, width, first, strides):
                wanted = _expected(box) if first else _NOTHING
                for word in range(width):
                    window(tags, box[0], box[1] + word, box[2])[...] = wanted
        later.clear()

    def _compare(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> None:
        width, tags = self._frame.widths[role], self._tags[bank.name]
        for box in placed(bank, pieces, width, *self._places[role]):
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


def _key(first: int, strides: _Strides, piece: Piece) -> _Key:
    """Where a piece starts, and with which element: cheaper to look up than the piece, and seldom shared."""
    return piece.base, first + sum(map(mul, [axis[0].start if axis else 0 for axis in piece.region], strides))


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
