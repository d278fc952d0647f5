"""What is stored of a schedule, and what it must prove before it is used.

A cut is stored as what made it: style, size and number of steps. Which outputs are in which tile follows from the
layer and the machine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dnnc.axis import Cut, Style
from dnnc.documents import Damaged
from dnnc.schedule import DIMS, Deal, Dim, Pin, Schedule, cut_of
from dnnc.space import Space, fits, locate
from dnnc.tables import AxisTable, PlaneTable
from dnnc_runtime.program import Window


@dataclass(frozen=True, slots=True)
class CutRecord:
    """A cut of an axis."""

    style: Style
    size: int
    steps: int


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A schedule; the fields mean what those of :class:`dnnc.schedule.Schedule` do."""

    mode: str
    y: CutRecord
    x: CutRecord
    k: int
    c: int
    g: int
    order: tuple[Dim, ...]
    keep: bool
    move: bool
    buffers: tuple[int, int, int]
    pin: Pin | None
    follow: bool


def record(schedule: Schedule) -> ScheduleRecord:
    """A schedule as it is stored."""
    s = schedule
    return ScheduleRecord(
        s.mode, _cut(s.y), _cut(s.x), s.k, s.c, s.g, s.order, s.keep, s.move, s.buffers, s.pin, s.follow
    )  # fmt: skip


def _cut(cut: Cut) -> CutRecord:
    return CutRecord(cut.style, cut.size, cut.steps)


def restore(stored: ScheduleRecord, space: Space) -> Schedule:
    """The schedule that was stored. Raises Damaged if it is none of the space's, or does not fit the memories."""
    deal = next((d for d in space.deals if d.mode == stored.mode), None)
    if deal is None:
        raise Damaged(f"mode {stored.mode!r} cannot run the layer, or is not allowed to")
    s = stored
    y, x = _restored(s.y, space.shape.y, deal.rows, "y"), _restored(s.x, space.shape.x, 1, "x")
    schedule = Schedule(s.mode, y, x, s.k, s.c, s.g, s.order, s.keep, s.move, s.buffers, s.pin, s.follow)
    _check_tiles(space, deal, schedule)
    _check_structure(space, schedule)
    model, tiles = locate(space.shape, space.machine, schedule)
    if not fits(space.machine, model.memory(tiles)):
        raise Damaged(f"the schedule does not fit the memories of {space.machine.name}")
    return schedule


def _restored(stored: CutRecord, window: Window, units: int, dim: Dim) -> Cut:
    try:
        cut = cut_of(window, units, stored.style, stored.size)
    except ValueError:
        raise Damaged(f"{dim} has no uniform cut of size {stored.size}") from None
    if cut.steps != stored.steps:
        raise Damaged(f"the cut of {dim} has {cut.steps} steps, not {stored.steps}")
    return cut


def _check_tiles(space: Space, deal: Deal, schedule: Schedule) -> None:
    """Cuts and tile sizes are candidates of the space."""
    tables = space.tables(deal)
    wanted: dict[Dim, object] = {
        "y": (schedule.y, schedule.move),
        "x": (schedule.x, False),
        "k": schedule.k,
        "c": schedule.c,
        "g": schedule.g,
    }
    for dim, choice in wanted.items():
        if choice not in _choices(tables[dim]):
            raise Damaged(f"the tiles of {dim} are not legal here, or not allowed")


def _choices(table: AxisTable | PlaneTable) -> Collection[object]:
    """(cut, move) pairs of rows or columns, tile sizes of planes."""
    if isinstance(table, AxisTable):
        return list(zip(table.cuts, table.moved, strict=True))
    return [int(size) for size in table.size]


def _check_structure(space: Space, schedule: Schedule) -> None:
    """Order, halo, pinning, buffers and parameters are choices of the space."""
    trips, pin = schedule.trips(space.shape), schedule.pin
    active: tuple[Dim, ...] = tuple(d for d in DIMS if trips[d] > 1)
    triple = (schedule.order, schedule.keep, (pin.operand, pin.loop, pin.dim) if pin else None)
    if set(active) != set(schedule.order) or triple not in set(space.structures(active)):
        raise Damaged(f"loops {', '.join(schedule.order) or 'none'} are not legal here, or not allowed")
    count = space.limits.pin.tiles if isinstance(space.limits.pin, Pin) else 0
    if pin and not (1 <= pin.tiles < trips[pin.dim] and pin.tiles == (count or pin.tiles)):
        raise Damaged(f"{pin.tiles} tiles of {pin.dim} cannot be pinned, or may not be")
    if pin and pin.operand == "input" and schedule.move and trips["y"] > 1:
        raise Damaged("an input that is pinned cannot be moved between units in several row steps")
    allowed = [(1, 2) if asked is None else (asked,) for asked in space.limits.buffers]
    if any(held not in choice for held, choice in zip(schedule.buffers, allowed, strict=True)):
        raise Damaged(f"{list(schedule.buffers)} buffers are not legal, or not allowed")
    if schedule.follow and not space.shape.parameters:
        raise Damaged("there are no parameters to follow a tile")
