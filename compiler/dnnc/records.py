"""What is stored of a compilation, as values; and what a stored schedule must prove before it is used.

A cut is stored as what made it: style, size and number of steps. Which outputs are in which tile follows from the
layer and the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dnnc.axis import Cut, Style
from dnnc.documents import Damaged
from dnnc.layer import HostLayer
from dnnc.network_records import NetworkRecord
from dnnc.plan import LayerPlan, Totals
from dnnc.schedule import DIMS, Deal, Dim, Pin, Schedule, cut_of
from dnnc.search import NEAR, Figures, Objective, Proof, lower_bound
from dnnc.space import Space, fits, locate
from dnnc.tables import AxisTable, PlaneTable
from dnnc_runtime.program import Window

FORMAT = 3
"""Version of the artifact's format."""


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


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model: its file relative to the artifact's folder (None for one given as an object), and its digest."""

    path: str | None
    sha256: str
    opset: int
    input_shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """The machine: its TOML text, and the digest of what it can do."""

    name: str
    digest: str
    text: str


@dataclass(frozen=True, slots=True)
class ConstraintsRecord:
    """The constraints: the name of their file, and its text."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer of the array; the fields mean what those of :class:`dnnc.plan.LayerPlan` and its layer do."""

    name: str
    operator: str
    nodes: tuple[str, ...]
    schedule: ScheduleRecord
    proof: Proof
    figures: Figures
    strips: int
    alone: Figures | None
    compulsory_bytes: int
    lower_bound_bytes: int
    macs: int
    valid_ops: int


@dataclass(frozen=True, slots=True)
class Document:
    """Everything in an artifact but its seal."""

    format: int
    dnnc: str
    cost_model: str
    model: ModelRecord
    machine: MachineRecord
    objective: Objective
    constraints: ConstraintsRecord | None
    status: str
    interrupted: bool
    totals: Totals
    network: NetworkRecord | None
    unfused: tuple[tuple[str, str], ...]
    layers: tuple[LayerRecord, ...]
    host_layers: tuple[HostLayer, ...]
    graph: str


def layer_record(plan: LayerPlan) -> LayerRecord:
    """A planned layer as it is stored."""
    return LayerRecord(
        plan.layer.name,
        plan.layer.operator,
        plan.layer.nodes,
        record(plan.schedule),
        plan.proof,
        plan.figures,
        plan.strips,
        plan.alone,
        plan.compulsory_bytes,
        plan.lower_bound_bytes,
        plan.macs,
        plan.valid_ops,
    )


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


def check_proof(proof: Proof, of: Figures, space: Space) -> None:
    """A proof speaks of the figures of its schedule. Raises Damaged if it does not."""
    value = of.dram_bytes if proof.quantity == "bytes" else of.cycles
    bound = lower_bound(space.shape, space.machine)
    # The timeline may have settled on a schedule near the one with the best figure.
    settled = proof.method == "enumeration"
    if proof.value > value or (proof.value < value and not settled):
        raise Damaged(f"the proof is about {proof.value:,} {proof.quantity}, the schedule has {value:,}")
    if proof.quantity == "cycles" and value > proof.value * NEAR and proof.status == "optimal":
        raise Damaged(f"the schedule takes {value:,} cycles, which is not near the fewest of {proof.value:,}")
    if proof.bound > proof.value or (proof.status == "optimal" and proof.bound < proof.value):
        raise Damaged(f"the bound of {proof.bound:,} {proof.quantity} proves nothing of {proof.value:,}")
    if proof.method == "lower bound" and (proof.quantity != "bytes" or value > bound):
        raise Damaged(f"{value:,} {proof.quantity} do not meet the lower bound of {bound:,} bytes")
