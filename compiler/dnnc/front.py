"""The front of a layer: the schedules that nothing else beats in bytes and cycles, and the fewest cycles of all.

Every schedule of the space is looked at, or ruled out by a bound: the fewest cycles are exact. The front's cycles are
told apart in steps of one percent; within a step fewer bytes decide, then fewer tiles, so that no schedule of single
pixels is there for the sake of a few cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from dnnc.cycles import ClosedForm
from dnnc.enumerate import best, structures
from dnnc.points import Buffers, Found, all_buffers, all_trips, at, held, length, listed, optimist, pace, roomier
from dnnc.schedule import Ints
from dnnc.space import Space, schedule_of
from dnnc.structure import Array, Structure, Tiles
from dnnc.traffic import Model

STEP = 1.01
"""Cycles of the front are told apart in steps of one percent."""

_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Front:
    """What nothing else beats.

    Attributes:
        points: fewest bytes first, and so fewest cycles last.
        fewest_cycles: of any schedule of the space, exactly.
    """

    points: tuple[Found, ...]
    fewest_cycles: int


def front(space: Space) -> Front | None:
    """The front of a space; None if it holds no legal schedule.

    Raises:
        Stopped: it was interrupted while it looked for the fewest bytes, and had found something.
    """
    first = best(space)
    if first is None:
        return None
    search = _Search(space, _Steps(first.cycles))
    search.steps.put(first)
    follows = (False, True) if space.shape.parameters else (False,)
    # What has no pins comes first: it is quick to look at, and rules out most of what has.
    for pinned, follow, deal in product((False, True), follows, space.deals):
        for structure, tiles, _ in structures(space, deal, follow):
            if bool(structure.pin) == pinned:
                search.visit(structure, tiles)
    return Front(search.steps.points(), search.steps.fewest_cycles)


@dataclass
class _Steps:
    """The best schedule of each step of cycles, and what the steps up to it hold.

    Attributes:
        most: cycles of the first schedule; what takes longer cannot have fewer bytes.
        bytes, tiles: fewest bytes of each step, and the tiles of the schedule that has them.
        reached: fewest bytes of each step and those below.
    """

    most: int
    fewest_cycles: int = _FAR
    found: dict[int, Found] = field(default_factory=dict[int, Found])

    def __post_init__(self) -> None:
        count = int(pace(self.most, STEP)) + 1
        self.bytes = np.full(count, _FAR)
        self.tiles = np.full(count, _FAR)
        self.reached = np.full(count, _FAR)

    def put(self, this: Found) -> None:
        """Keep a schedule if nothing in its step or below is as good."""
        self.fewest_cycles = min(self.fewest_cycles, this.cycles)
        step = int(pace(this.cycles, STEP))
        if step >= len(self.bytes) or this.bytes > self.reached[step]:
            return
        if (this.bytes, this.tiles) < (self.bytes[step], self.tiles[step]):
            if this.bytes == self.reached[step] < self.bytes[step]:
                return
            self.bytes[step], self.tiles[step], self.found[step] = this.bytes, this.tiles, this
            self.reached = np.minimum.accumulate(self.bytes)

    def open(self, moved: Array, least: Array, trips: Array) -> Array:
        """Where schedules of so many bytes and tiles, and at least so many cycles, might be kept."""
        step = np.minimum(pace(least, STEP), len(self.bytes) - 1)
        fewer = (moved == self.bytes[step]) & (trips < self.tiles[step])
        return (least <= self.most) & ((least < self.fewest_cycles) | (moved < self.reached[step]) | fewer)

    def points(self) -> tuple[Found, ...]:
        """What no other step beats."""
        kept: list[Found] = []
        for step in sorted(self.found):
            if not kept or self.found[step].bytes < kept[-1].bytes:
                kept.append(self.found[step])
        return tuple(reversed(kept))


@dataclass(frozen=True)
class _Search:
    """Looks at the structures of a space one by one."""

    space: Space
    steps: _Steps

    def visit(self, structure: Structure, tiles: Tiles) -> None:
        """Keep what a grid has that nothing else beats."""
        model = Model(self.space.shape, self.space.machine, structure)
        most = optimist(model, tiles)
        wanted = self.steps.open(model.bytes(most), ClosedForm(model).least(most), all_trips(tiles))
        for points in listed(self.space, structure, tiles, wanted):
            fitting = held(self.space, model, points)
            if fitting is None:
                continue
            parts, choices = ClosedForm(model).parts(fitting), all_buffers(self.space)
            left = np.ones(length(fitting), dtype=bool)
            for buffers, ok in roomier(model, fitting, choices):
                if buffers == choices[0]:
                    left[ok] = False
                if len(ok):
                    roomy = Model(model.shape, model.machine, replace(structure, buffers=buffers))
                    cycles = np.broadcast_to(parts.cycles(buffers), (length(fitting),))[ok]
                    self._keep(roomy, at(fitting, ok), cycles)
            if structure.pin and left.any():
                self._fewer_pinned(structure, at(fitting, np.flatnonzero(left)), choices)

    def _fewer_pinned(self, structure: Structure, points: Tiles, choices: Sequence[Buffers]) -> None:
        """Where not all buffers fit beside as many pinned tiles as fit at all: fewer tiles leave room for them, and may
        still be faster."""
        for buffers in choices:
            model = Model(self.space.shape, self.space.machine, replace(structure, buffers=buffers))
            wanted = self.steps.open(model.bytes(points), ClosedForm(model).least(points), all_trips(points))
            points = at(points, np.flatnonzero(np.broadcast_to(wanted, (length(points),))))
            if not length(points):
                return
            fitting = held(self.space, model, points, fewer=True)
            if fitting is not None:
                self._keep(model, fitting, ClosedForm(model).cycles(fitting))

    def _keep(self, model: Model, tiles: Tiles, cycles: Array) -> None:
        """Keep the best point of every step."""
        moved: Ints = model.bytes(tiles) + np.zeros(length(tiles), dtype=np.int64)
        cycles, trips = cycles + np.zeros_like(moved), all_trips(tiles) + np.zeros_like(moved)
        self.steps.fewest_cycles = min(self.steps.fewest_cycles, int(cycles.min()))
        better = np.flatnonzero(self.steps.open(moved, cycles, trips))
        steps = pace(cycles[better], STEP)
        order = better[np.lexsort((cycles[better], trips[better], moved[better], steps))]
        _, firsts = np.unique(pace(cycles[order], STEP), return_index=True)
        for point in order[firsts]:
            schedule = schedule_of(model.structure, at(tiles, point))
            self.steps.put(Found(schedule, int(moved[point]), int(cycles[point]), int(trips[point])))
