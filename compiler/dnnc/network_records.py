"""What is stored of a plan for all layers together, and what it must prove before it is used.

It is stored as segments: which rows are where follows from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dnnc.chip import Chip
from dnnc.documents import Damaged
from dnnc.grouping import grouped, handable, spillable
from dnnc.groups import LONGEST
from dnnc.nests import layer_of, maps_on_chip, on_chip, operands, space
from dnnc.orders import prefix
from dnnc.replay import moved_bytes
from dnnc.schedule_records import ScheduleRecord, record, restore
from dnnc.segments import SCOPES, Alone, Best, Network, Scope, Segment, Strips
from dnnc.steps import Steps
from dnnc.weights import constant_bytes


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


def _best(stored: NetworkRecord, steps: Steps, chip: Chip, layerwise: int) -> dict[Scope, Best]:
    """What is known of every scope: each may do what those before it do."""
    scopes = SCOPES[: SCOPES.index(stored.scope) + 1]
    if {*stored.best} != {*scopes}:
        raise Damaged(f"the best plans are of {', '.join(stored.best) or 'nothing'}, expected {', '.join(scopes)}")
    best: dict[Scope, Best] = {scope: Best(stored.best[scope].bytes, stored.best[scope].bound) for scope in scopes}
    for name, stated in zip(("bytes", "bound"), best["layerwise"], strict=True):
        if stated != layerwise:
            raise Damaged(f"layerwise: {name} of {stated:,}, where layer by layer it is {layerwise:,} bytes")
    floor = _floor(steps, chip)
    for number, scope in enumerate(scopes):
        least = min(best[narrower].bytes for narrower in scopes[: number + 1])
        if not floor <= best[scope].bound <= least:
            raise Damaged(f"{scope}: a bound of {best[scope].bound:,} bytes, which is not from {floor:,} to {least:,}")
        # The plan itself may move more than a narrower one, where time counts.
        if scope != stored.scope and best[scope].bytes > least:
            raise Damaged(f"{scope}: {best[scope].bytes:,} bytes, where a narrower plan moves {least:,}")
    return best


def _floor(steps: Steps, chip: Chip) -> int:
    """Bytes that every plan loads: kernels and parameters, where all layers can run by rows."""
    if any(step.why for step in steps.steps):
        return 0
    return sum({step.constants: constant_bytes(step.layer.shape, chip.machine) for step in steps.steps}.values())


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
