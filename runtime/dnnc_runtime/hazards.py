"""What an instruction has to wait for on chip: the words that it reads to be there, those that it writes to be free.

Every piece in a unit's memory takes up a set of words, its *footprint*. Of each footprint that is in use, the last
job that wrote it and those that have read it since are known; a job waits for the writers of all that overlaps what
it reads, and for the writers and readers of all that overlaps what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import alike, window
from dnnc_runtime.tensor import Piece, extent


class Footprint(NamedTuple):
    """The words of a piece: ``counts`` elements along each axis, ``pitch`` words apart, ``width`` words each."""

    memory: str
    base: int
    pitch: tuple[int, ...]
    counts: tuple[int, ...]
    width: int


@lru_cache(maxsize=1 << 14)
def footprint(memory: str, base: int, pitch: tuple[int, ...], counts: tuple[int, ...], width: int) -> Footprint:
    """A footprint; equal ones are the same object."""
    return Footprint(memory, base, pitch, counts, width)


@lru_cache(maxsize=1 << 14)
def reach(of: Footprint) -> tuple[int, int]:
    """The first word of a footprint, and one past the last."""
    far = sum((count - 1) * step for count, step in zip(of.counts, of.pitch, strict=True))
    return of.base, of.base + far + of.width


@lru_cache(maxsize=1 << 12)
def _mask(pitch: tuple[int, ...], counts: tuple[int, ...], width: int) -> int:
    """Which words of its reach a footprint takes up: a bit for each, the first word's lowest."""
    taken = (1 << width) - 1
    for count, step in sorted(zip(counts, pitch, strict=True), key=lambda axis: axis[1]):
        taken = _repeated(taken, count, step)
    return taken


def _repeated(bits: int, count: int, step: int) -> int:
    """As many copies of some bits, a step apart."""
    out, made = bits, 1
    while made < count:
        more = min(made, count - made)
        # What overlaps itself is repeated all the same: more copies of what is there do not hurt.
        out |= out << (more * step if more == made else (count - made) * step)
        made += more
    return out


def view(memory: NDArray[Any], of: Footprint) -> NDArray[Any]:
    """The words of a footprint, in an array of all words of its memory."""
    return window(memory, (*of.counts, of.width), of.base, (*of.pitch, 1))


@dataclass(slots=True, eq=False)
class _Cell:
    """A footprint in one unit's memory: who wrote it last, who has read it since; what else overlaps it.

    Attributes:
        first, end, mask: the words of its reach, and which of them it takes up.
    """

    of: Footprint
    first: int
    end: int
    mask: int
    writer: int = -1
    readers: dict[object, int] = field(default_factory=dict[object, int])
    beside: list[_Cell] = field(default_factory=list["_Cell"])
    over: dict[_Cell, bool] | None = None

    @property
    def last(self) -> int:
        """The last job that used it."""
        return max(self.writer, *self.readers.values(), -1)

    def covers(self, other: _Cell) -> bool:
        """Whether it has all words of another of the same memory."""
        if self.over is None:
            self.over = {}
        if other not in self.over:
            inside = other.mask << other.first - self.first if self.first <= other.first else 0
            self.over[other] = other.end <= self.end and inside != 0 and inside & self.mask == inside
        return self.over[other]


@dataclass(frozen=True, slots=True)
class Use:
    """Words on chip that a job reads or writes, in whatever units."""

    words: Footprint
    writes: bool


Uses = Mapping[int, Use]
"""Uses of distinct footprints; equal ones have the same key and are the same object."""


class _Place(NamedTuple):
    """A footprint: its cells by unit, and its uses, to read and to write."""

    of: Footprint
    cells: dict[int, _Cell]
    uses: tuple[Uses, Uses]


class _Known(NamedTuple):
    """Pieces as cells, and the uses of their footprints, to read and to write."""

    pieces: Sequence[Piece]
    cells: list[_Cell]
    uses: tuple[Uses, Uses]


class _Cells:
    """The cells of one unit's memory, with the bounds of each in arrays: so those near a new one are found at once."""

    def __init__(self, cells: Sequence[_Cell] = ()) -> None:
        self._all: list[_Cell] = []
        self._bounds = np.empty((2, 64), np.int64)
        for cell in cells:
            self.add(cell)

    def __iter__(self) -> Iterator[_Cell]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, cell: _Cell) -> None:
        """One more."""
        count = len(self._all)
        if count == self._bounds.shape[1]:
            self._bounds = np.concatenate([self._bounds, np.empty_like(self._bounds)], axis=1)
        self._bounds[:, count] = cell.first, cell.end
        self._all.append(cell)

    def beside(self, cell: _Cell) -> list[_Cell]:
        """Those that have a word in common with another of the same memory."""
        first, mask = cell.first, cell.mask
        firsts, ends = self._bounds[:, : len(self._all)]
        out: list[_Cell] = []
        for at in np.flatnonzero((firsts < cell.end) & (ends > first)).tolist():
            other = self._all[at]
            shift = other.first - first
            if mask >> shift & other.mask if shift >= 0 else mask & other.mask >> -shift:
                out.append(other)
        return out


