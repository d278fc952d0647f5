"""What an instruction has to wait for on chip: the words that it reads to be there, those that it writes to be free.

Every piece in a unit's memory takes up a set of words, its *footprint*. Of each footprint that is in use, the last
job that wrote it and those that have read it since are known; a job waits for the writers of all that overlaps what
it reads, and for the writers and readers of all that overlaps what it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
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


@lru_cache(maxsize=1 << 10)
def _mask(of: Footprint) -> NDArray[np.bool_]:
    """Which words below its end a footprint takes up."""
    taken = np.zeros(reach(of)[1], dtype=bool)
    view(taken, of)[...] = True
    return taken


def view(memory: NDArray[Any], of: Footprint) -> NDArray[Any]:
    """The words of a footprint, in an array of all words of its memory."""
    return window(memory, (*of.counts, of.width), of.base, (*of.pitch, 1))


@lru_cache(maxsize=1 << 16)
def overlap(a: Footprint, b: Footprint) -> bool:
    """Whether two footprints of one memory, whose reaches overlap, have a word in common."""
    end, stop = reach(a)[1], reach(b)[1]
    larger, smaller = (a, b) if end >= stop else (b, a)
    return a is b or bool(view(_mask(larger), smaller).any())


@lru_cache(maxsize=1 << 16)
def covers(a: Footprint, b: Footprint) -> bool:
    """Whether a footprint has all words of another of the same memory."""
    (first, end), (other, stop) = reach(a), reach(b)
    return a is b or (first <= other and stop <= end and bool(view(_mask(a), b).all()))


@dataclass(slots=True, eq=False)
class _Cell:
    """A footprint in one unit's memory: who wrote it last, who has read it since; what else overlaps it.

    ``beside`` are the cells that have a word in common with it, itself first, and whether it has all of theirs.
    ``writers`` are those of all of them, None where they have to be looked up again.
    """

    of: Footprint
    first: int
    end: int
    writer: int = -1
    readers: dict[object, int] = field(default_factory=dict[object, int])
    beside: list[tuple[_Cell, bool]] = field(default_factory=list[tuple["_Cell", bool]])
    writers: set[int] | None = None

    @property
    def last(self) -> int:
        """The last job that used it."""
        return max(self.writer, *self.readers.values(), -1)

    def forget(self) -> None:
        """All of its words are written by another."""
        self.writer = -1
        self.readers.clear()
        for other, _ in self.beside:
            other.writers = None


class Hazards:
    """The on-chip memories of a machine, and the jobs that use them."""

    def __init__(self) -> None:
        self._cells: dict[Footprint, dict[int, _Cell]] = {}
        self._of_unit: dict[tuple[str, int], list[_Cell]] = {}
        self._known: dict[tuple[int, str, int], tuple[Sequence[Piece], list[_Cell], tuple[Footprint, ...]]] = {}
        self._count = self._tidied = 0

    def read(self, job: int, memory: str, pieces: Sequence[Piece], width: int, queue: object) -> set[int]:
        """The jobs that a job which reads these pieces waits for.

        Args:
            queue: jobs of one queue end in order, so that only the last one that reads a piece is remembered.
        """
        after: set[int] = set()
        for cell in self._held(memory, pieces, width):
            if cell.writers is None:
                cell.writers = {other.writer for other, _ in cell.beside}
            after |= cell.writers
            cell.readers[queue] = job
        after.discard(-1)
        after.discard(job)
        return after

    def write(self, job: int, memory: str, pieces: Sequence[Piece], width: int) -> set[int]:
        """The jobs that a job which writes these pieces waits for."""
        after: set[int] = set()
        for cell in self._held(memory, pieces, width):
            for other, covered in cell.beside:
                other.writers = None
                if other.readers:
                    after.update(other.readers.values())
                elif other.writer == -1:
                    continue
                after.add(other.writer)
                if covered:
                    other.forget()
            cell.writer = job
        after.discard(-1)
        after.discard(job)
        return after

    def users(self, memory: str, pieces: Sequence[Piece], width: int) -> set[int]:
        """The jobs that have used the words of these pieces."""
        after: set[int] = set()
        for cell in self._held(memory, pieces, width):
            for other, _ in cell.beside:
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
                cell.beside = [beside for beside in cell.beside if beside[0] in left]
                cell.writers = None
            self._of_unit[at] = [cell for cell in cells if cell in left]
        self._cells, self._known, self._count = {}, {}, 0
        for (_, unit), cells in self._of_unit.items():
            self._count += len(cells)
            for cell in cells:
                self._cells.setdefault(cell.of, {})[unit] = cell
        self._tidied = self._count

    def footprints(self, memory: str, pieces: Sequence[Piece], width: int) -> tuple[Footprint, ...]:
        """The distinct footprints of pieces, in whatever units."""
        self._held(memory, pieces, width)
        return self._known[id(pieces), memory, width][2]

    def _held(self, memory: str, pieces: Sequence[Piece], width: int) -> list[_Cell]:
        """The cells of pieces; programs share their pieces, which are remembered by identity."""
        key = id(pieces), memory, width
        if key not in self._known:
            cells, last = list[_Cell](), None
            for piece in pieces:
                of = last[1] if last and alike(last[0], piece) else footprint_of(memory, piece, width)
                last, units = (piece, of), self._cells.setdefault(of, {})
                cells += [units.get(unit) or self._cell(of, unit) for unit in piece.instances]
            self._known[key] = pieces, cells, tuple({cell.of: None for cell in cells})
        return self._known[key][1]

    def _cell(self, of: Footprint, unit: int) -> _Cell:
        cell = _Cell(of, *reach(of))
        cell.beside.append((cell, True))
        others = self._of_unit.setdefault((of.memory, unit), [])
        for other in others:
            if cell.first < other.end and other.first < cell.end and overlap(of, other.of):
                cell.beside.append((other, covers(of, other.of)))
                other.beside.append((cell, covers(other.of, of)))
        others.append(cell)
        self._cells[of][unit] = cell
        self._count += 1
        return cell


def footprint_of(memory: str, piece: Piece, width: int) -> Footprint:
    """The footprint of a piece, whose elements are ``width`` words."""
    return footprint(memory, piece.base, piece.pitch, tuple([extent(axis) for axis in piece.region]), width)
