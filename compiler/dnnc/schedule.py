"""Schedules: frozen values; how a machine's modes deal a layer out to its units; dataflow names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnnc.axis import Cut, footprint_cut, uniform_cut
from dnnc.layer import Shape
from dnnc_runtime.machine import Machine

Dim = Literal["y", "x", "k", "c", "g"]
Ints = NDArray[np.int64]
DIMS: tuple[Dim, ...] = ("y", "x", "k", "c", "g")
RELEVANT: dict[str, frozenset[Dim]] = {
    "input": frozenset({"y", "x", "c", "g"}),
    "weights": frozenset({"k", "c", "g"}),
    "output": frozenset({"y", "x", "k", "g"}),
    "parameters": frozenset({"k", "g"}),
}
"""The tile loops that change an operand's tile on an array layer (images count as part of y)."""
VECTOR_INPUT: frozenset[Dim] = frozenset({"y", "x", "k"})


@dataclass(frozen=True, slots=True)
class Pin:
    """``tiles`` of an operand along ``dim`` stay on chip for the duration of ``loop``, which re-reads it."""

    operand: Literal["input", "weights"]
    loop: Dim
    dim: Dim
    tiles: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """One layer's schedule. Bytes, capacity and cycles are pure functions of it.

    Attributes:
        mode: the machine's mode.
        y, x: cuts of the output rows (inside the units' blocks) and columns.
        k, c, g: tile sizes in planes, channels, groups; the last tile may be smaller.
        order: the tile loops with more than one trip, outermost first; images go with y.
        keep: what the previous tile holds of a halo is kept ("keep") or loaded again ("reload").
        move: rows that two units need are loaded once and moved over, instead of loaded by both.
        buffers: tiles held of (input, weights, output): 1, or 2 where double-buffered.
        pin: the operand tiles pinned, if any.
        follow: parameters are loaded with every k tile instead of staying for the layer.
    """

    mode: str
    y: Cut
    x: Cut
    k: int
    c: int
    g: int
    order: tuple[Dim, ...]
    keep: bool = True
    move: bool = False
    buffers: tuple[int, int, int] = (1, 1, 1)
    pin: Pin | None = None
    follow: bool = False

    def trips(self, shape: Shape) -> dict[Dim, int]:
        """Trips of every tile loop, one where the axis is not cut."""
        return {
            "y": shape.n * self.y.steps,
            "x": self.x.steps,
            "k": -(-shape.k // self.k),
            "c": -(-shape.c // self.c),
            "g": -(-shape.g // self.g),
        }


@dataclass(frozen=True, slots=True)
class Deal:
    """How a mode deals a layer out: units over row blocks, planes and groups, level by level.

    ``joint``: k per group is smaller than the units that spread k, and none spreads g: they spread (g, k) jointly.
    """

    mode: str
    rows: int
    planes: tuple[int, ...]
    groups: tuple[int, ...]
    lanes: int
    joint: bool
    k_per_group: int

    @property
    def plane_units(self) -> int:
        """Units that planes are dealt to, over the whole array."""
        return prod(self.planes)

    def granules(self, shape: Shape, machine: Machine) -> dict[Dim, int]:
        """Multiples in which k, c and g are cut."""
        g = max(1, self.plane_units // shape.k) if self.joint else prod(self.groups)
        k = shape.k if self.joint else min(self.plane_units, shape.k)
        return {"k": k, "c": min(machine.channel_granularity, shape.c), "g": min(g, shape.g)}

    def _share(self, count: Any, units: tuple[int, ...], level: int) -> Any:
        every = prod(units)
        return count if every == 1 else np.minimum(count, -(-count // every) * prod(units[level + 1 :]))

    def held_planes(self, g: Any, k: Any, level: int) -> Any:
        """Planes of a (g, k) tile that one memory instance at a level holds: the largest share."""
        if self.joint:
            return self._share(g * k, self.planes, level)
        return self._share(g, self.groups, level) * self._share(k, self.planes, level)

    def held_groups(self, g: Any, level: int) -> Any:
        """Groups of a g tile whose input one memory instance holds: its own where a plane is a group, else all."""
        if not self.joint:
            return self._share(g, self.groups, level)
        return self._share(g, self.planes, level) if self.k_per_group == 1 else g

    def passes(self, g: Any, k: Any) -> Any:
        """Passes of the array over the planes of a (g, k) tile."""
        if self.joint:
            return -(-(g * k) // self.plane_units)
        return -(-g // prod(self.groups)) * -(-k // self.plane_units)


@lru_cache(maxsize=4096)
def deals(shape: Shape, machine: Machine, allowed: tuple[str, ...] | None = None) -> tuple[Deal, ...]:
    """The (allowed) modes that may run a layer, as distinct deals; vector layers use the outermost level alone."""
    made: dict[tuple[object, ...], Deal] = {}
    for mode in machine.modes:
        if allowed is not None and mode.name not in allowed:
            continue
        deal = _deal(mode.name, mode.spread, shape, machine)
        if deal:
            made.setdefault((deal.rows, deal.planes, deal.groups, deal.lanes), deal)
    return tuple(made.values())


def _deal(name: str, spread: tuple[str, ...], shape: Shape, machine: Machine) -> Deal | None:
    counts = [level.count for level in machine.levels]
    if shape.kind == "vector":
        spread = (spread[0], *("" for _ in spread[1:]))

    def units(dim: str) -> tuple[int, ...]:
        return tuple(n if d == dim else 1 for d, n in zip(spread, counts, strict=True))

    planes, groups = units("k"), units("g")
    joint = shape.g > 1 and shape.k < prod(planes) and prod(groups) == 1
    # One input word goes to all units of an innermost level that spreads k: they must share a group.
    if joint and spread[-1] == "k" and shape.k % counts[-1]:
        return None
    return Deal(name, prod(units("y")), planes, groups, prod(units("c")), joint, shape.k)


def cut_of(window: Any, units: int, style: str, size: int) -> Cut:
    """The cut of a style and size: a footprint in input coordinates, or a uniform tile in outputs."""
    return (footprint_cut if style == "footprint" else uniform_cut)(window, units, size)


def dataflow(order: tuple[Dim, ...]) -> tuple[str, ...]:
    """The stationary-operand names that an order of active loops earns; several may hold."""

    def outside(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
        a = [i for i, d in enumerate(order) if d in outer]
        b = [i for i, d in enumerate(order) if d in inner]
        return not a or not b or max(a) < min(b)

    names: list[str] = []
    if outside(("k", "c"), ("y", "x")):
        names.append("weight-stationary")
    if outside(("y", "x", "c"), ("k",)):
        names.append("input-stationary")
    if outside(("y", "x", "k"), ("c",)):
        names.append("output-stationary")
    return tuple(names)
