"""What is stored of a compilation, as values; and what a stored schedule or plan must prove before it is used.

A cut is stored as what made it: style, size and number of steps. Which outputs are in which tile follows from the
layer and the machine. How layers run together is stored as segments: which rows are where follows from the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dnnc.axis import Cut, Style
from dnnc.chip import Chip
from dnnc.documents import Damaged
from dnnc.grouping import Grouping, grouped
from dnnc.layer import HostLayer
from dnnc.network import LONGEST
from dnnc.plan import LayerPlan, Plan, Totals
from dnnc.schedule import DIMS, Deal, Dim, Pin, Schedule, cut_of
from dnnc.search import NEAR, Figures, Objective, Proof, lower_bound
from dnnc.segments import SCOPES, Alone, Best, Network, Scope, Segment, Strips
from dnnc.space import Space, fits, locate
from dnnc.steps import Steps
from dnnc.strips import Run, Walk, home, kept, run, walk
from dnnc.tables import AxisTable, PlaneTable
from dnnc.weights import weights_bytes
from dnnc_runtime.program import Window

FORMAT = 2
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
class SegmentRecord:
    """Layers that run together, as :class:`dnnc.segments.Strips`; one that runs by itself has no bounds."""

    first: int
    stop: int
    bounds: tuple[int, ...]
    entering: tuple[tuple[int, int], ...]
    leaving: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class BestRecord:
    """What is known of a scope's best plan; see :class:`dnnc.segments.Best`."""

    bytes: int
    bound: int


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """How all layers run together; the fields mean what those of :class:`dnnc.segments.Network` do."""

    scope: Scope
    segments: tuple[SegmentRecord, ...]
    best: Mapping[str, BestRecord]


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


def network_record(network: Network) -> NetworkRecord:
    """A plan for all layers together as it is stored."""
    best: dict[str, BestRecord] = {scope: BestRecord(of.bytes, of.bound) for scope, of in network.best.items()}
    return NetworkRecord(network.scope, tuple(map(_segment_record, network.segments)), best)


def _segment_record(segment: Segment) -> SegmentRecord:
    if isinstance(segment, Alone):
        return SegmentRecord(segment.position, segment.position + 1, (), (), ())
    return SegmentRecord(*segment)


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


# -- plans for all layers together ------------------------------------------------------------------------------------


def restore_network(
    stored: NetworkRecord, steps: Steps, chip: Chip, alone: Sequence[tuple[int, int]]
) -> Network:  # fmt: skip
    """The plan that was stored.

    Args:
        alone: for every position the DRAM bytes of its layer by itself, and the bytes of feature maps in a unit.

    Raises:
        Damaged: its segments are not all layers in their order, one of them cannot run so, starts with rows that are
            not there or has no room, or they move other bytes than stated.
    """
    if chip.why or stored.scope == "layerwise":
        raise Damaged(f"layers run together, though {chip.why or 'each is to run by itself'}")
    best = _best(stored, steps, chip, sum(moved for moved, _ in alone))
    segments: list[Segment] = []
    for number, segment in enumerate(stored.segments):
        at = stored.segments[number - 1].stop if number else 0
        if segment.first != at or not at < segment.stop <= len(alone):
            raise Damaged(f"segment {number} is of layers {segment.first} to {segment.stop}, expected a next one")
        try:
            segments.append(_segment(segment, stored.scope, steps, chip))
        except Damaged as wrong:
            raise Damaged(f"segment {number}: {wrong}") from None
    if not segments or stored.segments[-1].stop != len(alone):
        raise Damaged(f"the segments are not of all {len(alone)} layers")
    moved = moved_bytes(segments, steps, chip, alone)
    if moved != best[stored.scope].bytes:
        raise Damaged(f"the plan is said to move {best[stored.scope].bytes:,} bytes, its segments move {moved:,}")
    return Network(stored.scope, tuple(segments), best)


def moved_bytes(
    segments: Sequence[Segment], steps: Steps, chip: Chip, alone: Sequence[tuple[int, int]]
) -> int:  # fmt: skip
    """DRAM bytes of a plan, found without giving anything its place. Raises Damaged if it cannot run."""
    return _Replay(steps, chip, segments, alone).bytes()


