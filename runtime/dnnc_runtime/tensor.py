"""Regions of tensors and their byte arithmetic.

A region is a product of per-axis coordinate sets; each set is a short sorted tuple of strided runs.
A view places a tensor's axes in DRAM; a piece places a region in an on-chip memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Run:
    """The coordinates start, start + step, ... (count of them)."""

    start: int
    count: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or self.step < 1:
            raise ValueError(f"a run needs start >= 0, count >= 1, step >= 1, not {self}")

    def coordinates(self) -> range:
        """The coordinates in order."""
        return range(self.start, self.start + self.count * self.step, self.step)

    def __str__(self) -> str:
        tail = f"/{self.step}" if self.step > 1 else ""
        return f"{self.start}+{self.count}{tail}"


Axis = tuple[Run, ...]
"""One axis of a region: sorted, disjoint runs."""

Region = tuple[Axis, ...]
"""A product of axes, outermost first."""


def runs(coordinates: Iterable[int]) -> Axis:
    """The fewest greedy strided runs that list the sorted, distinct coordinates in order."""
    out: list[Run] = []
    points = list(coordinates)
    i = 0
    while i < len(points):
        j = i + 1
        step = points[j] - points[i] if j < len(points) else 1
        while j + 1 < len(points) and points[j + 1] - points[j] == step:
            j += 1
        # Two points with a gap are two runs of one unless a third goes on with the same step.
        if step > 1 and j - i < 2:
            j = i
        count = min(j, len(points) - 1) - i + 1
        out.append(Run(points[i], count, step if count > 1 else 1))
        i += count
    return tuple(out)


@lru_cache(maxsize=1 << 16)
def span(start: int, count: int) -> Axis:
    """The axis of ``count`` consecutive coordinates."""
    return (Run(start, count),)


def coordinates(axis: Axis) -> tuple[int, ...]:
    """All coordinates of an axis in order."""
    return tuple(c for run in axis for c in run.coordinates())


def extent(axis: Axis) -> int:
    """Number of coordinates of an axis."""
    return axis[0].count if len(axis) == 1 else sum(run.count for run in axis)


def elements(region: Region) -> int:
    """Number of elements of a region."""
    return prod(map(extent, region))


@dataclass(frozen=True, slots=True)
class View:
    """How the axes of an operand lie in a DRAM tensor: word = offset + sum(coordinate * stride)."""

    tensor: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides):
            raise ValueError(f"view of {self.tensor!r}: {len(self.shape)} extents, {len(self.strides)} strides")


class Piece(NamedTuple):
    """A region of an operand as it lies in an on-chip memory.

    The i-th listed coordinate of axis a lies ``i * pitch[a]`` words after ``base``.
    ``instances`` are the units' memories that hold it: more than one for a broadcast load.
    """

    instances: tuple[int, ...]
    base: int
    pitch: tuple[int, ...]
    region: Region

    @property
    def size(self) -> int:
        """Elements of the region (one instance's copy)."""
        return elements(self.region)


def bursts(view: View, region: Region, word: int, burst: int) -> int:
    """Bursts that a transfer of the region takes: every contiguous DRAM run rounded up by itself.

    Args:
        view: where the region's axes lie in DRAM, in words.
        region: one axis of runs for each axis of the view.
        word: bytes of one word.
        burst: bytes of one burst.
    """
    return sum(-(-length * word // burst) * many for length, many in _contiguous(view, region))


@lru_cache(maxsize=4096)
def consecutive(axis: Axis) -> tuple[int, ...]:
    """Lengths of the maximal runs of consecutive coordinates of an axis."""
    lengths: list[int] = []
    last = -2
    for point in coordinates(axis):
        if point == last + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
        last = point
    return tuple(lengths)


def _contiguous(view: View, region: Region) -> Iterator[tuple[int, int]]:
    """Lengths in words of a region's contiguous runs and how many there are of each; axes merge from the last one
    outwards while full."""
    length = 1
    for a in reversed(range(len(region))):
        if view.shape[a] == 1:
            continue
        repeats = prod(extent(axis) for axis in region[:a])
        if view.strides[a] != length:
            yield length, repeats * extent(region[a])
            return
        if extent(region[a]) < view.shape[a]:
            for count in consecutive(region[a]):
                yield count * length, repeats
            return
        length *= view.shape[a]
    yield length, 1