class Hazards:
    """The on-chip memories of a machine, and the jobs that use them."""

    def __init__(self) -> None:
        self._places: dict[Footprint, _Place] = {}
        self._of_unit: dict[tuple[str, int], _Cells] = {}
        self._known: dict[tuple[int, str, int], _Known] = {}
        self._count = self._tidied = 0

    def read(self, job: int, memory: str, pieces: Sequence[Piece], width: int, queue: object) -> set[int]:
        """The jobs that a job which reads these pieces waits for.

        Args:
            queue: jobs of one queue end in order, so that only the last one that reads a piece is remembered.
        """
        after: set[int] = set()
        for cell in self._held(memory, pieces, width).cells:
            for other in cell.beside:
                after.add(other.writer)
            cell.readers[queue] = job
        after.discard(-1)
        after.discard(job)
        return after

    def write(self, job: int, memory: str, pieces: Sequence[Piece], width: int) -> set[int]:
        """The jobs that a job which writes these pieces waits for."""
        after: set[int] = set()
        for cell in self._held(memory, pieces, width).cells:
            for other in cell.beside:
                if other.readers:
                    after.update(other.readers.values())
                elif other.writer == -1:
                    continue
                after.add(other.writer)
                if other is cell:
                    other.readers.clear()
                elif cell.covers(other):
                    other.readers.clear()
                    other.writer = -1
            cell.writer = job
        after.discard(-1)
        after.discard(job)
        return after

    def users(self, memory: str, pieces: Sequence[Piece], width: int) -> set[int]:
        """The jobs that have used the words of these pieces."""
        after: set[int] = set()
        for cell in self._held(memory, pieces, width).cells:
            for other in cell.beside:
                after.add(other.writer)
                after.update(other.readers.values())
        after.discard(-1)
        return after

    def tidy(self) -> None:
        """Forget uses of words all of which were written since: whoever waits for them waits for those who wrote.

        It is done when there are half as many cells again as the last time.
        """
        if 2 * self._count < 3 * self._tidied + 128:
            return
        for at, cells in self._of_unit.items():
            written = np.full(max((cell.end for cell in cells), default=0), -1, np.int64)
            for cell in cells:
                words = view(written, cell.of)
                np.maximum(words, cell.writer, out=words)
            left = {cell for cell in cells if not (view(written, cell.of) > cell.last).all()}
            for cell in left:
                cell.beside, cell.over = [other for other in cell.beside if other in left], None
            self._of_unit[at] = _Cells([cell for cell in cells if cell in left])
        self._places, self._known, self._count = {}, {}, 0
        for (_, unit), cells in self._of_unit.items():
            self._count += len(cells)
            for cell in cells:
                self._place(cell.of).cells[unit] = cell
        self._tidied = self._count

    def uses(self, memory: str, pieces: Sequence[Piece], width: int, writes: bool) -> Uses:
        """The uses of pieces, in whatever units."""
        return self._held(memory, pieces, width).uses[writes]

    def _held(self, memory: str, pieces: Sequence[Piece], width: int) -> _Known:
        """The cells of pieces; programs share their pieces, which are remembered by identity."""
        key = id(pieces), memory, width
        known = self._known.get(key)
        if known is None:
            cells, places, last = list[_Cell](), list[_Place](), None
            for piece in pieces:
                if last is None or not alike(last, piece):
                    places.append(self._place(footprint_of(memory, piece, width)))
                    last = piece
                of, there, _ = places[-1]
                cells += [there.get(unit) or self._cell(of, unit) for unit in piece.instances]
            known = self._known[key] = _Known(pieces, cells, _together([place.uses for place in places]))
        return known

    def _place(self, of: Footprint) -> _Place:
        place = self._places.get(of)
        if place is None:
            reads, writes = Use(of, False), Use(of, True)
            place = self._places[of] = _Place(of, {}, ({id(reads): reads}, {id(writes): writes}))
        return place

    def _cell(self, of: Footprint, unit: int) -> _Cell:
        cell = _Cell(of, *reach(of), _mask(of.pitch, of.counts, of.width))
        cell.beside.append(cell)
        others = self._of_unit.setdefault((of.memory, unit), _Cells())
        for other in others.beside(cell):
            cell.beside.append(other)
            other.beside.append(cell)
        others.add(cell)
        self._places[of].cells[unit] = cell
        self._count += 1
        return cell


def _together(uses: Sequence[tuple[Uses, Uses]]) -> tuple[Uses, Uses]:
    """All of some uses; those of one footprint are most of them, and shared."""
    if len(uses) == 1:
        return uses[0]
    reads, writes = ({key: use for of in uses for key, use in of[which].items()} for which in (False, True))
    return reads, writes


def footprint_of(memory: str, piece: Piece, width: int) -> Footprint:
    """The footprint of a piece, whose elements are ``width`` words."""
    return footprint(memory, piece.base, piece.pitch, tuple([extent(axis) for axis in piece.region]), width)
