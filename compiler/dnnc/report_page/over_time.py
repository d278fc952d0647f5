"""What pictures over time share: the axis, the layers and groups behind it, and what each says when pointed at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dnnc.report_page.figures import Block, Network
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
        """Every other layer or group is shaded; those wide enough have their names above."""
        for i, block in enumerate(self.network.blocks):
            start, end = self.at(block.start), self.at(block.end)
            if i % 2 == 0:
                yield rect(start, top, end - start, bottom - top, "band")
            length = int((end - start - 4) / wide("n", 11))
            number = block.name.removeprefix("group ")
            name = number if number.isdigit() and length < len(block.name) else block.name
            if length >= min(6, len(name)):
                yield label((start + end) / 2, top - 5, short(name, length), "middle small soft")

    def marks(self, top: float, bottom: float, facts: Callable[[Block], str]) -> Iterator[Markup]:
        """Something to point at for every layer or group."""
        for block in self.network.blocks:
            start, end = self.at(block.start), self.at(block.end)
            title = f"{heading(self.network, block)}\n{facts(block)}"
            yield mark(title, rect(start, top, end - start, bottom - top, "hit"))

    def at(self, ticks: float) -> float:
        """Where a time is."""
        return self.scale(self.network.milliseconds(ticks))


def heading(network: Network, block: Block) -> str:
    """What a block is, and when."""
    first, last = network.milliseconds(block.start), network.milliseconds(block.end)
    many = f" ({len(block.lines)} layers, {block.lines[0].name} first)" if len(block.lines) > 1 else ""
    return f"{block.name}{many}: {first:,.3f} to {last:,.3f} ms"


def staircase(places: list[float], heights: list[float]) -> list[tuple[float, float]]:
    """Points of a line that keeps each height from one place to the next."""
    points: list[tuple[float, float]] = []
    for (left, right), height in zip(pairwise(places), heights, strict=True):
        if points and points[-1][1] == height:
            points[-1] = (right, height)
        else:
            points += [(left, height), (right, height)]
    return points
