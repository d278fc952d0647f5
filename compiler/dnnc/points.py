"""Points of a grid of tiles: which fit, with as many tiles pinned as fit; and what is found among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from dnnc.schedule import DIMS, Dim, Ints, Pin, Schedule
from dnnc.space import Space, fits, moved_in_steps
from dnnc.structure import Array, Structure, Tiles
from dnnc.traffic import Model

CHUNK = 1 << 18
"""Points looked at in one go: bounds the memory of the search."""

Buffers = tuple[int, int, int]
"""Tiles held of (input, weights, output)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule with its figures: payload bytes, cycles, tiles."""

    schedule: Schedule
    bytes: int
    cycles: int
    tiles: int


def pace(cycles: Array, step: float) -> Ints:
    """Cycles in steps, each ``step`` times as many as the one before: the step that they fall in."""
    steps: Ints = np.floor(np.log(np.maximum(cycles, 1)) / np.log(step)).astype(np.int64)
    return steps


def fewest_buffers(space: Space) -> Buffers:
    """Single buffers where they are allowed: they hold least and move the same bytes as any."""
    a, b, c = (limit or 1 for limit in space.limits.buffers)
    return a, b, c


def all_buffers(space: Space) -> list[Buffers]:
    """All that a space allows, most tiles first; a vector layer has no weights to hold twice."""
    choices = [(1, 2) if limit is None else (limit,) for limit in space.limits.buffers]
    if space.shape.kind == "vector":
        choices[1] = (1,)
    return sorted(product(choices[0], choices[1], choices[2]), key=lambda held: (-sum(held), held))


def length(tiles: Tiles) -> int:
    """How many points there are, in one list."""
    return len(tiles.index["y"])


def at(tiles: Tiles, points: Array) -> Tiles:
    """Some of the points in a list."""
    pinned = np.broadcast_to(tiles.pinned, (length(tiles),))[points]
    return Tiles(tiles.tables, {d: i[points] for d, i in tiles.index.items()}, pinned)


def all_trips(tiles: Tiles) -> Array:
    """Tiles that each point makes of a layer."""
    trips: Array = 1
    for d in DIMS:
        trips = trips * tiles.trips[d]
    return trips


def optimist(model: Model, tiles: Tiles) -> Tiles:
    """The points with more tiles pinned than can ever be, beside nothing else: for a bound."""
    if not model.structure.pin:
        return tiles
    operand, _, dim = model.structure.pin
    most = np.maximum(tiles.trips[dim] - 1, 1)
    if dim not in ("y", "x"):
        words = model.pinned_words(replace(tiles, pinned=1))
        room = model.machine.memory_of(operand).bytes // model.word
        most = np.clip(room // np.maximum(words, 1), 1, most)
    return replace(tiles, pinned=most)


def listed(space: Space, structure: Structure, tiles: Tiles, wanted: Array) -> Iterator[Tiles]:
    """The points of a grid that are wanted and that single buffers and one pinned tile leave room for, in lists."""
    model = Model(space.shape, space.machine, replace(structure, buffers=fewest_buffers(space)))
    pin, ok = structure.pin, np.asarray(wanted)
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


def held(space: Space, model: Model, points: Tiles, fewer: bool = False) -> Tiles | None:
    """The points that fit, with as many tiles pinned as fit, or as are asked for; None if there are none.

    Args:
        fewer: the points have as many tiles pinned as fit with fewer buffers: with more, no more of them do.
    """
    if not model.structure.pin:
        ok = np.broadcast_to(fits(model.machine, model.memory(points)), (length(points),))
        return at(points, np.flatnonzero(ok)) if ok.any() else None
    pin = space.limits.pin
    return _largest_pin(model, points, pin.tiles if isinstance(pin, Pin) else 0, fewer)


def roomier(model: Model, points: Tiles, choices: Sequence[Buffers]) -> Iterator[tuple[Buffers, Ints]]:
    """For more buffers, the points of those that fit with the fewest which leave room for them, and for no more: with
    the same tiles, more buffers are never slower.

    Args:
        choices: most tiles first.
    """
    single = model.single(points)
    spare = {role: model.spare(points, role, single) for role in ("input", "weights", "output") if role in single}
    base = {m.name: np.asarray(0) for m in model.machine.memories}
    for role, words in single.items():
        base[model.memory_name(role)] = base[model.memory_name(role)] + words * model.word
    fitting: dict[Buffers, Ints] = {}
    for buffers in choices:
        used = dict(base)
        for tiles, role in zip(buffers, ("input", "weights", "output"), strict=True):
            if tiles == 2 and role in spare:
                used[model.memory_name(role)] = used[model.memory_name(role)] + spare[role] * model.word
        fitting[buffers] = np.broadcast_to(fits(model.machine, used), (length(points),))
        more = [ok for other, ok in fitting.items() if other != buffers and np.all(np.greater_equal(other, buffers))]
        wanted = fitting[buffers] & ~np.logical_or.reduce(more) if more else fitting[buffers]
        yield buffers, np.flatnonzero(wanted)


def _largest_pin(model: Model, tiles: Tiles, asked: int, fewer: bool) -> Tiles | None:
    """Every point with as many tiles pinned as fit (each more saves bytes), or with as many as asked for."""
    assert model.structure.pin
    dim = model.structure.pin[2]
    most = np.asarray(tiles.pinned) if fewer else np.broadcast_to(tiles.trips[dim] - 1, (length(tiles),))

    def holds(points: Ints, count: Ints) -> Ints:
        part = replace(at(tiles, points), pinned=count)
        return np.broadcast_to(fits(model.machine, model.memory(part)), (len(points),))

    every = np.arange(len(most))
    if asked:
        pinned = np.where((most >= asked) & holds(every, np.minimum(most, asked)), asked, 0)
    elif dim in ("y", "x"):
        pinned = _descend(most if fewer else _bisect(most, _alone(model, tiles, most)), holds)
    else:
        pinned = _bisect(most, holds)
    found = np.flatnonzero(pinned)
    return replace(at(tiles, found), pinned=pinned[found]) if len(found) else None


def _alone(model: Model, tiles: Tiles, most: Ints) -> Callable[[Ints, Ints], Ints]:
    """Whether so many pinned tiles fit beside the least that is ever held with them: with all but one pinned."""
    assert model.structure.pin
    memory = model.machine.memory_of(model.structure.pin[0])
    last = replace(tiles, pinned=most)
    beside = model.memory(last)[memory.name] - model.pinned_words(last) * model.word

    def holds(points: Ints, count: Ints) -> Ints:
        words = model.pinned_words(replace(at(tiles, points), pinned=count))
        return np.asarray(words * model.word + np.broadcast_to(beside, (length(tiles),))[points] <= memory.bytes)

    return holds


def _descend(most: Ints, holds: Callable[[Ints, Ints], Ints]) -> Ints:
    """The largest count that fits, tried one by one: what footprints hold need not grow with every pinned tile."""
    pinned = most.copy()
    left = np.flatnonzero(pinned)
    while len(left):
        left = left[~holds(left, pinned[left])]
        pinned[left] -= 1
        left = left[pinned[left] > 0]
    return pinned


def _bisect(most: Ints, holds: Callable[[Ints, Ints], Ints]) -> Ints:
    """The largest count that fits, where every pinned tile adds to what is held."""
    every, high = np.arange(len(most)), most.astype(np.int64)
    low = np.where(holds(every, high), high, 0)
    high = np.maximum(low, high - 1)
    while (low < high).any():
        middle = (low + high + 1) // 2
        ok = holds(every, middle)
        low, high = np.where(ok, np.minimum(middle, high), low), np.where(ok, high, middle - 1)
    return low
