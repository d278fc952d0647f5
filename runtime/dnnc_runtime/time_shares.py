"""What a layer's time is spent on: shares that add up to all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise

from dnnc_runtime.durations import Work
from dnnc_runtime.jobs import Job


@dataclass(frozen=True, slots=True)
class Shares:
    """Cycles of a layer, told apart by what they are spent on; together they are its time.

    Attributes:
        computing: valid operations, as if all units were busy with them.
        idle_units: units that wait for the slowest one, having fewer rows or planes.
        idle_planes: passes that do not fill the units, for want of planes.
        idle_traces: traces rounded up to the channel granularity.
        first_load: before the first computation.
        dram: waiting for DRAM between computations.
        on_chip: waiting for moves and pools between computations.
        last_store: after the last computation.
    """

    computing: float = 0.0
    idle_units: float = 0.0
    idle_planes: float = 0.0
    idle_traces: float = 0.0
    first_load: float = 0.0
    dram: float = 0.0
    on_chip: float = 0.0
    last_store: float = 0.0

    def __add__(self, other: Shares) -> Shares:
        return Shares(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def total(self) -> float:
        """All cycles."""
        return float(sum(astuple(self)))

    @property
    def bound(self) -> str:
        """What takes most of the time: "compute", "idle lanes", "DRAM", "latency" or "on chip"."""
        causes = {
            "compute": self.computing,
            "idle lanes": self.idle_units + self.idle_planes + self.idle_traces,
            "DRAM": self.dram,
            "latency": self.first_load + self.last_store,
            "on chip": self.on_chip,
        }
        return max(causes, key=lambda cause: causes[cause])


SHARES: tuple[str, ...] = tuple(f.name for f in fields(Shares))


@dataclass(frozen=True, slots=True)
class Time:
    """The time of one section, in cycles.

    Attributes:
        start, cycles: when it starts, and how long it takes.
        busy: cycles that its own operation keeps its unit at work.
        channel: cycles that its transfers keep the DRAM channel at work.
        shares: what the time is spent on.
    """

    start: float
    cycles: float
    busy: float
    channel: float
    shares: Shares


def share_out(
    jobs: Sequence[Job], spans: Sequence[tuple[int, int]], behind: Sequence[int], ends: Sequence[int],
    ticks_per_cycle: int,
) -> tuple[Time, ...]:  # fmt: skip
    """The time of every section; it starts when that of the section before ends.

    Where the next section does not wait for this one's end, its time ends with its last computation, and its last
    stores fall into the time of the next. Where sections compute at once, on different units, that is the time of the
    first.

    Args:
        jobs, spans: the jobs, and when each starts and ends, in ticks.
        behind: by section, the one that has to have ended before.
        ends: of the sections, in ticks.
        ticks_per_cycle: ticks of a cycle.
    """
    held: list[list[int]] = [[] for _ in ends]
    for number, job in enumerate(jobs):
        held[job.section].append(number)
    before = _before(jobs, spans)
    out: list[Time] = []
    start = 0
    for section, (numbers, end) in enumerate(zip(held, ends, strict=True)):
        work = [number for number in numbers if jobs[number].computes]
        if section + 1 < len(behind) and behind[section + 1] < section:
            end = max(start, *(spans[number][1] for number in work), 0)
        out.append(_time(jobs, spans, before, numbers, work, start, end, ticks_per_cycle))
        start = end
    return tuple(out)


def _time(
    jobs: Sequence[Job], spans: Sequence[tuple[int, int]], before: Mapping[int, int], numbers: Sequence[int],
    work: Sequence[int], start: int, end: int, tick: int,
) -> Time:  # fmt: skip
    waits = {"dram": 0, "on_chip": 0}
    for done, number in pairwise(work):
        _blame(jobs, spans, before, number, max(start, spans[done][1]), waits)
    first = max(0, spans[work[0]][0] - start) if work else end - start
    last = end - max(start, spans[work[-1]][1]) if work else 0
    done_work = _sum([jobs[number].work for number in work])
    # All of the work, but for what falls into the time of sections before.
    early = sum(max(0, min(start, spans[number][1]) - spans[number][0]) for number in work)
    left = 1 - early / max(1, done_work.cycles * tick)
    shares = Shares(
        done_work.useful * left,
        done_work.units * left,
        done_work.planes * left,
        done_work.traces * left,
        first / tick,
        waits["dram"] / tick,
        waits["on_chip"] / tick,
        last / tick,
    )
    channel = sum(jobs[number].ticks for number in numbers if jobs[number].unit == "dram")
    return Time(start / tick, (end - start) / tick, float(done_work.cycles), channel / tick, shares)


def _before(jobs: Sequence[Job], spans: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The job that each one's unit had at hand just before."""
    last: dict[str, int] = {}
    out: dict[int, int] = {}
    for number in sorted(range(len(jobs)), key=lambda number: spans[number]):
        unit = jobs[number].unit
        if unit in last:
            out[number] = last[unit]
        last[unit] = number
    return out


def _blame(
    jobs: Sequence[Job], spans: Sequence[tuple[int, int]], before: Mapping[int, int], number: int, since: int,
    waits: dict[str, int],
) -> None:  # fmt: skip
    """Tells what a computation waits for since the one before it ended: back along the jobs that ended last."""
    until = spans[number][0]
    while until > since:
        causes = list(jobs[number].after)
        if number in before:
            causes.append(before[number])
        number = max(causes, key=lambda other: spans[other][1])
        begun = max(since, spans[number][0])
        waits["dram" if jobs[number].unit == "dram" else "on_chip"] += until - begun
        until = begun


def _sum(works: Sequence[Work]) -> Work:
    return Work(*(sum(column) for column in zip(*map(astuple, works), strict=True))) if works else Work()