def _best(stored: NetworkRecord, steps: Steps, chip: Chip, layerwise: int) -> dict[Scope, Best]:
    """What is known of every scope: each may do what those before it do."""
    scopes = SCOPES[: SCOPES.index(stored.scope) + 1]
    if {*stored.best} != {*scopes}:
        raise Damaged(f"the best plans are of {', '.join(stored.best) or 'nothing'}, expected {', '.join(scopes)}")
    best: dict[Scope, Best] = {scope: Best(stored.best[scope].bytes, stored.best[scope].bound) for scope in scopes}
    if best["layerwise"] != Best(layerwise, layerwise):
        raise Damaged(f"layer by layer it is {layerwise:,} bytes, not {best['layerwise'].bytes:,}")
    floor = _floor(steps, chip)
    for number, scope in enumerate(scopes):
        bound, least = best[scope].bound, min(best[narrower].bytes for narrower in scopes[: number + 1])
        if not floor <= bound <= least:
            raise Damaged(f"{scope}: a bound of {bound:,} bytes, which is not from {floor:,} to {least:,}")
    return best


def _floor(steps: Steps, chip: Chip) -> int:
    """Bytes that every plan loads: kernels and parameters, where all layers can run by rows."""
    if any(step.why for step in steps.steps):
        return 0
    shapes = (step.layer.shape for step in steps.steps)
    word = chip.machine.word_bytes
    return sum(weights_bytes(shape, chip.machine) + shape.parameters * shape.g * shape.k * word for shape in shapes)


def _segment(stored: SegmentRecord, scope: Scope, steps: Steps, chip: Chip) -> Segment:
    if not stored.bounds:
        if stored.stop > stored.first + 1 or stored.entering or stored.leaving:
            raise Damaged("several layers, or rows on chip, but no strips")
        return Alone(stored.first)
    longest = LONGEST if scope == "fused" else 1
    if stored.stop - stored.first > longest:
        raise Damaged(f"{stored.stop - stored.first} layers run together, which may be {longest}")
    grouping = grouped(steps, chip, stored.first, stored.stop)
    if grouping is None:
        raise Damaged("its layers cannot run by strips")
    rows = grouping.group.parts[-1].rows
    if any(one >= two for one, two in pairwise((0, *stored.bounds))) or stored.bounds[-1] != rows:
        raise Damaged(f"its strips do not end one after the other, and at row {rows}")
    for lines in (stored.entering, stored.leaving):
        _check_lines(lines, steps, chip)
    passing = [[of for of in lines if of[0] not in grouping.local] for lines in (stored.entering, stored.leaving)]
    if passing[0] != passing[1]:
        raise Damaged("maps that its layers do not read are not as they were when it ends")
    return Strips(stored.first, stored.stop, stored.bounds, stored.entering, stored.leaving)


