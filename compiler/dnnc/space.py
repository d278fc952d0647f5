"""The space of schedules of one layer: candidate tables and structures, narrowed by a user's limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, permutations, product
from typing import Literal, NamedTuple

import numpy as np

from dnnc.axis import Cut, Style, cuts, uniform_cut
from dnnc.layer import Shape
from dnnc.schedule import DIMS, Deal, Dim, Ints, Pin, Schedule, dataflow, deals
from dnnc.structure import Array, Pinning, Structure, Tiles
from dnnc.tables import AxisTable, PlaneTable, RowBytes, axis_table, plane_sizes, plane_table
from dnnc.traffic import Model, relevant
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine

Tables = Mapping[Dim, AxisTable | PlaneTable]

Operand = Literal["input", "weights"]

Loops = tuple[tuple[Dim, ...], bool, Pinning | None]
"""Order, keep and pin of a structure."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a user allows of the space; None allows everything.

    Attributes:
        modes: names of modes.
        style: how rows and columns are cut.
        dataflow: a name that the order must earn ("weight-stationary", ...).
        order: loops, outermost first; active loops keep this order, loops left out must not be active.
        counts, sizes: number of tiles, or tile size, by loop. A size of y or x is in output rows or columns;
            one of more than a unit's block is the block.
        keep: halos between tiles kept or loaded again; move: rows of two units moved over or loaded by both.
        buffers: tiles held of (input, weights, output), None where either will do.
        pin: False forbids pinning; a pin asks for it, with as many tiles as fit where its count is 0.
    """

    modes: tuple[str, ...] | None = None
    style: Style | None = None
    dataflow: str | None = None
    order: tuple[Dim, ...] | None = None
    counts: tuple[tuple[Dim, int], ...] = ()
    sizes: tuple[tuple[Dim, int], ...] = ()
    keep: bool | None = None
    move: bool | None = None
    buffers: tuple[int | None, int | None, int | None] = (None, None, None)
    pin: Literal[False] | Pin | None = None


ANYTHING = Limits()
"""Allows the whole space."""


@dataclass(frozen=True)
class Space:
    """All legal schedules of a layer on a machine within limits."""

    shape: Shape
    machine: Machine
    limits: Limits = ANYTHING

    @cached_property
    def deals(self) -> tuple[Deal, ...]:
        """The modes that may run the layer."""
        allowed = self.limits.modes
        return tuple(d for d in deals(self.shape, self.machine, allowed))

    def tables(self, deal: Deal) -> Tables:
        """Candidates of every axis under a mode."""
        granules = deal.granules(self.shape, self.machine)
        return build_tables(
            self.shape,
            self.machine,
            {"y": _cut_candidates(self, "y", deal.rows), "x": _cut_candidates(self, "x", 1)},
            {d: _sizes(self.limits, d, total, granules[d], deal) for d, total in _planes(self.shape)},
        )

    def structures(self, active: tuple[Dim, ...]) -> tuple[Loops, ...]:
        """(order, keep, pin) triples over these active loops, one for each distinct set of formulas."""
        return _structures(active, self.limits, self._pinnable, tuple(sorted(relevant(self.shape).items())))

    def frugal(self, active: tuple[Dim, ...], follow: bool, tables: Tables) -> tuple[Loops, ...]:
        """Of those so many that with any tiles one of them moves fewest bytes, and holds no more."""
        roles = sorted((role, dims) for role, dims in relevant(self.shape).items() if follow or role != "parameters")
        rows = tables["y"]
        assert isinstance(rows, AxisTable)
        waiting = bool(np.any(rows.side) or np.any(rows.slots))
        return _frugal(active, self.limits, self._pinnable, tuple(roles), waiting)

    @property
    def _pinnable(self) -> tuple[Operand, ...]:
        may: tuple[Operand, ...] = ("input", "weights") if self.shape.kind == "array" else ()
        return tuple(operand for operand in may if operand not in self.shape.on_chip)


_Roles = tuple[tuple[str, frozenset[Dim]], ...]
"""For every operand the loops that decide which tile of it is used."""


class _Signature(NamedTuple):
    """All of an order, and what is pinned, that the closed forms look at.

    Attributes:
        repeats: for every operand the loops that load it again, and likewise for what is pinned and what is not.
        halo_axis: along which a halo is kept; ``spills``: whether partial sums leave and return.
        waits: what decides how much is on chip that waits for the next rows.
        pinned: the pin, and what decides how much is pinned.
    """

    repeats: tuple[frozenset[Dim], ...]
    halo_axis: Dim | None
    spills: bool
    waits: tuple[bool, ...]
    pinned: tuple[object, ...]

    def moves_no_more(self, other: _Signature) -> bool:
        """Whether it moves no more bytes than another that pins as much: with any tiles."""
        return (
            (self.waits, self.pinned) == (other.waits, other.pinned)
            and other.halo_axis in (self.halo_axis, None)
            and self.spills <= other.spills
            and all(mine <= theirs for mine, theirs in zip(self.repeats, other.repeats, strict=True))
        )


@lru_cache(maxsize=4096)
def _frugal(
    active: tuple[Dim, ...], limits: Limits, pinnable: tuple[Operand, ...], roles: _Roles, waiting: bool
) -> tuple[Loops, ...]:  # fmt: skip
    found: dict[_Signature, Loops] = {}
    for loops in _structures(active, limits, pinnable, roles):
        signature = _signature(*loops, roles)
        if not waiting:
            signature = signature._replace(waits=())
        if not any(other.moves_no_more(signature) for other in found):
            found = {other: of for other, of in found.items() if not signature.moves_no_more(other)}
            found[signature] = loops
    return tuple(found.values())


@lru_cache(maxsize=4096)
def _structures(
    active: tuple[Dim, ...], limits: Limits, pinnable: tuple[Operand, ...], roles: _Roles
) -> tuple[Loops, ...]:  # fmt: skip
    # A kept halo holds no more than a reloaded one and loads less: reloading is only ever asked for.
    keep = limits.keep is None or limits.keep
    found: dict[_Signature, Loops] = {}
    for order in permutations(active):
        if _allows(limits, order):
            for pin in _pins(limits, order, pinnable):
                found.setdefault(_signature(order, keep, pin, roles), (order, keep, pin))
    return tuple(found.values())


def _allows(limits: Limits, order: tuple[Dim, ...]) -> bool:
    wanted = limits.order
    if wanted is not None and tuple(d for d in wanted if d in order) != order:
        return False
    return limits.dataflow is None or limits.dataflow in dataflow(order)


def _pins(limits: Limits, order: tuple[Dim, ...], pinnable: Collection[Operand]) -> Iterator[Pinning | None]:
    asked = limits.pin
    if not isinstance(asked, Pin):
        yield None
    if asked is False:
        return
    ways: dict[Operand, tuple[str, str]] = {"input": ("k", "yxcg"), "weights": ("yx", "kcg")}
    for operand in pinnable:
        loops, dims = ways[operand]
        for loop, dim in product(order, order):
            if loop in loops and dim in dims and order.index(dim) > order.index(loop):
                pin: Pinning = (operand, loop, dim)
                if asked is None or pin == (asked.operand, asked.loop, asked.dim):
                    yield pin


def _signature(order: tuple[Dim, ...], keep: bool, pin: Pinning | None, roles: _Roles) -> _Signature:
    structure = Structure(_NO_DEAL, order, keep)
    around, inner, dims_of = structure.around, structure.inside, dict(roles)
    repeats = [frozenset(around(dims)) for _, dims in roles]
    waits = tuple(inner(d, "y") for d in ("x", "k", "c", "g")) if "y" in order else ()
    pinned: tuple[object, ...] = ()
    if pin:
        operand, loop, dim = pin
        dims = dims_of[operand]
        repeats += [frozenset(around(dims, end)) for end in (structure.innermost(dims - {dim}), order.index(loop))]
        pinned = (pin, *(inner(d, loop) for d in DIMS))
    halo_axis = structure.halo_axis(dims_of.get("input", frozenset())) if keep else None
    return _Signature(tuple(repeats), halo_axis, structure.spills, waits, pinned)


_NO_DEAL = Deal("", 1, (1,), (1,), 1, False, 1)


def build_tables(
    shape: Shape,
    machine: Machine,
    cuts_of: Mapping[Dim, Iterable[tuple[Cut, bool]]],
    sizes: Mapping[Dim, Iterable[int]],
) -> Tables:
    """The tables of given candidates: (cut, move) pairs of rows and columns, tile sizes of planes."""
    s, word, burst = shape, machine.word_bytes, machine.dram.burst_bytes
    planes = s.g * s.k
    channels = s.c * s.g if s.kind == "array" else s.k
    second = s.second or (False, False, False, False)
    of_second = s.k if second[3] else 1

    def row_bytes(inputs: int, stored: int, outputs: int, seconds: int) -> RowBytes:
        wide = outputs * planes * machine.accumulator_bytes
        return RowBytes(
            burst,
            inputs * channels * word,
            stored * planes * word,
            outputs * planes * word,
            wide,
            seconds * of_second * word,
        )

    rows = row_bytes(s.x.size, s.out_columns, s.x.out, s.x.out if second[2] else 1)
    columns = row_bytes(1, 1, 1, 1)
    y_pool, x_pool = (s.pool.y, s.pool.x) if s.pool else (None, None)
    return {
        "y": axis_table(s.y, tuple(cuts_of["y"]), s.n, y_pool, machine.units_can_send, rows),
        "x": axis_table(s.x, tuple(cuts_of["x"]), 1, x_pool, machine.units_can_send, columns),
        **{d: plane_table(total, sizes[d]) for d, total in _planes(s)},
    }


def _planes(s: Shape) -> tuple[tuple[Dim, int], ...]:
    return ("k", s.k), ("c", s.c), ("g", s.g)


def _sizes(limits: Limits, dim: Dim, total: int, granule: int, deal: Deal) -> list[int]:
    size, count = dict(limits.sizes).get(dim), dict(limits.counts).get(dim)
    if size is not None:
        # Units that spread (g, k) jointly take whole groups.
        return [] if deal.joint and dim == "k" and size < total else [min(size, total)]
    sizes = plane_sizes(total, granule)
    return [n for n in sizes if count is None or -(-total // n) == count]


def _cut_candidates(space: Space, dim: Dim, units: int) -> Iterator[tuple[Cut, bool]]:
    s, limits = space.shape, space.limits
    window = s.y if dim == "y" else s.x
    size, count = dict(limits.sizes).get(dim), dict(limits.counts).get(dim)
    if size is not None:
        size = min(size, -(-window.out // units))  # more than a unit's block is the block
    style = limits.style or ("uniform" if size is not None else "footprint")
    loaded = "input" not in s.on_chip
    moves = (False, True) if units > 1 and space.machine.units_can_send and loaded else (False,)
    asked = style == "uniform" and size is not None
    for cut in (uniform_cut(window, units, size or 1),) if asked else cuts(window, units, style):
        if dim == "x" and s.pool and cut.steps > 1:
            continue
        if (count is not None and cut.steps != count) or (size is not None and cut.largest != size):
            continue
        yield from ((cut, move) for move in moves if limits.move in (None, move) or len(moves) == 1)


def active_sets(tables: Tables) -> Iterator[tuple[tuple[Dim, ...], dict[Dim, Ints]]]:
    """Every set of active loops that the candidates allow, fewest first, with the candidates of each axis."""
    many: dict[Dim, Ints] = {d: np.flatnonzero(tables[d].trips > 1) for d in DIMS}
    one: dict[Dim, Ints] = {d: np.flatnonzero(tables[d].trips == 1) for d in DIMS}
    for count in range(len(DIMS) + 1):
        for active in combinations(DIMS, count):
            index: dict[Dim, Ints] = {d: many[d] if d in active else one[d] for d in DIMS}
            if all(len(i) for i in index.values()):
                yield active, index


def grid(tables: Tables, index: Mapping[Dim, Ints]) -> Tiles:
    """All combinations of candidates, as broadcastable index arrays in the order of DIMS."""
    opened = np.ix_(*(index[d] for d in DIMS))
    return Tiles(tables, dict(zip(DIMS, opened, strict=True)))


def moved_in_steps(tiles: Tiles) -> Array:
    """Where rows are moved between units in more than one row step: not together with a pinned input, since a row
    that stays and a row that was received would each need to be in both places."""
    table = tiles.axis("y")
    return np.asarray(table.moved)[tiles.index["y"]] & (table.trips[tiles.index["y"]] > 1)


def schedule_of(structure: Structure, tiles: Tiles) -> Schedule:
    """The schedule of a structure with scalar tiles."""
    y, x = int(tiles.index["y"]), int(tiles.index["x"])
    pin = Pin(*structure.pin, int(tiles.pinned)) if structure.pin else None
    return Schedule(
        mode=structure.deal.mode,
        y=tiles.axis("y").cuts[y],
        x=tiles.axis("x").cuts[x],
        k=int(tiles.size("k")),
        c=int(tiles.size("c")),
        g=int(tiles.size("g")),
        order=structure.order,
        keep=structure.keep,
        move=tiles.axis("y").moved[y],
        buffers=structure.buffers,
        pin=pin,
        follow=structure.follow,
    )


def locate(shape: Shape, machine: Machine, schedule: Schedule) -> tuple[Model, Tiles]:
    """The closed forms and scalar tiles of one schedule.

    Raises:
        UsageFault: the machine has no such mode for the layer, or the cuts are not legal there.
    """
    found = deals(shape, machine, (schedule.mode,))
    if not found:
        raise UsageFault(f"mode {schedule.mode!r} of {machine.name} cannot run this layer")
    cut_pairs: dict[Dim, list[tuple[Cut, bool]]] = {"y": [(schedule.y, schedule.move)], "x": [(schedule.x, False)]}
    tables = build_tables(shape, machine, cut_pairs, {"k": [schedule.k], "c": [schedule.c], "g": [schedule.g]})
    if not len(tables["y"].trips):
        raise UsageFault("the row cut is not legal: rows cannot be moved, or the fused pool reaches too far")
    pin = (schedule.pin.operand, schedule.pin.loop, schedule.pin.dim) if schedule.pin else None
    structure = Structure(found[0], schedule.order, schedule.keep, schedule.buffers, pin, schedule.follow)
    pinned = schedule.pin.tiles if schedule.pin else 0
    return Model(shape, machine, structure), Tiles(tables, dict.fromkeys(DIMS, 0), pinned)


def fits(machine: Machine, used: Mapping[str, Array]) -> Array:
    """Whether every memory holds what a schedule needs of it."""
    ok: Array = True
    for memory in machine.memories:
        ok = ok & (np.asarray(used[memory.name]) <= memory.bytes)
    return ok
