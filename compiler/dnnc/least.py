"""Bounds for a whole structure at once: what no choice of its tiles goes below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from dnnc.schedule import Dim, Ints
from dnnc.space import Tables
from dnnc.structure import Tiles
from dnnc.traffic import Model


@dataclass(frozen=True)
class Least:
    """The least of every figure over a grid, as plain numbers: a bound for a whole structure at once."""

    tables: Tables
    index: Mapping[Dim, Ints]

    @cached_property
    def trips(self) -> dict[Dim, int]:
        """Fewest trips of every loop."""
        return {d: int(self.tables[d].trips[i].min()) for d, i in self.index.items()}

    @cached_property
    def rows(self) -> dict[tuple[Dim, bool], int]:
        """Fewest rows and columns loaded in a pass, with halos reloaded or kept."""
        tiles = Tiles(self.tables, self.index)
        axes: tuple[Dim, Dim] = ("y", "x")
        return {(a, keep): int(tiles.pins(a, "rest", 0, keep).min()) for a in axes for keep in (False, True)}

    def bytes(self, model: Model, all_once: bool) -> int:
        """Bytes that no point of the grid goes below.

        Args:
            all_once: only schedules that load everything once are wanted: what is pinned has to fit whole.
        """
        s, pin = model.shape, model.structure.pin
        planes, channels = s.g * s.k, s.c * s.g if s.kind == "array" else s.k
        area = self.rows["y", model.kept("y")] * self.rows["x", model.kept("x")]
        words = 0
        if "input" not in s.on_chip:
            words += area * channels * (1 if pin and pin[0] == "input" else self._passes(model, "input"))
        weights = planes * s.c * s.y.kernel * s.x.kernel if s.kind == "array" else 0
        words += weights * (1 if pin and pin[0] == "weights" else self._passes(model, "weights") if weights else 1)
        words += s.parameters * planes * (self._passes(model, "parameters") if model.structure.follow else 1)
        if "output" not in s.on_chip:
            words += s.n * s.out_rows * s.out_columns * planes
        if s.residual and "residual" not in s.on_chip:
            words += s.n * s.y.out * s.x.out * planes
        moved = words * model.word
        if model.spills:
            sums = s.n * s.y.out * s.x.out * planes * model.machine.accumulator_bytes
            moved += 2 * (self.trips["c"] - 1) * sums
        if all_once and not self.may_load_once(model):
            return moved + 1 << 62
        return moved

    def _passes(self, model: Model, role: str) -> int:
        return prod(self.trips[d] for d in model.structure.around(model.relevant[role]))

    def may_load_once(self, model: Model) -> bool:
        """Whether all tiles of a pinned operand inside its loop could be on chip at once."""
        if not model.structure.pin:
            return True
        operand, loop, _ = model.structure.pin
        s, inside = model.shape, model.structure.inside
        room = model.machine.memory_of(operand).bytes // model.word
        level, deal = model.level(operand), model.structure.deal
        tiles = Tiles(self.tables, self.index)
        extents: dict[Dim, int] = {"k": s.k, "c": s.c, "g": s.g}
        size = {d: total if inside(d, loop) else int(tiles.size(d).min()) for d, total in extents.items()}
        if operand == "weights":
            return int(deal.held_planes(size["g"], size["k"], level)) * size["c"] * s.y.kernel * s.x.kernel <= room
        pixels = 1
        axes: tuple[Dim, Dim] = ("y", "x")
        for a in axes:
            pixels *= int(tiles.at(a, "union_unit").min() if inside(a, loop) else tiles.pins(a, "current", 0).min())
        return pixels * int(deal.held_groups(size["g"], level)) * size["c"] <= room