def _check_lines(lines: Sequence[tuple[int, int]], steps: Steps, chip: Chip) -> None:
    """(map, lines of every unit's block) are of maps that can stay, each once."""
    if any(one >= two for (one, _), (two, _) in pairwise(lines)):
        raise Damaged("its maps are not in order")
    for m, each in lines:
        if not 0 <= m < len(steps.maps) or steps.maps[m].why:
            raise Damaged(f"map {m} cannot stay on chip")
        block = -(-steps.maps[m].lines // chip.units)
        if not 1 <= each <= block:
            raise Damaged(f"{each} lines of map {m} on chip, where a unit has {block}")


@dataclass
class _Replay:
    """A plan gone through: which lines are on chip, whether there is room for them, and what moves.

    Attributes:
        present: by map and unit the lines on chip.
        loaded: by map the lines that are read from DRAM; ``moved``: bytes, without those that are written by strips.
    """

    steps: Steps
    chip: Chip
    segments: Sequence[Segment]
    alone: Sequence[tuple[int, int]]
    present: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    moved: int = 0

    def bytes(self) -> int:
        """DRAM bytes of the plan. Raises Damaged if it cannot run."""
        for number, (segment, stay) in enumerate(zip(self.segments, self._staying(), strict=True)):
            left = {key: lines & self._block(*key, stay.get(key[0], 0)) for key, lines in self.present.items()}
            self.present = {key: lines for key, lines in left.items() if lines}
            try:
                if isinstance(segment, Alone):
                    self._alone(segment)
                else:
                    self._strips(segment)
            except Damaged as wrong:
                raise Damaged(f"segment {number}: {wrong}") from None
        by_strips = (range(s.first, s.stop) for s in self.segments if isinstance(s, Strips))
        numbers = (number for positions in by_strips for position in positions for number in self.steps.at[position])
        return self.moved + sum(self._stored(self.steps.steps[number].map) for number in numbers)

    def _staying(self) -> list[Mapping[int, int]]:
        """For every segment the lines by map that stay when it starts: those that the next strips begin with."""
        out: list[Mapping[int, int]] = []
        for segment in reversed(self.segments):
            out.append(dict(segment.entering) if isinstance(segment, Strips) else out[-1] if out else {})
        return out[::-1]

    def _stored(self, m: int) -> int:
        made = self.steps.maps[m]
        lines = made.lines if made.must_store else self.loaded.get(m, 0).bit_count()
        return lines * self._line(m)

    def _line(self, m: int) -> int:
        return self.steps.maps[m].words * self.chip.machine.word_bytes

    def _block(self, m: int, unit: int, each: int) -> int:
        """The lines of a unit's block of a map, if it keeps so many."""
        lines, units = self.steps.maps[m].lines, self.chip.units
        return kept(lines, units, each) & home(lines, units, unit)

    def _held(self, without: Collection[int] = ()) -> int:
        """Bytes on chip in the unit that holds most."""
        held = [0] * self.chip.units
        for (m, unit), lines in self.present.items():
            held[unit] += 0 if m in without else lines.bit_count() * self._line(m)
        return max(held)

    def _alone(self, segment: Alone) -> None:
        moved, taken = self.alone[segment.position]
        if taken + self._held() > self.chip.bytes and self.present:
            raise Damaged("there is no room for the rows that stay on chip")
        for m in self.steps.reads[segment.position]:
            self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        self.moved += moved

    def _strips(self, segment: Strips) -> None:
        grouping = grouped(self.steps, self.chip, segment.first, segment.stop)
        assert grouping is not None
        maps = self.steps.maps
        for m, each in segment.entering:
            wanted = self.steps.wanted(m, segment.first)
            if any(self._block(m, u, each) & wanted & ~self.present.get((m, u), 0) for u in range(self.chip.units)):
                raise Damaged(f"{each} lines of map {m} are not on chip when it starts")
        entering = dict.fromkeys(range(len(grouping.maps)), 0)
        for (m, _), lines in self.present.items():
            if m in grouping.local:
                entering[grouping.local[m]] |= lines
        leaving = {
            grouping.local[m]: kept(maps[m].lines, self.chip.units, each) & self.steps.wanted(m, segment.stop)
            for m, each in segment.leaving
            if m in grouping.local
        }
        room = self.chip.bytes - grouping.holding.maps - self._held(grouping.local)
        way = walk(grouping.group, segment.bounds)
        found = run(way, entering, leaving, record=True, room=room)
        if not found.whole:
            raise Damaged("there is no room for its rows on chip")
        self._after(grouping, found)
        self._count(grouping, way, found)

    def _after(self, grouping: Grouping, found: Run) -> None:
        """What is on chip when a segment ends."""
        now = {(grouping.local[m], u): lines for (m, u), lines in self.present.items() if m in grouping.local}
        for event in found.events:
            out = grouping.group.parts[event.section.step].output
            more = [*event.loads, *((m, to, lines) for m, _, to, lines in (*event.moves, *event.homing))]
            more += [(out, unit, lines) for unit, lines in event.rows]
            more += [(out, unit, lines) for _, unit, lines in event.over]
            for m, unit, lines in more:
                now[m, unit] = now.get((m, unit), 0) | lines
            for m, unit, lines in event.dead:
                now[m, unit] &= ~lines
        for (i, unit), lines in now.items():
            m = grouping.maps[i]
            # A row that is loaded has the columns that this group reads.
            torn = found.loaded.get(i, 0) if i in found.loaded and grouping.touched(m) else 0
            self.present[m, unit] = lines & ~torn & home(self.steps.maps[m].lines, self.chip.units, unit)

    def _count(self, grouping: Grouping, way: Walk, found: Run) -> None:
        word = self.chip.machine.word_bytes
        for times, cut, pinned in zip(way.sections, grouping.grains, grouping.holding.pinned, strict=True):
            self.moved += cut.once + cut.whole + (times - 1) * (cut.whole - pinned * cut.each)
        for event in found.events:
            for i, _, lines in event.loads:
                m = grouping.maps[i]
                self.loaded[m] = self.loaded.get(m, 0) | lines
                self.moved += lines.bit_count() * grouping.line_bytes(m, word)


def check_network(plan: Plan) -> None:
    """A plan's layers move together what its network is said to. Raises Damaged if they do not."""
    moved = plan.totals.dram_bytes
    if plan.network is not None and plan.network.bytes != moved:
        raise Damaged(f"the plan is said to move {plan.network.bytes:,} bytes, its layers move {moved:,}")
