"""Where regions lie: strided boxes of words, and exact set arithmetic over regions.

A piece lays its region's *listed* coordinates out at even pitches; a view lays all coordinates out at strides.
Wherever the runs are regular, the words of both are boxes that correspond one to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.machine import Machine
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
    return np.ndarray(counts, dtype or words.dtype, words, base * item, tuple([step * item for step in steps]))


@dataclass(frozen=True, slots=True)
class Bank:
    """A memory of every unit, laid end to end: ``words`` for each of ``units``."""

    name: str
    words: int
    units: int


def banks(machine: Machine) -> dict[str, Bank]:
    """The machine's memories by name."""
    return {m.name: Bank(m.name, m.bytes // machine.word_bytes, machine.instances(m)) for m in machine.memories}


def placed(bank: Bank, pieces: Sequence[Piece], width: int, offset: int, strides: Sequence[int]) -> list[Box]:
    """The words of pieces in a bank, and their places on the other side, such as a view.

    Pieces that lie alike in evenly spaced units become one box, so that they can be copied or compared at once.

    Args:
        width: words of one element.
        offset, strides: where the regions' coordinates lie on the other side.

    Raises:
        DisagreementFault: a piece is outside the memory, or in no unit of it.
    """
    found: list[Box] = []
    last: Piece | None = None
    alike: list[Box] = []
    for piece in pieces:
        units = piece.instances
        if not units or min(units) < 0 or max(units) >= bank.units:
            raise DisagreementFault(f"units {units} of memory {bank.name!r}, which has {bank.units}")
        shift = None if last is None else _shift(last, piece, strides)
        if shift is None:
            alike = boxes(piece.region, piece.base, piece.pitch, offset, strides)
            last, shift = piece, 0
            for box in alike:
                first, end = _reach(box, width)
                if first < 0 or end > bank.words:
                    raise DisagreementFault(f"words {first}..{end - 1} of memory {bank.name!r}, which has {bank.words}")
        for counts, here, pitch, there, steps in alike:
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
    return _shift(piece, other, piece.pitch) is not None


def _reach(box: Box, width: int) -> tuple[int, int]:
    """The first word of a box in its memory, and one past the last; a pitch must not be negative."""
    counts, here, pitch, _, _ = box
    end = here + width
    for count, step in zip(counts, pitch, strict=True):
        if step < 0:
            raise DisagreementFault(f"a piece at word {here} has the pitch {step}, expected none below 0")
        end += (count - 1) * step
    return here, end


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
    single: list[Run] = []
    for axis in region:
        if len(axis) != 1:
            break
        single.append(axis[0])
    else:
        return [_box(single, base, pitch, offset, strides)]
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


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense array of that shape, in elements."""
    return tuple(prod(shape[a + 1 :]) for a in range(len(shape)))


def extents(region: Region) -> tuple[int, ...]:
    """Number of listed coordinates of every axis."""
    return tuple([extent(axis) for axis in region])


@lru_cache(maxsize=4096)
def listed(axis: Axis) -> Integers:
    """The coordinates of an axis as an array; treat it as read-only."""
    parts = [np.arange(run.start, run.start + run.count * run.step, run.step, dtype=np.int64) for run in axis]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def inside(region: Region, shape: Sequence[int]) -> bool:
    """Whether every coordinate lies within the shape."""
    return all(
        not axis or axis[-1].start + (axis[-1].count - 1) * axis[-1].step < size
        for axis, size in zip(region, shape, strict=True)
    )


def partitions(wholes: Sequence[Region], parts: Sequence[Region], repeat: bool = False) -> bool:
    """Whether both lists hold every element equally often: at most once, unless elements may ``repeat``."""
    if len(wholes) == 1:
        if len(parts) == 1:
            return wholes[0] == parts[0]
        spans = _spans([wholes[0], *parts])
        if spans is not None:
            (start, stop), *rest = spans
            ends = [start] + [end for _, end in sorted(rest)]
            return [begin for begin, _ in sorted(rest)] == ends[:-1] and ends[-1] == stop
    elif list(wholes) == list(parts) and (spans := _spans(wholes)) is not None:
        ordered = sorted(spans)
        return repeat or all(end <= begin for (_, end), (begin, _) in pairwise(ordered))
    shape, cells = _cells([*wholes, *parts])
    counts = np.zeros((2, *shape), np.int32)
    for i, cell in enumerate(cells):
        counts[int(i >= len(wholes))][cell] += 1
    return bool((counts[0] == counts[1]).all()) and (repeat or int(counts.max(initial=0)) <= 1)


def covers(parts: Sequence[Region], need: Region) -> bool:
    """Whether the union of the parts holds every element of the needed region."""
    if len(parts) == 1 and parts[0] == need:
        return True
    if not all(need):
        return True
    if not parts:
        return False
    spans = _spans([need, *parts])
    if spans is not None:
        (reached, stop), *rest = spans
        for begin, end in sorted(rest):
            if begin <= reached:
                reached = max(reached, end)
        return reached >= stop
    shape, cells = _cells([need, *parts])
    held = np.zeros(shape, np.bool_)
    for cell in cells[1:]:
        held[cell] = True
    return bool(held[cells[0]].all())


def _spans(regions: Sequence[Region]) -> list[tuple[int, int]] | None:
    """The regions' intervals on the one axis on which they differ; None if they are not of that kind."""
    first = regions[0]
    varying: int | None = None
    for region in regions[1:]:
        for a, axis in enumerate(region):
            if a != varying and axis is not first[a] and axis != first[a]:
                if varying is not None:
                    return None
                varying = a
    axes = [region[varying or 0] for region in regions]
    if not all(len(axis) == 1 and axis[0].step == 1 for axis in axes):
        return None
    return [(axis[0].start, axis[0].start + axis[0].count) for axis in axes]


def _cells(regions: Sequence[Region]) -> tuple[tuple[int, ...], list[tuple[Integers, ...]]]:
    """A grid of all the regions' coordinates, one cell where all agree, and each region's cells as an open mesh."""
    sizes: list[int] = []
    columns: list[list[Integers]] = []
    for axes in zip(*regions, strict=True):
        if all(axis == axes[0] for axis in axes):
            sizes.append(1)
            columns.append([np.zeros(1, np.int64)] * len(axes))
            continue
        union = np.unique(np.concatenate([listed(axis) for axis in axes]))
        sizes.append(len(union))
        columns.append([np.searchsorted(union, listed(axis)) for axis in axes])
    return tuple(sizes), [np.ix_(*mesh) for mesh in zip(*columns, strict=True)]


@lru_cache(maxsize=4096)
def shared(held: Axis, need: Axis) -> tuple[Integers, Integers]:
    """Positions in both axes' lists of the coordinates that they share."""
    _, here, there = np.intersect1d(listed(held), listed(need), assume_unique=True, return_indices=True)
    return here.astype(np.int64), there.astype(np.int64)
