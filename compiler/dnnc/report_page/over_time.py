"""What pictures over time share: the axis, the layers behind it, and what each says when pointed at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dnnc.report_page.figures import Line, Network
from dnnc.report_page.markup import Markup, label, mark, rect, short, wide
from dnnc.report_page.picture import WIDTH
from dnnc.report_page.scale import Scale
from dnnc.report_page.series import Floats

LEFT, RIGHT = 66.0, WIDTH - 16.0
BINS = 438
"""Bins of two pixels each."""


@dataclass(frozen=True)
class Course:
    """The time of a network from left to right."""

    network: Network

    @property
    def scale(self) -> Scale:
        """Milliseconds."""
        return Scale(0, self.network.milliseconds(self._ticks), LEFT, RIGHT)

    @property
    def edges(self) -> Floats:
        """Of the bins, in ticks."""
        return np.linspace(0, self._ticks, BINS + 1)

    @property
    def places(self) -> list[float]:
        """Of the bins' edges."""
        return [LEFT + (RIGHT - LEFT) * i / BINS for i in range(BINS + 1)]

    @property
    def bin_seconds(self) -> float:
        """Seconds of a bin."""
        return self.network.milliseconds(self._ticks) / BINS / 1e3

    @property
    def _ticks(self) -> int:
        return self.network.timing.ends[-1]

    def bands(self, top: float, bottom: float) -> Iterator[Markup]:
        """Every other layer is shaded; those wide enough have their names above."""
        for i, (line, start, end) in enumerate(self._layers()):
            if i % 2 == 0:
                yield rect(start, top, end - start, bottom - top, "band")
            length = int((end - start - 4) / wide("n", 11))
            if length >= min(6, len(line.name)):
                yield label((start + end) / 2, top - 5, short(line.name, length), "middle small soft")

    def marks(self, top: float, bottom: float, facts: Callable[[Line], str]) -> Iterator[Markup]:
        """Something to point at for every layer."""
        for line, start, end in self._layers():
            first = self.network.seconds(line.time.start)
            span = f"{line.name}: {1e3 * first:,.3f} to {1e3 * (first + line.seconds):,.3f} ms"
            yield mark(f"{span}\n{facts(line)}", rect(start, top, end - start, bottom - top, "hit"))

    def _layers(self) -> Iterator[tuple[Line, float, float]]:
        for line in self.network.layers:
            start = 1e3 * self.network.seconds(line.time.start)
            yield line, self.scale(start), self.scale(start + 1e3 * line.seconds)


def ends_of(line: Line, network: Network) -> tuple[int, int]:
    """When a layer starts and ends, in ticks."""
    ticks = network.timing.ticks_per_cycle
    return round(line.time.start * ticks), round((line.time.start + line.time.cycles) * ticks)


def staircase(places: list[float], heights: list[float]) -> list[tuple[float, float]]:
    """Points of a line that keeps each height from one place to the next."""
    points: list[tuple[float, float]] = []
    for (left, right), height in zip(pairwise(places), heights, strict=True):
        if points and points[-1][1] == height:
            points[-1] = (right, height)
        else:
            points += [(left, height), (right, height)]
    return points
