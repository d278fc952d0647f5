"""When everything in a program happens: a cycle-accurate schedule of the machine's units.

Every unit takes its jobs in a fixed order (:mod:`dnnc_runtime.queues`) and starts one when the unit is idle, what the
job reads has arrived, and what it overwrites is no longer needed: word for word, in every unit's memory. A word is free
when the last instruction that reads it has ended, so that loads run ahead as far as the memories allow.

Where a section keeps nothing on chip, the next one starts when it has ended, except for constants that are loaded
ahead. Where it keeps anything, the next one's jobs wait as those within a section do, and for what they load to be
stored.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.jobs import Job, Jobs, Unit
from dnnc_runtime.machine import Machine
from dnnc_runtime.occupancy import Steps, occupancy
from dnnc_runtime.program import Program
from dnnc_runtime.queues import Part, queues_of
from dnnc_runtime.time_shares import Time, share_out
from dnnc_runtime.walk import tell


@dataclass(frozen=True, slots=True)
class Slice:
    """A job, or a piece of one, at work: [start, end) in ticks."""

    job: int
    start: int
    end: int


@dataclass(frozen=True)
class Timing:
    """A program's jobs and when they run.

    Attributes:
        machine: that it runs on.
        sections: the layer or host node of each; what the host does takes no time here.
        ticks_per_cycle: of the exact clock in which everything is timed.
        jobs: in program order.
        slices: by unit, in time order; those of one unit do not overlap.
        behind: the section that has to have ended before each one, -1 for none.
        ends: when each section and all those before it have ended, in ticks.
    """

    machine: Machine
    sections: tuple[str, ...]
    ticks_per_cycle: int
    jobs: tuple[Job, ...]
    slices: Mapping[Unit, tuple[Slice, ...]]
    behind: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def cycles(self) -> float:
        """Cycles from the first job to the last."""
        return self.ends[-1] / self.ticks_per_cycle if self.ends else 0.0

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """When every job starts and ends, in ticks."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for slices in self.slices.values():
            for part in slices:
                first.setdefault(part.job, part.start)
                last[part.job] = part.end
        return tuple((first[job], last[job]) for job in range(len(self.jobs)))

    @cached_property
    def times(self) -> tuple[Time, ...]:
        """The time of every section, and what it is spent on."""
        return share_out(self.jobs, self.spans, self.behind, self.ends, self.ticks_per_cycle)

    @cached_property
    def occupancy(self) -> Mapping[str, Steps]:
        """By memory, the bytes of a unit's memory in use over time: words at which any unit holds something."""
        return occupancy(self.machine, self.jobs, self.spans)


def timeline(program: Program, ahead: bool = False) -> Timing:
    """The timing of a program, which is told and neither checked nor executed.

    Args:
        ahead: whether constants may be loaded while the layer before runs, as far as there is room.

    Raises:
        UsageFault: a section names no mode of the machine.
    """
    with _uncollected():
        jobs = Jobs(program, ahead)
        tell(program, [jobs])
        return timing(jobs)


@contextmanager
def _uncollected() -> Generator[None]:
    """Many objects are made and nearly all of them stay: to look for cycles among them takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timing(jobs: Jobs) -> Timing:
    """When the jobs run that a listener has collected."""
    machine = jobs.machine
    longest = machine.dram.longest_transfer_bytes * jobs.ticks_per_byte
    run = _Run(jobs.jobs, queues_of(jobs.jobs, len(jobs.sections), longest), len(jobs.sections))
    slices: dict[Unit, tuple[Slice, ...]] = {unit: tuple(found) for unit, found in run.slices.items()}
    return Timing(
        machine, tuple(jobs.sections), jobs.ticks_per_cycle, tuple(jobs.jobs), slices, tuple(jobs.behind),
        tuple(run.ends),
    )  # fmt: skip


class _Run:
    """Runs every unit's queue in its order."""

    def __init__(self, jobs: Sequence[Job], queues: Mapping[Unit, Sequence[Part]], sections: int) -> None:
        self._jobs, self._queues = jobs, queues
        self._left = [0] * len(jobs)
        for queue in queues.values():
            for number, _ in queue:
                self._left[number] += 1
        self._open = [0] * sections
        for job in jobs:
            self._open[job.section] += 1
        self._latest = [0] * sections
        self._end = [0] * len(jobs)
        self.ends: list[int] = []
        self.slices: dict[Unit, list[Slice]] = {unit: [] for unit in queues}
        self._close()
        at = dict.fromkeys(queues, 0)
        while any(self._advance(unit, at) for unit in queues):
            pass
        if any(self._left):
            stuck = jobs[next(number for number, count in enumerate(self._left) if count)]
            raise DisagreementFault(f"instruction {stuck.instruction} of section {stuck.section} waits for itself")

    def _advance(self, unit: Unit, at: dict[Unit, int]) -> bool:
        """Runs a unit's queue until it waits for another unit; whether anything ran."""
        queue, first = self._queues[unit], at[unit]
        while at[unit] < len(queue) and self._ready(self._jobs[queue[at[unit]][0]]):
            self._place(unit, *queue[at[unit]])
            at[unit] += 1
        return at[unit] > first

    def _ready(self, job: Job) -> bool:
        return job.behind < len(self.ends) and not any(self._left[other] for other in job.after)

    def _place(self, unit: Unit, number: int, ticks: int) -> None:
        job, slices = self._jobs[number], self.slices[unit]
        free = slices[-1].end if slices else 0
        begun = self.ends[job.behind] if job.behind >= 0 else 0
        start = max([free, begun, *(self._end[other] for other in job.after)])
        slices.append(Slice(number, start, start + ticks))
        self._end[number] = start + ticks
        self._left[number] -= 1
        if not self._left[number]:
            self._latest[job.section] = max(self._latest[job.section], start + ticks)
            self._open[job.section] -= 1
            self._close()

    def _close(self) -> None:
        """Sections end in order, once all their jobs have."""
        while len(self.ends) < len(self._open) and not self._open[len(self.ends)]:
            self.ends.append(max(self._latest[len(self.ends)], self.ends[-1] if self.ends else 0))
