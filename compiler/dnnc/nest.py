"""A schedule's loop nest made concrete: tile indices, the coordinates of every tile, and which unit holds what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product

from dnnc.axis import Cut, Halo, PoolSteps, halo, pool_steps, rows, touched
from dnnc.layer import Layer
from dnnc.places import Dealt, Places, Range, Unit
from dnnc.schedule import DIMS, Dim, Schedule
from dnnc.space import locate
from dnnc.structure import Tiles
from dnnc.traffic import Model
from dnnc_runtime.machine import Machine

Index = dict[Dim, int]
"""Tile index of every loop (0 where a loop is not active)."""


@dataclass(frozen=True)
class Nest:
    """One layer under one schedule on one machine.

    Attributes:
        first: by memory the word at which its tiles start; at 0, if not given.
    """

    layer: Layer
    schedule: Schedule
    machine: Machine
    first: Mapping[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def located(self) -> tuple[Model, Tiles]:
        """The closed forms and scalar tiles."""
        return locate(self.layer.shape, self.machine, self.schedule)

    @property
    def model(self) -> Model:
        """The closed forms."""
        return self.located[0]

    @property
    def tiles(self) -> Tiles:
        """The schedule's tiles, as the closed forms index them."""
        return self.located[1]

    @cached_property
    def places(self) -> Places:
        """Where every resident lies."""
        return Places(*self.located, self.first)

    @cached_property
    def dealt(self) -> Dealt:
        """Which unit holds which planes and groups."""
        return Dealt(self.model.structure.deal, self.machine)

    @cached_property
    def halo(self) -> Halo:
        """The row cut's account of input rows."""
        account = halo(self.layer.shape.y, self.schedule.y, self.schedule.move)
        assert account
        return account

    @cached_property
    def pool(self) -> PoolSteps | None:
        """The row cut's account of the fused pool."""
        pool = self.layer.shape.pool
        return pool_steps(pool.y, self.schedule.y) if pool else None

    @cached_property
    def trips(self) -> dict[Dim, int]:
        """Trips of every loop."""
        return self.schedule.trips(self.layer.shape)

    @cached_property
    def steps(self) -> int:
        """Row steps of one image."""
        return self.schedule.y.steps

    @property
    def row_units(self) -> range:
        """Units that take row blocks."""
        return range(self.model.structure.deal.rows)

    def indices(self) -> Iterator[Index]:
        """The tile indices in the order of the loops."""
        order = self.schedule.order
        for point in product(*(range(self.trips[d]) for d in order)):
            index: Index = dict.fromkeys(DIMS, 0)
            index.update(zip(order, point, strict=True))
            yield index

    def image(self, index: Index) -> tuple[int, int]:
        """(image, row step) of an index."""
        return divmod(index["y"], self.steps)

    def plane(self, dim: Dim, i: int) -> Range:
        """(start, count) of a tile of k, c or g."""
        return self._planes[dim][i]

    @cached_property
    def _planes(self) -> dict[Dim, list[Range]]:
        s, q = self.layer.shape, self.schedule
        axes: tuple[tuple[Dim, int, int], ...] = (("k", s.k, q.k), ("c", s.c, q.c), ("g", s.g, q.g))
        return {d: [(first, min(size, total - first)) for first in range(0, total, size)] for d, total, size in axes}

    def out_rows(self, unit: int, step: int) -> range:
        """Convolution rows of a unit's tile; empty where its block has ended."""
        return _tile(self.schedule.y, unit, step)

    def out_columns(self, i: int) -> range:
        """Convolution columns of a tile."""
        return _tile(self.schedule.x, 0, i)

    def in_rows(self, unit: int, step: int) -> int:
        """Mask of all input rows that a unit's tile touches."""
        tile = self.out_rows(unit, step)
        return touched(self.layer.shape.y, tile.start, tile.stop)

    def in_columns(self, i: int) -> int:
        """Mask of the input columns that a tile touches."""
        tile = self.out_columns(i)
        return touched(self.layer.shape.x, tile.start, tile.stop)

    def outside(self, dim: Dim, index: Index) -> tuple[int, ...]:
        """The indices of the loops outside one: what has to stay the same for its duration."""
        order = self.schedule.order
        end = order.index(dim) if dim in order else len(order)
        return tuple(index[d] for d in order[:end])

    @cached_property
    def homes(self) -> dict[str, dict[Unit, int]]:
        """By resident, the memory instance of every unit of the level where it lies."""
        return {role: self.dealt.instances(self.model.level(role)) for role in self._resident_roles()}

    def _resident_roles(self) -> list[str]:
        return ["input", "weights", "second", "parameters", "residual", "output"]

    def related(self, unit: Unit, role: str, to: str) -> list[Unit]:
        """The units of another resident's level that are, hold, or belong to a unit of this one's."""
        own, other = self.model.level(role), self.model.level(to)
        if own == other:
            return [unit]
        deal = self.model.structure.deal
        low, high = min(own, other), max(own, other)
        planes = groups = 1
        for level in range(low + 1, high + 1):
            planes, groups = planes * deal.planes[level], groups * deal.groups[level]
        if other < own:
            return [Unit(unit.row, unit.plane // planes, unit.group // groups)]
        return [
            Unit(unit.row, unit.plane * planes + p, unit.group * groups + g)
            for p in range(planes)
            for g in range(groups)
        ]


def _tile(cut: Cut, unit: int, step: int) -> range:
    block = cut.tiles[unit]
    return range(*block[step]) if step < len(block) else range(0)


@lru_cache(maxsize=16384)
def listed(mask: int) -> tuple[int, ...]:
    """The coordinates of a mask as a tuple."""
    return tuple(rows(mask))
