"""The vectorised enumeration of a layer's space: the optimum, ties settled in a fixed order.

Two sweeps over the same structures: the first finds the fewest of the objective's first figure, the second settles
ties by the later ones. Bounds that hold for a whole grid come first, so that memory is worked out for few points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from dnnc.cycles import Timing
from dnnc.least import Least
from dnnc.schedule import DIMS, Dim, Ints, Pin, Schedule
from dnnc.space import Space, active_sets, fits, grid, moved_in_steps, schedule_of
from dnnc.traffic import Array, Model, Structure, Tiles, compulsory

Objective = Literal["traffic", "latency"]
CHUNK = 1 << 18
"""Points looked at in one go: bounds the memory of the search."""


STEP: dict[Objective, float] = {"traffic": 1.05, "latency": 1.01}
"""Cycles are compared in steps: of one percent where they come first, of five where they settle ties of bytes.
Within a step fewer bytes, then fewer tiles decide; without it, tiles of single pixels would win by a few cycles."""


def pace(cycles: Array, objective: Objective) -> Ints:
    """The step that cycles fall in."""
    steps: Ints = np.floor(np.log(np.maximum(cycles, 1)) / np.log(STEP[objective])).astype(np.int64)
    return steps


def pace_start(cycles: int, objective: Objective) -> int:
    """Cycles that no schedule of a better step reaches: the start of the step, rounded down."""
    return min(cycles, int(STEP[objective] ** int(pace(cycles, objective))))


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule with its figures: payload bytes, cycles, tiles."""

    schedule: Schedule
    bytes: int
    cycles: int
    tiles: int

    def key(self, objective: Objective) -> tuple[int, ...]:
        """What is minimised, first figure first."""
        step = int(pace(self.cycles, objective))
        if objective == "traffic":
            return self.bytes, step, self.tiles, self.cycles
        return step, self.bytes, self.tiles, self.cycles


def best(
    space: Space, objective: Objective = "traffic", most_cycles: int | None = None, seed: Found | None = None
) -> Found | None:
    """The optimum of a space, None if it holds no legal schedule.

    Args:
        space: the layer's schedules.
        objective: fewest bytes, then cycles; or fewest cycles, then bytes. Then fewest tiles, then the first found.
        most_cycles: schedules that take longer are left out.
        seed: a schedule of the space that is known already, and takes no longer: it makes the search shorter.
    """
    found = seed
    if objective == "traffic" and most_cycles is None:
        found = _sweep(space, objective, None, None, settle=False)
        if found is None:
            return None
    return _sweep(space, objective, most_cycles, found, settle=True)


def _sweep(
    space: Space, objective: Objective, most_cycles: int | None, found: Found | None, settle: bool
) -> Found | None:
    floor = compulsory(space.shape, space.machine) if objective == "traffic" else 0
    for follow in _follows(space, found, settle):
        for deal in space.deals:
            tables = space.tables(deal)
            if not all(len(tables[d].trips) for d in DIMS):
                continue
            for active, index in active_sets(tables):
                tiles, least = grid(tables, index), Least(tables, index)
                for order, keep, pin in space.structures(active):
                    structure = Structure(deal, order, keep, (1, 1, 1), pin, follow)
                    if objective == "traffic" and found:
                        bound = least.bytes(Model(space.shape, space.machine, structure), found.bytes <= floor)
                        if bound > found.bytes - (not settle):
                            continue
                    visit = _Visit(space, structure, objective, most_cycles, settle)
                    found = visit.improve(tiles, found)
                    if not settle and found and found.bytes <= floor:
                        return found
    return found


def _follows(space: Space, found: Found | None, settle: bool) -> tuple[bool, ...]:
    """Parameters stay for the layer; they follow the k tile only where that moves fewer bytes or alone fits."""
    if not space.shape.parameters:
        return (False,)
    if settle and found:
        return (found.schedule.follow,)
    return (False, True)


