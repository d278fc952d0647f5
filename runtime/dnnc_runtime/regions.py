"""Exact set arithmetic over regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.tensor import Axis, Region, elements, extent, span

Integers = NDArray[np.int64]
_Interval = tuple[int, int]


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


def follows(before: Axis, after: Axis) -> bool:
    """Whether two axes are intervals, one behind the other."""
    if len(before) != 1 or len(after) != 1 or before[0].step != 1 or after[0].step != 1:
        return False
    return before[0].start + before[0].count == after[0].start


def goes_on(a: Region, b: Region) -> bool:
    """Whether a region is that of the rows behind another one's."""
    return a[0] == b[0] and a[2:] == b[2:] and follows(a[1], b[1])


def stacks(regions: Sequence[Region]) -> Iterator[list[Region]]:
    """Runs of regions each of which goes on behind the one before."""
    some: list[Region] = []
    for region in regions:
        if some and not goes_on(some[-1], region):
            yield some
            some = []
        some.append(region)
    if some:
        yield some


def stacked(regions: Sequence[Region]) -> Region:
    """Regions each of which goes on behind the one before, as one."""
    if len(regions) == 1:
        return regions[0]
    image, rows, *rest = regions[0]
    return image, span(rows[0].start, sum([extent(region[1]) for region in regions])), *rest


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
        if (count := _within(wholes[0], parts)) is not None:
            return count == elements(wholes[0]) == sum(map(elements, parts))
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
    if (count := _within(need, parts)) is not None:
        return count == elements(need)
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


def _within(whole: Region, parts: Sequence[Region]) -> int | None:
    """How many elements of a region the parts have; None if not all are boxes, or it takes more to tell them apart."""
    common = 1
    varying: list[list[_Interval]] = []
    for bounds, *axes in zip(whole, *parts, strict=True):
        if len(bounds) != 1 or bounds[0].step != 1:
            return None
        low, high = bounds[0].start, bounds[0].start + bounds[0].count
        if len({id(bounds), *map(id, axes)}) == 1:
            common *= high - low
            continue
        found: list[_Interval] = []
        for axis in axes:
            if len(axis) != 1 or axis[0].step != 1:
                return None
            start, stop = axis[0].start, axis[0].start + axis[0].count
            found.append((start if start > low else low, stop if stop < high else high))
        varying.append(found)
    if not varying:
        return common * len(parts) if len(parts) < 2 else None
    boxes = [box for box in zip(*varying, strict=True) if all(start < stop for start, stop in box)]
    if not _apart(boxes):
        return None
    count: int = common * sum([prod([stop - start for start, stop in box]) for box in boxes])
    return count


def _apart(boxes: Sequence[tuple[_Interval, ...]]) -> bool:
    """Whether boxes come apart by cuts between them along one axis, then of each side along another, and so on."""
    if len(boxes) < 2:
        return True
    for axis in range(len(boxes[0])):
        sides: list[list[tuple[_Interval, ...]]] = []
        reached = -1
        for box in sorted(boxes, key=itemgetter(axis)):
            start, stop = box[axis]
            if start >= reached:
                sides.append([])
            sides[-1].append(box)
            reached = max(reached, stop)
        if len(sides) > 1:
            return all(map(_apart, sides))
    return False


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
