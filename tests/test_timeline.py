"""The timeline: what holds of every program, and what follows by hand for small ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.search import figures
from dnnc_runtime.counters import Counters
from dnnc_runtime.jobs import UNITS
from dnnc_runtime.machine import Machine
from dnnc_runtime.timeline import Timing, timeline
from dnnc_runtime.walk import tell
from one_layer import program
from strategies import Case, cases, sharing_cases


def timed(case: Case, machine: Machine | None = None) -> Timing:
    return timeline(program(case.layer, machine or case.machine, case.schedule))


anything = st.one_of(cases(), sharing_cases())


@settings(max_examples=150)
@given(anything)
def test_laws_of_every_timeline(case: Case) -> None:
    timing = timed(case)
    (time,) = timing.times
    assert time.cycles == timing.cycles
    assert time.cycles >= max(time.busy, time.channel) - 1e-6
    assert time.shares.total == pytest.approx(time.cycles)
    assert (
        min(getattr(time.shares, name) for name in ("idle_units", "idle_planes", "idle_traces", "computing")) >= -1e-6
    )
    for unit in UNITS:
        slices = timing.slices[unit]
        assert all(a.end <= b.start for a, b in pairwise(slices))
    for job, (start, end) in zip(timing.jobs, timing.spans, strict=True):
        assert all(timing.spans[other][1] <= start for other in job.after)
        assert end <= timing.ends[job.section]


@settings(max_examples=100)
@given(anything)
def test_the_array_is_busy_for_as_long_as_the_closed_form_says(case: Case) -> None:
    (time,) = timed(case).times
    predicted = figures(case.layer.shape, case.machine, case.schedule)
    if case.layer.shape.kind == "array":
        assert time.busy == predicted.compute_cycles
    per_byte = case.machine.clock_hz / case.machine.dram.bytes_per_second
    assert time.channel == pytest.approx(predicted.bus_bytes * per_byte, rel=1e-3)


@settings(max_examples=100)
@given(anything)
def test_its_bytes_are_those_counted(case: Case) -> None:
    made = program(case.layer, case.machine, case.schedule)
    counters, timing = Counters(made), timeline(made)
    tell(made, [counters])
    moved = [job.moved for job in timing.jobs]
    assert sum(m.payload for m in moved) == counters.total().payload
    assert sum(m.bus for m in moved) == counters.total().bus


@settings(max_examples=100)
@given(anything, st.sampled_from((1.01, 1.5, 2.0, 4.0)))
def test_more_bandwidth_is_never_slower(case: Case, more: float) -> None:
    dram = replace(case.machine.dram, bytes_per_second=case.machine.dram.bytes_per_second * more)
    assert timed(case, replace(case.machine, dram=dram)).cycles <= timed(case).cycles * (1 + 1e-9)


@settings(max_examples=100)
@given(anything)
def test_memories_hold_what_the_closed_form_says_and_no_more(case: Case) -> None:
    used = figures(case.layer.shape, case.machine, case.schedule).memory
    for name, steps in timed(case).occupancy.items():
        assert steps.largest <= used[name] <= case.machine.memory(name).bytes
        assert not steps.values or (min(steps.values) >= 0 and steps.values[-1] == 0)
        assert list(steps.times) == sorted(set(steps.times))
