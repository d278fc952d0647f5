"""What every word on chip holds: the element's identity as one number, zero where it holds nothing.

An element of a role with a view is the word of DRAM that the view gives it, so that layers know each other's tensors
under whatever views; an element that never leaves the chip is one of its section alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod

import numpy as np

from dnnc_runtime.addressing import (
    Bank,
    Integers,
    Reach,
    Taken,
    alike,
    banks,
    boxes,
    emptied,
    reach,
    row_major,
    window,
)
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import SPACES, Frame
from dnnc_runtime.held import NOTHING, Held, Strides, Unit, expected
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kept, Role, Tensor
from dnnc_runtime.tensor import Piece, View


class Tags:
    """The tags of all memories, from section to section."""

    def __init__(self, machine: Machine, tensors: Sequence[Tensor]) -> None:
        self._banks = banks(machine)
        self._names = [tensor.name for tensor in tensors]
        self._at = {name: at for at, name in enumerate(self._names)}
        self._firsts = np.cumsum([1, *(tensor.words for tensor in tensors)]).tolist()
        self._top = self._firsts[-1]
        self._units = {name: [Unit(bank.words) for _ in range(bank.units)] for name, bank in self._banks.items()}

    def begin(self, frame: Frame) -> None:
        """A section starts: its roles get their identities."""
        self._frame = frame
        self._places: dict[Role, tuple[int, Strides]] = {}
        for role in SPACES:
            if role in frame.views:
                self._places[role] = self._place(frame.views[role])
            elif role in frame.shapes:
                self._places[role] = self._top, row_major(frame.shapes[role])
                self._top += prod(frame.shapes[role])

    def end(self, kept: Sequence[Kept]) -> None:
        """Empty all words that are not kept."""
        for name, bank in self._banks.items():
            some = [k for k in kept if k.memory == name]
            if not some:
                self._units[name] = [Unit(bank.words) for _ in range(bank.units)]
                continue
            for unit, words in emptied(bank, some):
                self._units[name][unit].clear(words)

    def staying(self, bank: Bank, kept: Sequence[Kept]) -> Callable[[Piece], bool]:
        """Tells of pieces of the section's output whether they lie among the kept words just as they were written."""
        first, strides = self._places["output"]
        units, ranges = self._units[bank.name], {some.unit: some.ranges for some in kept if some.memory == bank.name}

        def stays(piece: Piece) -> bool:
            (unit,) = piece.instances
            words = units[unit].find(first, strides, piece) if unit in ranges else None
            if words is None:
                return False
            at = bisect_right(ranges[unit], (words.first, bank.words))
            return at > 0 and words.end <= ranges[unit][at - 1][1]

        return stays

    def in_ranges(self, bank: Bank, kept: Sequence[Kept]) -> Iterator[Integers]:
        """The words of the output's tensor that the kept words of a bank hold."""
        for some in kept:
            if some.memory == bank.name:
                for words in some.ranges:
                    tags = self._units[bank.name][some.unit].tags(Reach(*words))
                    yield self._named(tags[slice(*words)])

    def in_pieces(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Iterator[Integers]:
        """The words of the output's tensor that the words of pieces hold."""
        for piece in pieces:
            words, _ = reach(bank, piece, width)
            for unit in piece.instances:
                _check(bank, unit)
                tags = self._units[bank.name][unit].tags(words)
                for box in boxes(piece.region, piece.base, piece.pitch, NOTHING, _nowhere(piece)):
                    for word in range(width):
                        yield self._named(window(tags, box[0], box[1] + word, box[2]))

    def _named(self, tags: Integers) -> Integers:
        """Which words of the output's tensor are among tags."""
        at = self._at[self._frame.views["output"].tensor]
        first, end = self._firsts[at : at + 2]
        words: Integers = tags[(first <= tags) & (tags < end)] - first
        return words

    def read(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Taken:
        """Every word of the pieces (of one unit each) has to hold its element of the role."""
        units, width = self._units[bank.name], self._frame.widths[role]
        found: list[tuple[Iterable[int], Reach]] = []
        first, strides = self._places[role]
        for piece in pieces:
            (unit,) = piece.instances
            _check(bank, unit)
            words = units[unit].find(first, strides, piece)
            if words is None:
                words, _ = reach(bank, piece, width)
                self._compare(role, bank, piece, words)
            found.append((piece.instances, words))
        return Taken(found)

    def write(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Taken:
        """From now on the words of the pieces hold their elements of the role."""
        return self._overwrite(self._places[role], bank, pieces, self._frame.widths[role])

    def clear(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Taken:
        """From now on the words of the pieces, ``width`` for each element, hold nothing."""
        return self._overwrite(None, bank, pieces, width)

    def _overwrite(self, place: tuple[int, Strides] | None, bank: Bank, pieces: Sequence[Piece], width: int) -> Taken:
        units, found = self._units[bank.name], list[tuple[Iterable[int], Reach]]()
        last, words, apart = None, Reach(0, 0), False
        for piece in pieces:
            if last is None or not alike(last, piece):
                words, apart = reach(bank, piece, width)
                last = piece
            found.append((piece.instances, words))
            first, strides = place or (NOTHING, _nowhere(piece))
            held = Held(piece, first, strides, words, width)
            if not piece.instances:
                raise DisagreementFault(f"a piece in no unit of memory {bank.name!r}")
            for unit in piece.instances:
                _check(bank, unit)
                if apart:
                    units[unit].put(held)
                else:
                    units[unit].write(held)
        return Taken(found)

    def _compare(self, role: Role, bank: Bank, piece: Piece, words: Reach) -> None:
        """Look at the tags of a piece's words."""
        (unit,) = piece.instances
        tags = self._units[bank.name][unit].tags(words)
        for box in boxes(piece.region, piece.base, piece.pitch, *self._places[role]):
            wanted = expected(box)
            for word in range(self._frame.widths[role]):
                found = window(tags, box[0], box[1] + word, box[2])
                if not (found == wanted).all():
                    at = np.unravel_index(int(np.argmax(found != wanted)), box[0])
                    where = box[1] + word + sum(int(i) * step for i, step in zip(at, box[2], strict=True))
                    raise DisagreementFault(
                        f"word {where} of memory {bank.name!r} of unit {unit} holds "
                        f"{self._name(int(found[at]), role)}, expected {self._name(int(wanted[at]), role)}"
                    )

    def _name(self, tag: int, role: Role) -> str:
        """A tag as its role and coordinates, those of the given role if it may be one of that."""
        if tag == NOTHING:
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

    def _place(self, view: View) -> tuple[int, Strides]:
        """The tag of a view's first element, and strides to those of others; along an axis of one, none."""
        first = self._firsts[self._at[view.tensor]] + view.offset
        return first, tuple(s if size > 1 else 0 for size, s in zip(view.shape, view.strides, strict=True))


def _check(bank: Bank, unit: int) -> None:
    if not 0 <= unit < bank.units:
        raise DisagreementFault(f"unit {unit} of memory {bank.name!r}, which has {bank.units}")


def _nowhere(piece: Piece) -> Strides:
    """Strides for a piece whose elements do not matter."""
    return (0,) * len(piece.region)


def _point(distance: int, shape: Sequence[int], strides: Strides) -> tuple[int, ...] | None:
    """The coordinates whose strides add up to a distance, if the axes nest."""
    point = [0] * len(shape)
    for axis in sorted(range(len(shape)), key=lambda axis: -strides[axis]):
        if strides[axis] and distance > 0:
            point[axis] = min(distance // strides[axis], shape[axis] - 1)
            distance -= point[axis] * strides[axis]
    return tuple(point) if distance == 0 else None
