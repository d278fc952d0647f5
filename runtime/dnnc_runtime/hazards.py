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

BLOCK = 32
"""Words of a memory in a row: most footprints that do not overlap have no such block in common."""


class Footprint(NamedTuple):
    """The words of a piece: ``counts`` elements along each axis, ``pitch`` words apart, ``width`` words each."""

    memory: str
    base: int
    pitch: tuple[int, ...]
    counts: tuple[int, ...]
    width: int


@lru_cache(maxsize=1 << 12)
def _mask(pitch: tuple[int, ...], counts: tuple[int, ...], width: int) -> int:
    """Which words of its reach a footprint takes up: a bit for each, the first word's lowest."""
    taken = (1 << width) - 1
    for count, step in sorted(zip(counts, pitch, strict=True), key=lambda axis: axis[1]):
        taken = _repeated(taken, count, step)
    return taken


@lru_cache(maxsize=1 << 14)
def _blocks(pitch: tuple[int, ...], counts: tuple[int, ...], width: int, at: int) -> int:
    """Which blocks of words a footprint takes up, from the one on in which it begins ``at`` that word."""
    mask = _mask(pitch, counts, width) << at
    blocks = np.frombuffer(mask.to_bytes(-(-mask.bit_length() // BLOCK) * BLOCK // 8, "little"), f"<u{BLOCK // 8}")
    return int.from_bytes(np.packbits(blocks != 0, bitorder="little").tobytes(), "little")


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


class Use(NamedTuple):
    """Words on chip that a job reads or writes, in whatever units."""

    words: Footprint
    writes: bool


@dataclass(slots=True, eq=False)
class _Place:
    """A footprint, in whatever units' memories: what overlaps it does so in all of them.

    Attributes:
        first, end, mask: the words of its reach, and which of them it takes up.
        blocks: which blocks of the memory it takes up, at least in part.
        reads, writes: its uses; equal ones are the same object.
        beside: the other places that have a word in common with it, and whether it has all words of theirs.
        cells: by unit.
    """

    first: int
    end: int
    mask: int
    blocks: int
    reads: Use
    writes: Use
    beside: dict[_Place, bool] = field(default_factory=dict["_Place", bool])
    cells: dict[int, _Cell] = field(default_factory=dict[int, "_Cell"])


@dataclass(slots=True, eq=False)
class _Cell:
    """A place in one unit's memory: who wrote it last, who has read it since; what overlaps it, itself first."""

    place: _Place
    writer: int = -1
    readers: dict[object, int] = field(default_factory=dict[object, int])
    beside: list[_Cell] = field(default_factory=list["_Cell"])

    def over(self) -> bool:
        """Whether all its words were written since it was last used."""
        last, place, left = max(self.writer, *self.readers.values(), -1), self.place, self.place.mask
        for other in self.beside:
            if other.writer > last:
                shift, mask = other.place.first - place.first, other.place.mask
                left &= ~(mask << shift if shift >= 0 else mask >> -shift)
                if not left:
                    return True
        return False


class Held(NamedTuple):
    """Pieces as cells of units' memories, and as places, one for each run of pieces that lie alike."""

    pieces: Sequence[Piece]
    cells: list[_Cell]
    places: list[_Place]

    def uses(self, writes: bool) -> list[Use]:
        """The uses of the pieces, in whatever units."""
        return [place.writes if writes else place.reads for place in self.places]


class _Places:
    """The places of one memory, with the bounds of each in arrays: so those near a new one are found at once."""

    def __init__(self) -> None:
        self._all: list[_Place] = []
        self._firsts, self._ends = np.empty(64, np.int64), np.empty(64, np.int64)

    def add(self, place: _Place) -> None:
        """One more."""
        count = len(self._all)
        if count == len(self._firsts):
            self._firsts, self._ends = np.resize(self._firsts, 2 * count), np.resize(self._ends, 2 * count)
        self._firsts[count], self._ends[count] = place.first, place.end
        self._all.append(place)

    def meet(self, place: _Place) -> None:
        """Connect those that have a word in common with another, and it with them."""
        count = len(self._all)
        near = (self._firsts[:count] < place.end) & (self._ends[:count] > place.first)
        for at in near.nonzero()[0].tolist():
            other = self._all[at]
            if not place.blocks & other.blocks:
                continue
            low, high = (place, other) if place.first < other.first else (other, place)
            shift = high.first - low.first
            if common := low.mask >> shift & high.mask:
                low.beside[high] = common == high.mask
                high.beside[low] = common << shift == low.mask


class Hazards:
    """The on-chip memories of a machine, and the jobs that use them."""

    def __init__(self) -> None:
        self._places: dict[Footprint, _Place] = {}
        self._of_memory: dict[str, _Places] = {}
        self._known: dict[tuple[int, str, int], Held] = {}
        self._count = self._tidied = 0

    def held(self, memory: str, pieces: Sequence[Piece], width: int) -> Held:
        """Pieces in a memory, of elements of ``width`` words; programs share pieces, which are known by identity."""
        key = id(pieces), memory, width
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._found(memory, pieces, width)
        return known

    def read(self, job: int, held: Held, queue: object) -> set[int]:
        """The jobs that a job which reads these pieces waits for.

        Args:
            queue: jobs of one queue end in order, so that only the last one that reads a piece is remembered.
        """
        after: set[int] = set()
        for cell in held.cells:
            for other in cell.beside:
                after.add(other.writer)
            cell.readers[queue] = job
        after.discard(-1)
        after.discard(job)
        return after

    def write(self, job: int, held: Held) -> set[int]:
        """The jobs that a job which writes these pieces waits for."""
        after: set[int] = set()
        for cell in held.cells:
            covers = cell.place.beside
            for other in cell.beside:
                if other.readers:
                    after.update(other.readers.values())
                elif other.writer == -1:
                    continue
                after.add(other.writer)
                if other is cell:
                    other.readers.clear()
                elif covers[other.place]:
                    other.readers.clear()
                    other.writer = -1
            cell.writer = job
        after.discard(-1)
        after.discard(job)
        return after

    def users(self, held: Held) -> set[int]:
        """The jobs that have used the words of these pieces."""
        after: set[int] = set()
        for cell in held.cells:
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
        gone = {cell for place in self._places.values() for cell in place.cells.values() if cell.over()}
        left: dict[Footprint, _Place] = {}
        for of, place in self._places.items():
            place.cells = {unit: cell for unit, cell in place.cells.items() if cell not in gone}
            for cell in place.cells.values():
                cell.beside = [other for other in cell.beside if other not in gone]
            if place.cells:
                left[of] = place
            else:
                for other in place.beside:
                    del other.beside[place]
        self._places, self._of_memory = left, {}
        for of, place in left.items():
            self._of_memory.setdefault(of.memory, _Places()).add(place)
        self._known = {key: held for key, held in self._known.items() if gone.isdisjoint(held.cells)}
        self._count -= len(gone)
        self._tidied = self._count

    def _found(self, memory: str, pieces: Sequence[Piece], width: int) -> Held:
        held, last = Held(pieces, [], []), None
        for piece in pieces:
            if last is None or not alike(last, piece):
                counts = tuple([extent(axis) for axis in piece.region])
                held.places.append(self._place(Footprint(memory, piece.base, piece.pitch, counts, width)))
                last = piece
            place = held.places[-1]
            for unit in piece.instances:
                held.cells.append(place.cells.get(unit) or self._cell(place, unit))
        return held

    def _place(self, of: Footprint) -> _Place:
        place = self._places.get(of)
        if place is None:
            far = sum((count - 1) * step for count, step in zip(of.counts, of.pitch, strict=True))
            mask = _mask(of.pitch, of.counts, of.width)
            block, at = divmod(of.base, BLOCK)
            blocks = _blocks(of.pitch, of.counts, of.width, at) << block
            place = _Place(of.base, of.base + far + of.width, mask, blocks, Use(of, False), Use(of, True))
            others = self._of_memory.setdefault(of.memory, _Places())
            others.meet(place)
            others.add(place)
            self._places[of] = place
        return place

    def _cell(self, place: _Place, unit: int) -> _Cell:
        cell = place.cells[unit] = _Cell(place)
        cell.beside.append(cell)
        for near in place.beside:
            if other := near.cells.get(unit):
                cell.beside.append(other)
                other.beside.append(cell)
        self._count += 1
        return cell
