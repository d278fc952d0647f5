"""Where everything on chip lies: a place in time and addresses for every row, no two of which overlap.

Plots are placed in the order in which they begin, each into the first gap that takes it: from the top down what stays
long, or while a layer by itself takes the bottom of the memory, else from the bottom up. Consecutive rows that live
equally long go side by side. A row for which no gap is wide enough is torn, between pixels if that will do, and so are
tiles. In this order a plot that may be torn between any two words always finds a place if there is one for every word:
what fails is what must not be torn, or must not lie at the bottom. It is placed before all others in the next attempt,
and these go around it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
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
"""Words [first, end)."""

LONG = (4, 16, 64, None)
"""Sections after which a plot counts as one that stays long, in the order in which they are tried; None: never."""

ATTEMPTS = 40
EFFORT = 400_000
"""How often each of these is tried at most, and how many plots are placed in all, about: in two seconds (measured)."""


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
                gaps = _without([(lives.reserved[number], words)], _taken(others))
                first, end = max(gaps, key=lambda gap: gap[1] - gap[0])
                times = (end - first) // plot.granule
                # One that is torn stays as it is.
                if times:
                    plot.words, plot.pixel, plot.atom = (n * times for n in (plot.words, plot.pixel, plot.atom))
                    plot.chunks = ((0, plot.words, first),)


def merged(words: Iterable[Gap]) -> Iterator[Gap]:
    """Ranges of words in ascending order, those that touch as one."""
    first, end = -1, -1
    for start, stop in sorted(words):
        if start > end:
            if first >= 0:
                yield first, end
            first, end = start, stop
        else:
            end = max(end, stop)
    if first >= 0:
        yield first, end


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
    """Places plots of one unit; what came nearest to a place where not all find one."""
    blamed: list[dict[int, int]] = [{} for _ in LONG]
    nearest: Unplaced | None = None
    for _ in range(max(1, min(ATTEMPTS, EFFORT // len(LONG) // len(plots)))):
        for long, often in zip(LONG, blamed, strict=True):
            failure = _in_turn(plots, often, reserved, words, long)
            if failure is None:
                return None
            often[id(failure.plot)] = often.get(id(failure.plot), 0) + 1
            if nearest is None or failure.missing < nearest.missing:
                nearest = failure
    return nearest


def _in_turn(
    plots: Sequence[Plot], often: Mapping[int, int], reserved: Sequence[int], words: int, long: int | None
) -> Unplaced | None:  # fmt: skip
    """Places what often found no place before what seldom did, and that before all others."""
    placed: list[Plot] = []
    for times in sorted({0, *often.values()}, reverse=True):
        turn = [plot for plot in plots if often.get(id(plot), 0) == times]
        failure = _Turn(placed, reserved, words, long).place(turn)
        if failure is not None:
            return failure
        placed += turn
    return None


@dataclass
class _Turn:
    """Places plots as they begin.

    Attributes:
        placed: what has a place already.
        long: see ``LONG``.
    """

    placed: Sequence[Plot]
    reserved: Sequence[int]
    words: int
    long: int | None
    _free: list[Gap] = field(default_factory=list[Gap])
    _ends: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    """What is free in the current section, and the (last section, first word, end) of everything else, as a heap."""

    def place(self, plots: Sequence[Plot]) -> Unplaced | None:
        """Gives plots their places; what found none, if anything did."""
        self._free = [(0, self.words)]
        others = sorted(self.placed, key=lambda plot: plot.start)
        starts = [plot.start for plot in others]
        begun = 0
        # What must not be torn goes first.
        order = sorted(plots, key=lambda plot: (plot.start, not plot.granule, plot.start - plot.end, -plot.words))
        for start, beginning in groupby(order, key=lambda plot: plot.start):
            self._end(start)
            now = bisect_right(starts, start)
            for plot in others[begun:now]:
                if plot.end >= start:
                    self._take(plot)
            begun = now
            for (end, _, _), alike in groupby(beginning, key=lambda plot: (plot.end, plot.words, plot.granule)):
                later = _taken(others[now : bisect_right(starts, end)])
                failure = self._alike(list(alike), max(self.reserved[start : end + 1]), later)
                if failure is not None:
                    return failure
        return None

    def _alike(self, plots: Sequence[Plot], floor: int, later: Sequence[Gap]) -> Unplaced | None:
        """Rows that live equally long: side by side, as many as there is a gap for.

        Args:
            floor: the first word that they may have; ``later``: words that are taken before they end.
        """
        top = floor > 0 or (self.long is not None and plots[0].end - plots[0].start > self.long)
        size, at = plots[0].words, 0
        while at < len(plots):
            gaps = self._gaps(floor, later)
            widest = max((end - first for first, end in gaps), default=0)
            some = plots[at : at + max(1, widest // size)]
            missing = 0 if _side_by_side(some, gaps, top) else _torn(some[0], gaps)
            if missing:
                return Unplaced(some[0], missing)
            for plot in some:
                self._take(plot)
            at += len(some)
        return None

    def _gaps(self, floor: int, later: Sequence[Gap]) -> list[Gap]:
        return _without(_without(self._free, [(0, floor)]), later)

    def _take(self, plot: Plot) -> None:
        taken = _taken([plot])
        self._free = _without(self._free, taken)
        for first, end in taken:
            heappush(self._ends, (plot.end, first, end))

    def _end(self, start: int) -> None:
        """Frees what does not live until a section."""
        freed: list[Gap] = []
        while self._ends and self._ends[0][0] < start:
            freed.append(heappop(self._ends)[1:])
        if freed:
            self._free = list(merged([*self._free, *freed]))


def _taken(plots: Iterable[Plot]) -> list[Gap]:
    """The words of plots, in ascending order."""
    return sorted((at, at + words) for plot in plots for _, words, at in plot.chunks)


def _without(gaps: Sequence[Gap], taken: Sequence[Gap]) -> list[Gap]:
    """What is left of gaps; all in ascending order."""
    out: list[Gap] = []
    at = 0
    for first, end in gaps:
        while at < len(taken) and taken[at][1] <= first:
            at += 1
        here = at
        while here < len(taken) and taken[here][0] < end:
            if taken[here][0] > first:
                out.append((first, taken[here][0]))
            first = max(first, taken[here][1])
            here += 1
        if first < end:
            out.append((first, end))
    return out


def _side_by_side(plots: Sequence[Plot], gaps: Sequence[Gap], top: bool) -> bool:
    """Rows of one size in the first gap that takes them all."""
    size = plots[0].words
    need = size * len(plots)
    fitting = [gap for gap in gaps if gap[1] - gap[0] >= need]
    if not fitting:
        return False
    first, end = fitting[-1] if top else fitting[0]
    base = end - need if top else first
    for i, plot in enumerate(plots):
        plot.chunks = ((0, size, base + i * size),)
    return True


def _torn(plot: Plot, gaps: Sequence[Gap]) -> int:
    """A row in as few gaps as it takes; the words that found no place."""
    if plot.atom == plot.words:
        return plot.words - max((end - first for first, end in gaps), default=0)
    done = 0
    for grain in dict.fromkeys((plot.pixel, plot.atom)):
        done = 0
        chunks: list[tuple[int, int, int]] = []
        for first, end in sorted(gaps, key=lambda gap: gap[0] - gap[1]):
            count = min((end - first) // grain * grain, plot.words - done)
            if count:
                chunks.append((done, count, first))
                done += count
        if done == plot.words:
            plot.chunks = tuple(chunks)
            break
    return plot.words - done
