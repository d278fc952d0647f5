"""What is stored of a plan for all layers together, and what it must prove before it is used.

It is stored as segments: which rows are where follows from the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dnnc.chip import Chip
from dnnc.documents import Damaged
from dnnc.grouping import Grouping, group_of, grouped, handable, spillable
from dnnc.groups import LONGEST
from dnnc.nests import layer_of, maps_on_chip, nested, on_chip, operands, space
from dnnc.orders import mask_of, prefix
from dnnc.plan import Plan
from dnnc.schedule_records import ScheduleRecord, record, restore
from dnnc.segments import SCOPES, Alone, Best, Network, Scope, Segment, Strips
from dnnc.steps import Steps
from dnnc.strip_run import Run, run
from dnnc.strips import Walk, home, kept, walk
from dnnc.weights import weights_bytes


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """Layers that run together, as :class:`dnnc.segments.Strips`; one that runs by itself, as
    :class:`dnnc.segments.Alone`, has no bounds."""

    positions: tuple[int, ...]
    bounds: tuple[int, ...]
    entering: tuple[tuple[int, int], ...]
    leaving: tuple[tuple[int, int], ...]
    columns: tuple[int, ...] = ()
    spilled: tuple[int, ...] = ()
    handed: tuple[int, ...] = ()
    schedule: ScheduleRecord | None = None


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


def network_record(network: Network) -> NetworkRecord:
    """A plan for all layers together as it is stored."""
    best: dict[str, BestRecord] = {scope: BestRecord(of.bytes, of.bound) for scope, of in network.best.items()}
    return NetworkRecord(network.scope, tuple(map(_segment_record, network.segments)), best)


def _segment_record(segment: Segment) -> SegmentRecord:
    if isinstance(segment, Alone):
        schedule = record(segment.schedule) if segment.schedule else None
        return SegmentRecord(segment.positions, (), segment.entering, segment.leaving, schedule=schedule)
    return SegmentRecord(*segment)


def restore_network(
    stored: NetworkRecord, steps: Steps, chip: Chip, alone: Sequence[tuple[int, int]]
) -> Network:  # fmt: skip
    """The plan that was stored.

    Args:
        alone: for every position the DRAM bytes of its layer by itself, and the bytes of feature maps in a unit.

    Raises:
        Damaged: its segments are not all layers in an order that they may have, one of them cannot run so, starts with
            rows that are not there or has no room, or they move other bytes than stated.
    """
    if chip.why or stored.scope == "layerwise":
        raise Damaged(f"layers run together, though {chip.why or 'each is to run by itself'}")
    best = _best(stored, steps, chip, sum(moved for moved, _ in alone))
    segments: list[Segment] = []
    done = 0
    for number, segment in enumerate(stored.segments):
        try:
            done = _executed(segment.positions, steps, done)
            segments.append(_segment(segment, stored.scope, steps, chip))
        except Damaged as wrong:
            raise Damaged(f"segment {number}: {wrong}") from None
    if done != prefix(len(alone)):
        raise Damaged(f"the segments are of {done.bit_count()} layers, the network has {len(alone)}")
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


def _executed(positions: tuple[int, ...], steps: Steps, done: int) -> int:
    """What is done after some more layers. Raises Damaged if they cannot be next."""
    if not positions or any(one >= two for one, two in pairwise(positions)):
        raise Damaged("its layers are not in order")
    for position in positions:
        if not 0 <= position < len(steps.at):
            raise Damaged(f"there is no layer {position}")
        if done >> position & 1 or steps.needs[position] & ~done:
            raise Damaged(f"layer {position} cannot be next")
        done |= 1 << position
    return done


def _segment(stored: SegmentRecord, scope: Scope, steps: Steps, chip: Chip) -> Segment:
    if stored.schedule is not None:
        return _nest(stored, stored.schedule, steps, chip)
    if stored.bounds:
        return _strips(stored, scope, steps, chip)
    more = stored.entering or stored.leaving or stored.columns or stored.spilled or stored.handed
    if len(stored.positions) != 1 or more:
        raise Damaged("several layers, or rows on chip, but no strips")
    return Alone(stored.positions[0])


def _strips(stored: SegmentRecord, scope: Scope, steps: Steps, chip: Chip) -> Strips:
    """Layers that run by strips."""
    longest = LONGEST if scope == "fused" else 1
    if len(stored.positions) > longest:
        raise Damaged(f"{len(stored.positions)} layers run together, which may be {longest}")
    grouping = grouped(steps, chip, stored.positions)
    if grouping is None:
        raise Damaged("its layers cannot run by strips")
    last = grouping.group.parts[-1]
    if not _cuts(stored.bounds, last.rows):
        raise Damaged(f"its strips do not end one after the other, and at row {last.rows}")
    if stored.columns and not (len(stored.columns) > 1 and _cuts(stored.columns, last.columns[1])):
        raise Damaged(f"its blocks do not end one after the other, and at column {last.columns[1]}")
    for lines in (stored.entering, stored.leaving):
        _check_lines(lines, steps, chip)
    passing = [[of for of in lines if of[0] not in grouping.local] for lines in (stored.entering, stored.leaving)]
    if passing[0] != passing[1]:
        raise Damaged("maps that its layers do not read are not as they were when it ends")
    if stored.columns and any(m in grouping.local for m, _ in (*stored.entering, *stored.leaving)):
        raise Damaged("it is cut into blocks of columns, but its own maps are on chip before or behind it")
    if not {*stored.spilled} <= {*spillable(grouping)} or not {*stored.handed} <= {*handable(grouping)}:
        raise Damaged("maps do not wait for the next strip, or go tile by tile, that cannot")
    if stored.columns and (stored.spilled or stored.handed):
        raise Damaged("it is cut into blocks of columns, but some of its maps go another way")
    held = stored.entering, stored.leaving
    return Strips(stored.positions, stored.bounds, *held, stored.columns, stored.spilled, stored.handed)


def _cuts(bounds: Sequence[int], size: int) -> bool:
    """Whether bounds cut an axis of a size into parts that all have something of it."""
    return bounds[-1] == size and all(one < two for one, two in pairwise((0, *bounds)))


def _nest(stored: SegmentRecord, schedule: ScheduleRecord, steps: Steps, chip: Chip) -> Alone:
    """A layer with operands on chip."""
    if stored.bounds or stored.columns or len(stored.positions) != 1:
        raise Damaged("several layers, or strips, under one schedule")
    position = stored.positions[0]
    if not operands(steps, chip, position):
        raise Damaged("its layer cannot run with operands on chip")
    for lines in (stored.entering, stored.leaving):
        _check_lines(lines, steps, chip)
    segment = Alone(position, None, stored.entering, stored.leaving)
    maps, before = maps_on_chip(steps, chip, segment), dict(stored.entering)
    if any(before.get(m, 0) < each for m, each in stored.leaving if m not in maps.get("output", ())):
        raise Damaged("maps stay on chip that were not there")
    shape = on_chip(layer_of(steps, chip, position), maps).shape
    return segment._replace(schedule=restore(schedule, space(shape, chip, chip.bytes)))


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
        left: maps that layers under their own schedules have left on chip.
        done: mask of the layers that have been gone through.
    """

    steps: Steps
    chip: Chip
    segments: Sequence[Segment]
    alone: Sequence[tuple[int, int]]
    present: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    moved: int = 0
    left: list[int] = field(default_factory=list[int])
    done: int = 0

    def bytes(self) -> int:
        """DRAM bytes of the plan. Raises Damaged if it cannot run."""
        for number, (segment, stay) in enumerate(zip(self.segments, self._staying(), strict=True)):
            left = {key: lines & self._block(*key, stay.get(key[0], 0)) for key, lines in self.present.items()}
            self.present = {key: lines for key, lines in left.items() if lines}
            try:
                if isinstance(segment, Strips):
                    self._strips(segment)
                elif segment.schedule is None:
                    self._alone(segment)
                else:
                    self._nest(segment)
            except Damaged as wrong:
                raise Damaged(f"segment {number}: {wrong}") from None
        by_strips = (s.positions for s in self.segments if isinstance(s, Strips))
        numbers = (number for positions in by_strips for position in positions for number in self.steps.at[position])
        written = [*(self.steps.steps[number].map for number in numbers), *self.left]
        return self.moved + sum(self._stored(m) for m in written)

    def _staying(self) -> list[Mapping[int, int]]:
        """For every segment the lines by map that stay when it starts: as the next one says that has rows on chip."""
        out: list[Mapping[int, int]] = []
        for segment in reversed(self.segments):
            plain = isinstance(segment, Alone) and segment.schedule is None
            out.append(dict(segment.entering) if not plain else out[-1] if out else {})
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
        self.done |= mask_of(segment.positions)
        moved, taken = self.alone[segment.position]
        if taken + self._held() > self.chip.bytes and self.present:
            raise Damaged("there is no room for the rows that stay on chip")
        for m in self.steps.reads[segment.position]:
            self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        self.moved += moved

    def _begin(self, entering: Sequence[tuple[int, int]]) -> None:
        """What a segment starts with is there."""
        for m, each in entering:
            wanted = self.steps.wanted(m, self.done)
            if any(self._block(m, u, each) & wanted & ~self.present.get((m, u), 0) for u in range(self.chip.units)):
                raise Damaged(f"{each} lines of map {m} are not on chip when it starts")

    def _nest(self, segment: Alone) -> None:
        self._begin(segment.entering)
        self.done |= mask_of(segment.positions)
        made = nested(self.steps, self.chip, segment)
        if "output" in made.maps:
            lines, units = self.steps.maps[made.output].lines, self.chip.units
            self.present.update({(made.output, unit): home(lines, units, unit) for unit in range(units)})
            self.left.append(made.output)
        if made.figures.memory[self.chip.memory] + self._held() > self.chip.bytes:
            raise Damaged("there is no room for the rows that stay on chip")
        here = {m for maps in made.maps.values() for m in maps}
        for m in self.steps.reads[segment.position]:
            if m not in here:
                self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        self.moved += made.figures.dram_bytes

    def _strips(self, segment: Strips) -> None:
        grouping = group_of(self.steps, self.chip, segment)
        maps = self.steps.maps
        self._begin(segment.entering)
        self.done |= mask_of(segment.positions)
        entering = dict.fromkeys(range(len(grouping.maps)), 0)
        for (m, _), lines in self.present.items():
            if m in grouping.local:
                entering[grouping.local[m]] |= lines
        leaving = {
            grouping.local[m]: kept(maps[m].lines, self.chip.units, each) & self.steps.wanted(m, self.done)
            for m, each in segment.leaving
            if m in grouping.local
        }
        room = self.chip.bytes - grouping.holding.maps - self._held(grouping.local)
        way = walk(grouping.group, segment.bounds)
        found = run(way, entering, leaving, record=True, room=room)
        if not found.whole:
            raise Damaged("there is no room for its rows on chip")
        if not segment.columns:
            self._after(grouping, found)
        self._count(grouping, way, found)

    def _after(self, grouping: Grouping, found: Run) -> None:
        """What is on chip when a segment ends."""
        now = {(grouping.local[m], u): lines for (m, u), lines in self.present.items() if m in grouping.local}
        for event in found.events:
            more = [*event.loads, *((m, to, lines) for m, _, to, lines in (*event.moves, *event.homing))]
            more += [*event.rows, *((out, unit, lines) for _, out, unit, lines in event.over)]
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
                self.moved += lines.bit_count() * grouping.loaded_bytes(i, word)


def check_network(plan: Plan) -> None:
    """A plan's layers move together what its network is said to. Raises Damaged if they do not."""
    moved = plan.totals.dram_bytes
    if plan.network is not None and plan.network.bytes != moved:
        raise Damaged(f"the plan is said to move {plan.network.bytes:,} bytes, its layers move {moved:,}")
