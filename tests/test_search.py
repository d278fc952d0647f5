"""The optimum is legal and one: nothing drawn at random beats it, and more room or more freedom never costs a byte."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dnnc.enumerate import best
from dnnc.front import STEP, front
from dnnc.layer import Layer, Shape
from dnnc.schedule import dataflow
from dnnc.search import NEAR, NoSchedule, Objective, Result, figures, hurried, lower_bound, optimize, runner_ups
from dnnc.space import Limits, Space
from dnnc.traffic import compulsory
from dnnc_runtime import machine as machines_file
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window
from strategies import Problem, fitted, layers, machines, problems, schedules

LATENCY, BALANCED = Objective("latency"), Objective("balanced", 10.0)
SNOWFLAKE = machines_file.load("snowflake")


def fewest(shape: Shape, machine: Machine, limits: Limits | None = None) -> int:
    found = best(Space(shape, machine, limits or Limits()))
    assert found is not None
    return found.bytes


def fits(shape: Shape, machine: Machine, result: Result) -> bool:
    used = figures(shape, machine, result.schedule).memory
    return all(used[m.name] <= m.bytes for m in machine.memories)


# -- the optimum -----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(problems())
def test_the_optimum_fits_and_lies_over_its_bounds(problem: Problem) -> None:
    shape, machine = problem[0].shape, problem[1]
    result = optimize(shape, machine)
    assert fits(shape, machine, result)
    moved = figures(shape, machine, result.schedule).dram_bytes
    assert moved >= lower_bound(shape, machine) >= compulsory(shape, machine)
    assert result.proof.status == "optimal"
    assert result.proof.value == result.proof.bound == moved
    assert result.proof.gap == 0.0


@settings(max_examples=60)
@given(layers(6, 6), machines(), st.data())
def test_no_legal_schedule_beats_the_optimum(layer: Layer, machine: Machine, data: st.DataObject) -> None:
    """In memories that a random schedule fills to the last word, there is a candidate that is at least as good."""
    shape = layer.shape
    schedule = data.draw(schedules(shape, machine))
    machine = fitted(shape, machine, schedule)
    granules = next(d for d in Space(shape, machine).deals if d.mode == schedule.mode).granules(shape, machine)
    sizes = {"k": (schedule.k, shape.k), "c": (schedule.c, shape.c), "g": (schedule.g, shape.g)}
    assume(all(size == whole or size % granules[d] == 0 for d, (size, whole) in sizes.items()))  # type: ignore[index]
    assume(schedule.y.style == schedule.x.style == "footprint")
    assert fewest(shape, machine) <= figures(shape, machine, schedule).dram_bytes


@settings(max_examples=30)
@given(problems(), st.sampled_from((2, 6, 20, 200)), st.data())
def test_more_bytes_on_chip_never_cost_bytes_of_dram(problem: Problem, more: int, data: st.DataObject) -> None:
    shape, machine = problem[0].shape, problem[1]
    memory = data.draw(st.sampled_from(machine.memories))
    larger = machine.with_memory(memory.name, memory.bytes + more)
    assert fewest(shape, larger) <= fewest(shape, machine)


NARROW = (
    Limits(pin=False),
    Limits(move=False),
    Limits(keep=False),
    Limits(buffers=(2, None, None)),
    Limits(buffers=(2, 2, 2)),
    Limits(dataflow="weight-stationary"),
    Limits(dataflow="input-stationary"),
    Limits(dataflow="output-stationary"),
    Limits(order=("k", "y", "x", "c", "g")),
    Limits(counts=(("y", 2),)),
    Limits(modes=("combined",)),
    Limits(modes=("cooperative",)),
)


@settings(max_examples=60)
@given(problems(), st.sampled_from(NARROW))
def test_freedom_never_costs_a_byte_and_limits_are_kept(problem: Problem, limits: Limits) -> None:
    shape, machine = problem[0].shape, problem[1]
    narrow = best(Space(shape, machine, limits))
    assume(narrow is not None)
    assert narrow is not None
    assert fewest(shape, machine) <= narrow.bytes
    s = narrow.schedule
    assert limits.pin is None or s.pin is None
    assert limits.move is None or s.move == limits.move
    assert limits.keep is None or s.keep == limits.keep
    vector = shape.kind == "vector"
    wanted = [(b, a) for i, (b, a) in enumerate(zip(s.buffers, limits.buffers, strict=True)) if not (vector and i == 1)]
    assert all(asked is None or buffers == asked for buffers, asked in wanted)
    assert limits.dataflow is None or limits.dataflow in dataflow(s.order)
    assert limits.order is None or s.order == tuple(d for d in limits.order if d in s.order)
    assert all(s.trips(shape)[dim] == count for dim, count in limits.counts)
    assert limits.modes is None or s.mode in limits.modes


# -- objectives ------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(problems(4, 4))
def test_objectives_bound_each_other(problem: Problem) -> None:
    shape, machine = problem[0].shape, problem[1]
    traffic, latency, balanced = (
        figures(shape, machine, optimize(shape, machine, objective=o).schedule)
        for o in (Objective(), LATENCY, BALANCED)
    )
    assert traffic.dram_bytes <= balanced.dram_bytes <= latency.dram_bytes
    of = front(Space(shape, machine))
    assert of is not None
    assert of.fewest_cycles <= latency.cycles <= of.fewest_cycles * NEAR
    assert of.fewest_cycles <= balanced.cycles <= max(of.fewest_cycles * 1.1, of.fewest_cycles)
    assert latency.cycles <= traffic.cycles * NEAR


@settings(max_examples=40)
@given(layers(5, 5), machines(), st.data())
def test_no_legal_schedule_is_faster_than_the_fastest(layer: Layer, machine: Machine, data: st.DataObject) -> None:
    shape = layer.shape
    schedule = data.draw(schedules(shape, machine))
    machine = fitted(shape, machine, schedule)
    granules = next(d for d in Space(shape, machine).deals if d.mode == schedule.mode).granules(shape, machine)
    sizes = {"k": (schedule.k, shape.k), "c": (schedule.c, shape.c), "g": (schedule.g, shape.g)}
    assume(all(size == whole or size % granules[d] == 0 for d, (size, whole) in sizes.items()))  # type: ignore[index]
    assume(schedule.y.style == schedule.x.style == "footprint")
    of = front(Space(shape, machine))
    assert of is not None
    drawn = figures(shape, machine, schedule)
    assert of.fewest_cycles <= drawn.cycles
    # Nor does any beat the front by more than the step in which its cycles are told apart.
    assert any(p.bytes <= drawn.dram_bytes and p.cycles <= drawn.cycles * STEP for p in of.points)


@settings(max_examples=25)
@given(problems())
def test_the_front_goes_from_the_fewest_bytes_to_about_the_fewest_cycles(problem: Problem) -> None:
    shape, machine = problem[0].shape, problem[1]
    of = front(Space(shape, machine))
    assert of is not None
    assert of.points[0].bytes == fewest(shape, machine)
    assert of.points[-1].cycles <= of.fewest_cycles * STEP
    for a, b in pairwise(of.points):
        assert (a.bytes < b.bytes, a.cycles > b.cycles) == (True, True)
    for point in of.points:
        found = figures(shape, machine, point.schedule)
        assert (found.dram_bytes, found.cycles) == (point.bytes, point.cycles)
        assert all(found.memory[m.name] <= m.bytes for m in machine.memories)


@settings(max_examples=25)
@given(problems())
def test_a_hurried_schedule_is_legal_and_proves_nothing(problem: Problem) -> None:
    shape, machine = problem[0].shape, problem[1]
    result = hurried(shape, machine)
    assert fits(shape, machine, result)
    assert result.proof.status == "feasible"
    assert result.proof.bound <= fewest(shape, machine) <= result.proof.value


@settings(max_examples=25)
@given(problems())
def test_runner_ups_are_the_best_of_the_other_dataflows(problem: Problem) -> None:
    shape, machine = problem[0].shape, problem[1]
    result = optimize(shape, machine)
    mine = dataflow(result.schedule.order)
    others = runner_ups(shape, machine, result.schedule)
    assert not {r.dataflow for r in others} & set(mine)
    assert [r.bytes for r in others] == sorted(r.bytes for r in others)
    for other in others:
        assert other.bytes == fewest(shape, machine, Limits(dataflow=other.dataflow))
        assert other.bytes >= result.proof.value


def test_equal_problems_have_equal_answers() -> None:
    shape = Shape("array", 1, 1, 96, 48, Window(20, 20, 3, 1, 1, 1, 1), Window(20, 20, 3, 1, 1, 1, 1), 1)
    assert optimize(shape, SNOWFLAKE) == optimize(replace(shape), replace(SNOWFLAKE, name="another", description=""))


def test_nothing_fits_in_no_memory() -> None:
    shape = Shape("array", 1, 1, 4, 4, Window(4, 4), Window(4, 4))
    tiny = SNOWFLAKE.with_memory("maps", 2)
    with pytest.raises(NoSchedule):
        optimize(shape, tiny)
    with pytest.raises(NoSchedule):
        hurried(shape, tiny)


# -- bounds, by hand -------------------------------------------------------------------------------------------------


def test_the_lower_bound_of_a_matrix_product() -> None:
    """1000 x 1000 by 1000 x 1000 on 2-byte words with 768 KiB on chip, S = 393,216 words, no sliding window: at least
    2 x 10^9 / sqrt(S) - 2 S = 2.4 x 10^6 words, less than the 3 x 10^6 that are touched: compulsory is the bound."""
    two_buffer = machines_file.load("two-buffer")
    shape = Shape("array", 1, 1, 1000, 1000, Window(1000, 1000), Window(1, 1))
    assert lower_bound(shape, two_buffer) == compulsory(shape, two_buffer) == 3 * 10**6 * 2
    small = two_buffer.with_memory("maps", 64 * 1024).with_memory("weights", 32 * 1024)
    # S = 49,152 words: isqrt(S) + 1 = 222; 2 x 10^9 // 222 - 98,304 = 8,910,705 words.
    assert lower_bound(shape, small) == (2 * 10**9 // 222 - 98_304) * 2 == 17_821_410