@dataclass(frozen=True)
class _Visit:
    """One structure's grid, looked at for something better."""

    space: Space
    structure: Structure
    objective: Objective
    most_cycles: int | None
    settle: bool

    def improve(self, tiles: Tiles, found: Found | None) -> Found | None:
        """The better of what was found and the best point of the grid."""
        for points in self._promising(tiles, found):
            if self.objective == "traffic" and self.most_cycles is None:
                found = self._fewest_bytes(points, found)
                continue
            for buffers in self._buffers():
                model = self._model(buffers)
                held = self._held(model, points)
                if held is not None:
                    cycles = Timing(model).cycles(held)
                    found = self._better(model, held, cycles, found)
        return found

    def _fewest_bytes(self, points: Tiles, found: Found | None) -> Found | None:
        """Buffers change no bytes: single ones decide what can be reached, the others then only what fits too."""
        model = self._model(self._fewest())
        held = self._held(model, points)
        if held is None:
            return found
        if not self.settle:
            return self._better(model, held, 0, found)
        parts, single = Timing(model).parts(held), model.single(held)
        spare = [model.spare(held, role, single) if role in single else 0 for role in ("input", "weights", "output")]
        base = {m.name: np.asarray(0) for m in model.machine.memories}
        for role, words in single.items():
            base[model.memory_name(role)] = base[model.memory_name(role)] + words * model.word
        for buffers in self._buffers():
            used = dict(base)
            for tiles, role, words in zip(buffers, ("input", "weights", "output"), spare, strict=True):
                if tiles == 2:
                    used[model.memory_name(role)] = used[model.memory_name(role)] + words * model.word
            ok = np.flatnonzero(np.broadcast_to(fits(model.machine, used), (_length(held),)))
            if len(ok):
                cycles = np.broadcast_to(parts.cycles(buffers), (_length(held),))[ok]
                found = self._better(self._model(buffers), _at(held, ok), cycles, found)
        return found

    def _model(self, buffers: tuple[int, int, int]) -> Model:
        return Model(self.space.shape, self.space.machine, replace(self.structure, buffers=buffers))

    def _held(self, model: Model, points: Tiles) -> Tiles | None:
        """The points that fit, with as many tiles pinned as fit."""
        return _largest_pin(model, points, self._asked()) if self.structure.pin else _legal(model, points)

    def _buffers(self) -> Iterator[tuple[int, int, int]]:
        if not self.settle:
            yield self._fewest()
            return
        limits = self.space.limits.buffers
        choices = [(1, 2) if limit is None else (limit,) for limit in limits]
        if self.space.shape.kind == "vector":
            choices[1] = (1,)
        yield from product(choices[0], choices[1], choices[2])

    def _asked(self) -> int:
        pin = self.space.limits.pin
        return pin.tiles if isinstance(pin, Pin) else 0

    def _fewest(self) -> tuple[int, int, int]:
        """Single buffering holds least and moves the same bytes, so it decides whether a figure can be reached."""
        a, b, c = (limit or 1 for limit in self.space.limits.buffers)
        return a, b, c

    def _promising(self, tiles: Tiles, found: Found | None) -> Iterator[Tiles]:
        """The points of the grid that their bounds do not rule out, in chunks; memory is bounded with one tile
        pinned, and single buffers."""
        model = Model(self.space.shape, self.space.machine, replace(self.structure, buffers=self._fewest()))
        pin = self.structure.pin
        optimist = replace(tiles, pinned=_most_pinned(model, tiles)) if pin else tiles
        ok = np.asarray(self._bound(model, optimist, found))
        if pin and pin[0] == "input":
            ok = ok & ~moved_in_steps(tiles)
        if not ok.any():
            return
        ok = ok & fits(model.machine, model.memory(replace(tiles, pinned=1) if pin else tiles))
        shape = tuple(np.size(tiles.index[d]) for d in DIMS)
        flat = np.flatnonzero(np.broadcast_to(ok, shape))
        for first in range(0, len(flat), CHUNK):
            places = np.unravel_index(flat[first : first + CHUNK], shape)
            index: dict[Dim, Ints] = {d: np.ravel(tiles.index[d])[i] for d, i in zip(DIMS, places, strict=True)}
            yield Tiles(tiles.tables, index)

    def _bound(self, model: Model, tiles: Tiles, found: Found | None) -> Array:
        """Where the figures' lower bounds leave room for something better."""
        by_role = {role: read + written for role, (read, written) in model.traffic(tiles).items()}
        moved = np.asarray(sum(by_role.values()))
        if not self.settle:
            return moved < found.bytes if found else moved > 0
        timing = Timing(model)
        ok: Array = moved <= found.bytes if found and self.objective == "traffic" else moved > 0
        if not np.any(ok):
            return ok
        beside = sum(by_role[role] for role in ("input", "weights", "output", "residual") if role in by_role)
        least = np.maximum(timing.compute(tiles), timing.transfer(beside)) + timing.transfer(moved - beside)
        if self.most_cycles is not None:
            ok = ok & (least <= self.most_cycles)
        if found and found.cycles:
            step, mine = pace(least, self.objective), pace(found.cycles, self.objective)
            fewer = _all_trips(tiles) <= found.tiles
            if self.objective == "traffic":
                ok = ok & ((moved < found.bytes) | (step < mine) | ((step == mine) & fewer))
            else:
                same = (moved < found.bytes) | ((moved == found.bytes) & fewer)
                ok = ok & ((step < mine) | ((step == mine) & same))
        return ok

    def _better(self, model: Model, tiles: Tiles, cycles: Array, found: Found | None) -> Found | None:
        moved = model.bytes(tiles) + np.zeros(_length(tiles), dtype=np.int64)
        cycles = cycles + np.zeros_like(moved)
        trips = _all_trips(tiles) + np.zeros_like(moved)
        steps = pace(cycles, self.objective)
        keys = (cycles, trips, steps, moved) if self.objective == "traffic" else (cycles, trips, moved, steps)
        usable = np.arange(len(moved))
        if self.most_cycles is not None:
            usable = usable[cycles <= self.most_cycles]
        if not len(usable):
            return found
        at = usable[np.lexsort(tuple(k[usable] for k in keys))[0]]
        one = _at(tiles, at)
        this = Found(schedule_of(model.structure, one), int(moved[at]), int(cycles[at]), int(trips[at]))
        if found is None or (self._first_sweep(found) and this.bytes <= found.bytes):
            return this
        return this if this.key(self.objective) < found.key(self.objective) else found

    def _first_sweep(self, found: Found) -> bool:
        """Whether a result is the first sweep's, whose cycles are not yet known."""
        return self.settle and found.cycles == 0


