"""The order in which every unit takes its jobs, fixed before anything runs.

The array, the vector unit and the links take their jobs as the program lists them. For the DRAM channel, a clock of
computation alone says from when on the words of a transfer are free (or there), and when it is waited for. The
transfer is cut into pieces no longer than the machine's longest, which are spread evenly over that time, the last one
at its end. So what is needed soon goes first, and what has time fills the gaps; and because the order does not depend
on how fast the channel is, more bandwidth never makes anything later.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from dnnc_runtime.jobs import UNITS, Job, Unit

Part = tuple[int, int]
"""A job and the ticks of a piece of it."""


def queues_of(jobs: Sequence[Job], sections: int, longest: int) -> dict[Unit, list[Part]]:
    """What each unit does, in its order."""
    clock = _computation(jobs)
    ended = _ends(jobs, clock, sections)
    latest = _waited_for(jobs, clock, ended)
    queues: dict[Unit, list[Part]] = {unit: [] for unit in UNITS}
    placed: list[tuple[float, float, float, int, int, int]] = []
    done = [0.0] * len(jobs)
    for number, job in enumerate(jobs):
        start = max((done[other] for other in job.after), default=0.0)
        if job.unit != "dram":
            queues[job.unit].append((number, job.ticks))
            done[number] = max(start, clock[number][1])
        else:
            start = max(start, ended[job.behind] if job.behind >= 0 else 0)
            end = max(start, latest[number])
            pieces = max(1, -(-job.ticks // longest))
            for i in range(pieces):
                at = start + (end - start) * (i + 1) / pieces
                ticks = job.ticks * (i + 1) // pieces - job.ticks * i // pieces
                placed.append((at, end, start, number, i, ticks))
                done[number] = at
    queues["dram"] = [(number, ticks) for _, _, _, number, _, ticks in sorted(placed)]
    return queues


def _computation(jobs: Sequence[Job]) -> list[tuple[int, int]]:
    """(start, end) of every job on a clock that only the layers' own operations advance, one after the other."""
    now = 0
    clock: list[tuple[int, int]] = []
    for job in jobs:
        start, now = now, now + job.ticks * job.computes
        clock.append((start, now))
    return clock


def _ends(jobs: Sequence[Job], clock: Sequence[tuple[int, int]], sections: int) -> list[int]:
    """When each section ends on that clock."""
    ends = [0] * sections
    for job, (_, end) in zip(jobs, clock, strict=True):
        ends[job.section] = end
    return list(accumulate(ends, max))


def _waited_for(jobs: Sequence[Job], clock: Sequence[tuple[int, int]], ends: Sequence[int]) -> list[int]:
    """When on that clock each job is first waited for; the end of its layer where nothing does."""
    latest = [ends[job.section] for job in jobs]
    for number in reversed(range(len(jobs))):
        job = jobs[number]
        # What moves and pools need has to be there before they can be in time themselves.
        needed = clock[number][0] if job.computes else latest[number] - job.ticks * (job.unit != "dram")
        for other in job.after:
            latest[other] = min(latest[other], needed)
    return latest
