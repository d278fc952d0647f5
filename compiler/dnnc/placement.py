"""Where everything on chip lies: a place in time and addresses for every row, no two of which overlap.

Plots are placed in the order in which they begin, each into the first gap that takes it: from the top down what stays
while a layer by itself takes the bottom of the memory, else from the bottom up. Consecutive rows that live equally long
go side by side. A row for which no gap is wide enough is torn into runs of pixels. Where that fails, what stays long
goes to the top, too; then other orders are tried, each with what found no place moved to the front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from dnnc.lives import Lives, Plot


@dataclass(frozen=True, slots=True)
class Unplaced:
    """What found no place.

    Attributes:
        plot: the row or tile; ``missing``: words of it without a place.
    """

    plot: Plot
    missing: int


Gap = tuple[int, int]
"""Free words [first, end)."""

Order = Callable[[Plot, int], tuple[int, ...]]


def place(lives: Lives, words: int) -> Unplaced | None:
    """Gives every plot its place in memories of so many words; what found none, if anything did."""
    by_unit: dict[int, list[Plot]] = {}
    for plot in lives.plots:
        by_unit.setdefault(plot.unit, []).append(plot)
    for plots in by_unit.values():
        for apart in _apart(plots):
            failure = _unit(apart, lives.reserved, words)
            if failure is not None:
                return failure
    return None


def _apart(plots: Sequence[Plot]) -> Iterator[list[Plot]]:
    """Plots that have nothing to do with each other: between two sections nothing stays."""
    some: list[Plot] = []
    end = -1
    for plot in sorted(plots, key=lambda plot: plot.start):
        if some and plot.start > end:
            yield some
            some = []
        some.append(plot)
        end = max(end, plot.end)
    if some:
        yield some


def _unit(plots: Sequence[Plot], reserved: Sequence[int], words: int) -> Unplaced | None:
    """Places plots of one unit: as they begin, else the longest-lived or the largest first."""
    failure: Unplaced | None = None
    for long in (len(reserved), 64, 16, 4):
        failure = _as_they_begin(plots, reserved, words, long)
        if failure is None:
            return None
    for order in ORDERS:
        blamed: dict[int, int] = {}
        for _ in range(max(LEAST_ROUNDS, min(ROUNDS, EFFORT // len(plots)))):
            failure = _in_order(plots, order, blamed, reserved, words)
            if failure is None:
                return None
            # What found no place goes before all others next time.
            blamed[id(failure.plot)] = blamed.get(id(failure.plot), 0) + 1
    return failure


ROUNDS = 20
LEAST_ROUNDS = 1
"""How often an order is tried at most and at least, with what failed moved to the front."""

EFFORT = 24_000
"""Plots placed in all rounds of an order, about: so many are gone through in three to six seconds (measured)."""

ORDERS: tuple[Order, ...] = (
    lambda plot, floor: (-floor, not plot.granule, plot.start, plot.start - plot.end),
    lambda plot, floor: (floor == 0, not plot.granule, plot.start - plot.end, -plot.words),
    lambda plot, floor: (floor == 0, not plot.granule, plot.start, plot.start - plot.end, -plot.words),
    lambda plot, floor: (not plot.granule, plot.start - plot.end, -plot.words, plot.start),
    lambda plot, floor: (not plot.granule, (plot.start - plot.end - 1) * plot.words, plot.start),
)
"""What is placed first: what has to lie highest, what cannot be torn, what lives longest, what is largest."""


def _in_order(
    plots: Sequence[Plot], order: Order, blamed: Mapping[int, int], reserved: Sequence[int], words: int
) -> Unplaced | None:
    """Places plots one by one beside all that are on chip at any moment of theirs."""
    at: list[list[Plot]] = [[] for _ in reserved]
    floors = {id(plot): max(reserved[plot.start : plot.end + 1]) for plot in plots}
    for plot in sorted(plots, key=lambda plot: (-blamed.get(id(plot), 0), *order(plot, floors[id(plot)]))):
        beside = {id(other): other for section in range(plot.start, plot.end + 1) for other in at[section]}
        floor = floors[id(plot)]
        missing = _torn(plot, _gaps(beside.values(), floor, words), floor > 0)
        if missing:
            return Unplaced(plot, missing)
        for section in range(plot.start, plot.end + 1):
            at[section].append(plot)
    return None


def grow(lives: Lives, words: int) -> None:
    """Gives tiles that only pass through all the room that is left in their section: so there are fewer of them."""
    active: list[list[Plot]] = [[] for _ in lives.scenes]
    for plot in lives.plots:
        for at in range(plot.start, plot.end + 1):
            active[at].append(plot)
    for number, scene in enumerate(lives.scenes):
        for (_, _, unit), plot in scene.stage.items():
            if unit not in scene.sums:
                others = [other for other in active[number] if other.unit == unit and other is not plot]
                first, end = max(_gaps(others, lives.reserved[number], words), key=lambda gap: gap[1] - gap[0])
                plot.words = plot.pixel = (end - first) // plot.granule * plot.granule
                plot.chunks = ((0, 1, first),)


def _as_they_begin(plots: Sequence[Plot], reserved: Sequence[int], words: int, long: int) -> Unplaced | None:
    """Places the plots of one unit; those that last longer than ``long`` sections go to the top."""
    active: list[Plot] = []
    # What cannot be torn goes first.
    order = sorted(plots, key=lambda plot: (plot.start, not plot.granule, plot.start - plot.end, -plot.words))
    for start, begun in groupby(order, key=lambda plot: plot.start):
        active = [plot for plot in active if plot.end >= start]
        for (end, _, _), alike in groupby(begun, key=lambda plot: (plot.end, plot.words, plot.granule)):
            together = list(alike)
            floor = max(reserved[start : end + 1])
            gaps = _gaps(active, floor, words)
            top = floor > 0 or end - start > long
            if not _side_by_side(together, gaps, top):
                for plot in together:
                    missing = _torn(plot, _gaps(active, floor, words), top)
                    if missing:
                        return Unplaced(plot, missing)
                    active.append(plot)
            else:
                active.extend(together)
    return None


def _gaps(active: Iterable[Plot], floor: int, words: int) -> list[Gap]:
    """What is free, in ascending order."""
    taken = sorted((at, at + count * plot.pixel) for plot in active for _, count, at in plot.chunks)
    out: list[Gap] = []
    first = floor
    for start, end in taken:
        if start > first:
            out.append((first, start))
        first = max(first, end)
    if words > first:
        out.append((first, words))
    return out


def _side_by_side(plots: Sequence[Plot], gaps: Sequence[Gap], top: bool) -> bool:
    """Rows of one size in one gap, the smallest that takes them all."""
    size = plots[0].words
    need = size * len(plots)
    fitting = [gap for gap in gaps if gap[1] - gap[0] >= need]
    if not fitting:
        return False
    first, end = fitting[-1] if top else fitting[0]
    base = end - need if top else first
    for i, plot in enumerate(plots):
        plot.chunks = ((0, size // plot.pixel, base + i * size),)
    return True


def _torn(plot: Plot, gaps: Sequence[Gap], top: bool) -> int:
    """A row in one gap, or in as few as it takes; the words that found no place."""
    if _side_by_side([plot], gaps, top):
        return 0
    pixels, done = plot.words // plot.pixel, 0
    chunks: list[tuple[int, int, int]] = []
    for first, end in sorted(gaps, key=lambda gap: gap[0] - gap[1]):
        count = min((end - first) // plot.pixel, pixels - done)
        if count:
            chunks.append((done, count, first))
            done += count
    plot.chunks = tuple(chunks)
    return (pixels - done) * plot.pixel
