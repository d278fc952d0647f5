"""Where regions lie: strided boxes of words.

A piece lays its region's *listed* coordinates out at even pitches; a view lays all coordinates out at strides.
Wherever the runs are regular, the words of both are boxes that correspond one to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kept
from dnnc_runtime.tensor import Axis, Piece, Region, Run, extent

Integers = NDArray[np.int64]
Box = tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]]
"""counts; base and steps on one side (on chip); base and steps on the other (DRAM, or any dense array)."""


def window(
    words: NDArray[Any], counts: Sequence[int], base: int, steps: Sequence[int], dtype: np.dtype[Any] | None = None
) -> NDArray[Any]:
    """The elements at words base + sum(index * step) of a contiguous array, without a copy.

    Args:
        dtype: type of the elements, which may be wider than a word.
    """
    item = words.itemsize
    return np.ndarray(counts, dtype or words.dtype, words, base * item, tuple(map(item.__mul__, steps)))


@dataclass(frozen=True, slots=True)
class Bank:
    """A memory of every unit, laid end to end: ``words`` for each of ``units``."""

    name: str
    words: int
    units: int


def banks(machine: Machine) -> dict[str, Bank]:
    """The machine's memories by name."""
    return {m.name: Bank(m.name, m.bytes // machine.word_bytes, machine.instances(m)) for m in machine.memories}


def placed(bank: Bank, pieces: Sequence[Piece], offset: int, strides: Sequence[int]) -> list[Box]:
    """The words of pieces in a bank, and their places on the other side, such as a view.

    Pieces that lie alike in evenly spaced units become one box, so that they can be copied or compared at once.

    Args:
        pieces: of which :func:`reach` has found that they lie inside the memory.
        offset, strides: where the regions' coordinates lie on the other side.

    Raises:
        DisagreementFault: a piece is in no unit of the memory.
    """
    found: list[Box] = []
    last: Piece | None = None
    same: list[Box] = []
    for piece in pieces:
        units = piece.instances
        if not units or min(units) < 0 or max(units) >= bank.units:
            raise DisagreementFault(f"units {units} of memory {bank.name!r}, which has {bank.units}")
        shift = None if last is None else _shift(last, piece, strides)
        if shift is None:
            same = boxes(piece.region, piece.base, piece.pitch, offset, strides)
            last, shift = piece, 0
        for counts, here, pitch, there, steps in same:
            there += shift
            found += [(counts, here + unit * bank.words, pitch, there, steps) for unit in units]
    while len(found) > 1:
        fewer = _joined(found)
        if len(fewer) == len(found):
            break
        found = fewer
    return found


def _shift(piece: Piece, other: Piece, strides: Sequence[int]) -> int | None:
    """How much further on the other side a piece lies than one at the same words of another unit, if it is alike."""
    if piece.base != other.base or piece.pitch != other.pitch:
        return None
    shift = 0
    for axis, beside, stride in zip(piece.region, other.region, strides, strict=True):
        if axis is not beside:
            if len(axis) != 1 or len(beside) != 1:
                return None
            here, there = axis[0], beside[0]
            if here.count != there.count or here.step != there.step:
                return None
            shift += (there.start - here.start) * stride
    return shift


def alike(piece: Piece, other: Piece) -> bool:
    """Whether two pieces take up the same words of their memories in the same way."""
    if piece.base != other.base or piece.pitch != other.pitch:
        return False
    return piece.region is other.region or _shift(piece, other, piece.pitch) is not None


class Reach(NamedTuple):
    """The first word of a memory that something takes up, in whatever unit, and one past the last."""

    first: int
    end: int


def reach(bank: Bank, piece: Piece, width: int) -> tuple[Reach, bool]:
    """The words that a piece takes up, and whether its elements, of ``width`` words, are sure to lie apart.

    Raises:
        DisagreementFault: the piece is outside the memory.
    """
    words, apart = stretch(piece.pitch, piece.region, width)
    end = piece.base + words
    if piece.base < 0 or end > bank.words or min(piece.pitch) < 0:
        raise DisagreementFault(f"words {piece.base}..{end - 1} of memory {bank.name!r}, which has {bank.words}")
    return Reach(piece.base, end), apart


def stretch(pitch: Sequence[int], region: Region, width: int) -> tuple[int, bool]:
    """How many words a region at some pitches reaches over, and whether its elements are sure to lie apart."""
    words, apart = width, True
    for axis, step in zip(reversed(region), reversed(pitch), strict=True):
        count = axis[0].count if len(axis) == 1 else extent(axis)
        if count != 1:
            if step < words:
                apart = False
            words += (count - 1) * step
    return words, apart


class Taken:
    """Words that pieces take up: what lies between the first and the last of each, by unit."""

    __slots__ = ("_by_unit", "end", "first", "found")

    def __init__(self, found: Sequence[tuple[Iterable[int], Reach]]) -> None:
        self.found = found
        self._by_unit: dict[int, list[Reach]] = {}
        self.first = min([words[0] for _, words in found], default=0)
        self.end = max([words[1] for _, words in found], default=0)

    def meets(self, other: Taken) -> bool:
        """Whether any word is in both."""
        if self.end <= other.first or other.end <= self.first:
            return False
        there = other.by_unit()
        return any(
            first < stop and begin < end
            for units, (first, end) in self.found
            for unit in units
            for begin, stop in there.get(unit, ())
        )

    def by_unit(self) -> Mapping[int, Sequence[Reach]]:
        """The words that every unit has of them."""
        if not self._by_unit:
            for units, words in self.found:
                for unit in units:
                    self._by_unit.setdefault(unit, []).append(words)
        return self._by_unit


def together(some: Iterable[Taken]) -> Taken:
    """All the words of several."""
    return Taken([found for one in some for found in one.found])


def taken(bank: Bank, pieces: Iterable[Piece], width: int) -> Taken:
    """The words that pieces take up."""
    found: list[tuple[Iterable[int], Reach]] = []
    last, words = None, Reach(0, 0)
    for piece in pieces:
        if last is None or not alike(last, piece):
            words, _ = reach(bank, piece, width)
            last = piece
        found.append((piece.instances, words))
    return Taken(found)


def emptied(bank: Bank, kept: Iterable[Kept]) -> list[tuple[int, Reach]]:
    """The words of a bank that are not kept, by unit.

    Raises:
        DisagreementFault: words are kept outside the memory, or more than once.
    """
    tops, out = [0] * bank.units, list[tuple[int, Reach]]()
    for some in kept:
        if some.memory != bank.name:
            continue
        if not 0 <= some.unit < bank.units:
            raise DisagreementFault(f"unit {some.unit} of memory {bank.name!r}, which has {bank.units}")
        for first, end in some.ranges:
            if first < tops[some.unit] or end > bank.words:
                raise DisagreementFault(
                    f"words {first}..{end - 1} of memory {bank.name!r} are kept: expected words from "
                    f"{tops[some.unit]} on, below {bank.words}"
                )
            out.append((some.unit, Reach(tops[some.unit], first)))
            tops[some.unit] = end
    out += [(unit, Reach(top, bank.words)) for unit, top in enumerate(tops)]
    return [(unit, words) for unit, words in out if words.first < words.end]


def _joined(found: list[Box]) -> list[Box]:
    """Boxes with runs of equal, evenly spaced ones made one box with one more axis."""
    out: list[Box] = []
    start = 0
    while start < len(found):
        counts, here, pitch, there, steps = found[start]
        stop, apart, across = start + 1, 0, 0
        while stop < len(found):
            other = found[stop]
            if other[0] != counts or other[2] != pitch or other[4] != steps:
                break
            if stop == start + 1:
                apart, across = other[1] - here, other[3] - there
            elif other[1] != here + (stop - start) * apart or other[3] != there + (stop - start) * across:
                break
            stop += 1
        many = stop - start
        box = ((many, *counts), here, (apart, *pitch), there, (across, *steps)) if many > 1 else found[start]
        out.append(box)
        start = stop
    return out


def boxes(region: Region, base: int, pitch: Sequence[int], offset: int, strides: Sequence[int]) -> list[Box]:
    """The region as corresponding boxes: listed coordinates at ``pitch`` here, coordinates at ``strides`` there.

    Axes merge where both sides allow it, so that most boxes have one or two axes. An empty region has no boxes.
    """
    for axis in region:
        if len(axis) != 1:
            break
    else:
        return [_box([run for (run,) in region], base, pitch, offset, strides)]
    out: list[Box] = []
    for choice in product(*(_listed_runs(axis) for axis in region)):
        start = base + sum(skip * p for (skip, _), p in zip(choice, pitch, strict=True))
        out.append(_box([run for _, run in choice], start, pitch, offset, strides))
    return out


def _listed_runs(axis: Axis) -> list[tuple[int, Run]]:
    """The runs of an axis, each with the number of coordinates listed before it."""
    out: list[tuple[int, Run]] = []
    skip = 0
    for run in axis:
        out.append((skip, run))
        skip += run.count
    return out


def _box(choice: list[Run], base: int, pitch: Sequence[int], offset: int, strides: Sequence[int]) -> Box:
    counts: list[int] = []
    here: list[int] = []
    there: list[int] = []
    for a in range(len(choice) - 1, -1, -1):
        run, stride = choice[a], strides[a]
        offset += run.start * stride
        if run.count == 1:
            continue
        step = run.step * stride
        if counts and pitch[a] == counts[-1] * here[-1] and step == counts[-1] * there[-1]:
            counts[-1] *= run.count
        else:
            counts.append(run.count)
            here.append(pitch[a])
            there.append(step)
    return tuple(counts[::-1]), base, tuple(here[::-1]), offset, tuple(there[::-1])


@lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense array of that shape, in elements."""
    return tuple(prod(shape[a + 1 :]) for a in range(len(shape)))


def extents(region: Region) -> tuple[int, ...]:
    """Number of listed coordinates of every axis."""
    return tuple(map(extent, region))
