"""The vectorised enumeration of a layer's space: the fewest bytes, ties settled in a fixed order.

Two sweeps over the same structures: the first finds the fewest bytes, the second settles ties by cycles and tiles.
Bounds that hold for a whole grid come first, so that memory is worked out for few points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dnnc.cycles import ClosedForm
from dnnc.least import Least
from dnnc.points import Found, all_buffers, all_trips, at, fewest_buffers, held, length, listed, optimist, pace, roomier
from dnnc.schedule import DIMS, Deal
from dnnc.space import Space, active_sets, grid, schedule_of
from dnnc.structure import Array, Structure, Tiles
from dnnc.traffic import Model, compulsory

STEP = 1.05
"""Among equally few bytes, cycles are compared in steps of five percent: within a step fewer tiles decide. Without it,
tiles of single pixels would win by a few cycles."""


class Stopped(KeyboardInterrupt):
    """A search was interrupted; ``found`` is the best of what it had seen."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found


def best(space: Space, most_cycles: int | None = None, seed: Found | None = None) -> Found | None:
    """The schedule with the fewest bytes, then cycles, then tiles; None if a space holds no legal one.

    Args:
        space: the layer's schedules.
        most_cycles: schedules that take longer are left out.
        seed: a schedule of the space that is known already, and takes no longer: it makes the search shorter.

    Raises:
        Stopped: it was interrupted, and had found something.
    """
    sweep = _Sweep(space, most_cycles, seed)
    try:
        if most_cycles is None and seed is None:
            sweep.run(settle=False)
            if sweep.found is None:
                return None
        sweep.run(settle=True)
    except KeyboardInterrupt:
        if sweep.found:
            raise Stopped(sweep.found) from None
        raise
    return sweep.found


@dataclass
class _Sweep:
    """A way through all structures of a space, and the best that was found on it."""

    space: Space
    most_cycles: int | None
    found: Found | None

    def run(self, settle: bool) -> None:
        """Look for fewer bytes, or settle ties by cycles and tiles."""
        floor = compulsory(self.space.shape, self.space.machine)
        for follow in _follows(self.space, self.found, settle):
            for deal in self.space.deals:
                for structure, tiles, least in structures(self.space, deal, follow, frugal=not settle):
                    visit = _Visit(self.space, structure, self.most_cycles, settle)
                    found = self.found
                    if found and least.bytes(visit.model, found.bytes <= floor) > found.bytes - (not settle):
                        continue
                    self.found = visit.improve(tiles, found)
                    if not settle and self.found and self.found.bytes <= floor:
                        return


def structures(
    space: Space, deal: Deal, follow: bool, frugal: bool = False
) -> Iterator[tuple[Structure, Tiles, Least]]:
    """Every structure of a mode, with the grid of its tiles and what none of them goes below.

    Args:
        frugal: only those that it takes to move the fewest bytes.
    """
    tables = space.tables(deal)
    if not all(len(tables[d].trips) for d in DIMS):
        return
    for active, index in active_sets(tables):
        tiles, least = grid(tables, index), Least(tables, index)
        for order, keep, pin in space.frugal(active, follow, tables) if frugal else space.structures(active):
            yield Structure(deal, order, keep, fewest_buffers(space), pin, follow), tiles, least


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
    most_cycles: int | None
    settle: bool

    @property
    def model(self) -> Model:
        """The closed forms, with the fewest buffers."""
        return Model(self.space.shape, self.space.machine, self.structure)

    def improve(self, tiles: Tiles, found: Found | None) -> Found | None:
        """The better of what was found and the best point of the grid.

        Buffers change no bytes: single ones decide what can be reached, the others then only what fits too.
        """
        model = self.model
        for points in listed(self.space, self.structure, tiles, self._bound(model, optimist(model, tiles), found)):
            fitting = held(self.space, model, points)
            if fitting is None:
                continue
            if not self.settle:
                found = self._better(model, fitting, 0, found)
                continue
            parts = ClosedForm(model).parts(fitting)
            for buffers, ok in roomier(model, fitting, all_buffers(self.space)):
                if len(ok):
                    cycles = np.broadcast_to(parts.cycles(buffers), (length(fitting),))[ok]
                    roomy = Model(model.shape, model.machine, replace(self.structure, buffers=buffers))
                    found = self._better(roomy, at(fitting, ok), cycles, found)
        return found

    def _bound(self, model: Model, tiles: Tiles, found: Found | None) -> Array:
        """Where the figures' lower bounds leave room for something better."""
        form = ClosedForm(model)
        moved = np.asarray(model.bytes(tiles))
        if not self.settle:
            return moved < found.bytes if found else moved > 0
        ok: Array = moved <= found.bytes if found else moved > 0
        if not np.any(ok):
            return ok
        least = form.least(tiles)
        if self.most_cycles is not None:
            ok = ok & (least <= self.most_cycles)
        if found and found.cycles:
            step, mine = pace(least, STEP), pace(found.cycles, STEP)
            fewer = all_trips(tiles) <= found.tiles
            ok = ok & ((moved < found.bytes) | (step < mine) | ((step == mine) & fewer))
        return ok

    def _better(self, model: Model, tiles: Tiles, cycles: Array, found: Found | None) -> Found | None:
        moved = model.bytes(tiles) + np.zeros(length(tiles), dtype=np.int64)
        cycles = cycles + np.zeros_like(moved)
        trips = all_trips(tiles) + np.zeros_like(moved)
        usable = np.arange(len(moved))
        if self.most_cycles is not None:
            usable = usable[cycles <= self.most_cycles]
        if not len(usable):
            return found
        keys = (cycles, trips, pace(cycles, STEP), moved)
        point = usable[np.lexsort(tuple(k[usable] for k in keys))[0]]
        this = Found(
            schedule_of(model.structure, at(tiles, point)), int(moved[point]), int(cycles[point]), int(trips[point])
        )
        # The first sweep's cycles are not known.
        if found is None or (self.settle and found.cycles == 0 and this.bytes <= found.bytes):
            return this
        return this if _key(this) < _key(found) else found


def _key(found: Found) -> tuple[int, ...]:
    """What is minimised, first figure first."""
    return found.bytes, int(pace(found.cycles, STEP)), found.tiles, found.cycles


def quickest_legal(space: Space) -> Found | None:
    """The first legal schedule met, with the fewest bytes of its structure; None if there is none."""
    for deal in space.deals:
        for follow in (False, True) if space.shape.parameters else (False,):
            for structure, tiles, _ in structures(space, deal, follow):
                if found := _Visit(space, structure, None, settle=False).improve(tiles, None):
                    return found
    return None