def _all_trips(tiles: Tiles) -> Array:
    trips: Array = 1
    for d in DIMS:
        trips = trips * tiles.trips[d]
    return trips


def _most_pinned(model: Model, tiles: Tiles) -> Array:
    """More tiles than can ever be pinned beside nothing else: for a bound."""
    assert model.structure.pin
    operand, _, dim = model.structure.pin
    most = np.maximum(tiles.trips[dim] - 1, 1)
    if dim in ("y", "x"):
        return most
    words = model.pinned_words(replace(tiles, pinned=1))
    room = model.machine.memory_of(operand).bytes // model.word
    return np.clip(room // np.maximum(words, 1), 1, most)


def _length(tiles: Tiles) -> int:
    return len(tiles.index["y"])


def _at(tiles: Tiles, at: Array) -> Tiles:
    pinned = np.broadcast_to(tiles.pinned, (_length(tiles),))[at]
    return Tiles(tiles.tables, {d: i[at] for d, i in tiles.index.items()}, pinned)


def _legal(model: Model, tiles: Tiles) -> Tiles | None:
    ok = np.broadcast_to(fits(model.machine, model.memory(tiles)), (_length(tiles),))
    return _at(tiles, np.flatnonzero(ok)) if ok.any() else None


def _largest_pin(model: Model, tiles: Tiles, asked: int = 0) -> Tiles | None:
    """Every point with as many tiles pinned as fit (each more saves bytes), or with as many as asked for."""
    assert model.structure.pin
    dim = model.structure.pin[2]
    most = np.broadcast_to(tiles.trips[dim] - 1, (_length(tiles),))

    def holds(points: Ints, count: Ints) -> Ints:
        part = replace(_at(tiles, points), pinned=count)
        return np.broadcast_to(fits(model.machine, model.memory(part)), (len(points),))

    every = np.arange(len(most))
    if asked:
        pinned = np.where((most >= asked) & holds(every, np.minimum(most, asked)), asked, 0)
    elif dim in ("y", "x"):
        pinned = _scan(most, holds)
    else:
        pinned = _bisect(most, holds)
    held = np.flatnonzero(pinned)
    return replace(_at(tiles, held), pinned=pinned[held]) if len(held) else None


def _scan(most: Ints, holds: Callable[[Ints, Ints], Ints]) -> Ints:
    """The largest count that fits, tried one by one: what footprints hold need not grow with every pinned tile."""
    pinned = np.zeros(len(most), dtype=np.int64)
    for count in range(int(most.max()), 0, -1):
        left = np.flatnonzero((pinned == 0) & (most >= count))
        if len(left):
            pinned[left[holds(left, np.full(len(left), count))]] = count
    return pinned


def _bisect(most: Ints, holds: Callable[[Ints, Ints], Ints]) -> Ints:
    """The largest count that fits, where every pinned tile adds to what is held."""
    low, high = np.zeros(len(most), dtype=np.int64), most.astype(np.int64)
    every = np.arange(len(most))
    while (low < high).any():
        middle = (low + high + 1) // 2
        ok = holds(every, middle)
        low, high = np.where(ok, np.minimum(middle, high), low), np.where(ok, high, middle - 1)
    return low


def quickest_legal(space: Space) -> Found | None:
    """The first legal schedule met, with the fewest bytes of its structure; None if there is none."""
    for deal in space.deals:
        tables = space.tables(deal)
        if not all(len(tables[d].trips) for d in DIMS):
            continue
        for active, index in active_sets(tables):
            for order, keep, pin in space.structures(active):
                for follow in (False, True) if space.shape.parameters else (False,):
                    structure = Structure(deal, order, keep, (1, 1, 1), pin, follow)
                    visit = _Visit(space, structure, "traffic", None, settle=False)
                    if found := visit.improve(grid(tables, index), None):
                        return found
    return None
