"""A timeline in bins: bytes on the channel by tensor, and how full a memory is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dnnc.agreement import CATEGORY
from dnnc.plan import TRAFFIC_ROLES
from dnnc_runtime.jobs import Job
from dnnc_runtime.occupancy import Steps
from dnnc_runtime.timeline import Timing

Floats = NDArray[np.float64]


def role_of(job: Job) -> str:
    """The tensor that a transfer moves, as reports call it: of "load partial sums" that is partial_sums."""
    role = job.name.partition(" ")[2].replace(" ", "_")
    return CATEGORY.get(role, role)


def channel_bytes(timing: Timing, edges: Floats) -> Mapping[str, Floats]:
    """Bytes on the bus between every two edges (in ticks), by role; those of a slice are spread evenly over it."""
    pieces: dict[str, list[tuple[int, int, float]]] = {}
    for part in timing.slices["dram"]:
        job = timing.jobs[part.job]
        moved = job.moved.bus * (part.end - part.start) / job.ticks if job.ticks else 0.0
        pieces.setdefault(role_of(job), []).append((part.start, part.end, moved))
    return {role: _between(pieces[role], edges) for role in TRAFFIC_ROLES if role in pieces}


def _between(pieces: list[tuple[int, int, float]], edges: Floats) -> Floats:
    """What is moved from edge to edge: the sum up to an edge is linear within a piece, and level outside of them."""
    times = np.array([time for start, end, _ in pieces for time in (start, end)], dtype=np.float64)
    sums = np.cumsum([amount for _, _, moved in pieces for amount in (0.0, moved)])
    return np.diff(np.interp(edges, times, sums, left=0.0))


def envelope(steps: Steps, edges: Floats) -> tuple[tuple[int, int], ...]:
    """The smallest and the largest value of a step function between every two edges (in ticks)."""
    values = (0, *steps.values)
    from_edge = np.searchsorted(steps.times, edges, side="right").tolist()
    to_edge = np.searchsorted(steps.times, edges, side="left").tolist()
    spans = [
        values[first : max(last, first) + 1]
        for (first, _), (_, last) in zip(pairwise(from_edge), pairwise(to_edge), strict=True)
    ]
    return tuple((min(span), max(span)) for span in spans)
