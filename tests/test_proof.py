"""The solver, the enumeration and the runtime agree on the fewest bytes; none of them knows what the others found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.enumerate import best
from dnnc.proof import minimum
from dnnc.space import Limits, Space
from one_layer import counted, program
from strategies import Problem, problems


@pytest.mark.parametrize("twentieth", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 20))])
@settings(max_examples=50)
@given(problems(4, 5))
def test_a_thousand_layers_solver_is_enumeration_is_replay(twentieth: int, problem: Problem) -> None:
    layer, machine = problem
    space = Space(layer.shape, machine)
    found, solved = best(space), minimum(space)
    assert found is not None
    assert solved.closed
    assert solved.bytes == solved.bound == found.bytes
    payload, _ = counted(program(layer, machine, found.schedule))
    assert sum(read + written for read, written in payload.values()) == found.bytes


LIMITS = (
    Limits(pin=False),
    Limits(move=False),
    Limits(keep=False),
    Limits(style="uniform"),
    Limits(dataflow="output-stationary"),
    Limits(dataflow="weight-stationary", buffers=(2, 2, 2)),
    Limits(order=("y", "k")),
    Limits(counts=(("k", 2),)),
    Limits(sizes=(("y", 2), ("c", 1))),
)


@settings(max_examples=50)
@given(problems(), st.sampled_from(LIMITS))
def test_they_agree_within_limits_too(problem: Problem, limits: Limits) -> None:
    space = Space(problem[0].shape, problem[1], limits)
    found, solved = best(space), minimum(space)
    assert solved.closed
    assert solved.bytes == (found.bytes if found else None)


@settings(max_examples=20)
@given(problems(4, 5))
def test_what_is_known_bounds_the_search_and_changes_no_answer(problem: Problem) -> None:
    space = Space(problem[0].shape, problem[1])
    alone = minimum(space)
    assert alone.bytes is not None
    assert alone == minimum(space), "one worker and a fixed seed give the same answer twice"
    told = minimum(space, alone.bytes)
    assert (told.bytes, told.bound, told.closed) == (alone.bytes, alone.bytes, True)
    assert told.structures[1] <= alone.structures[1]
    less = minimum(space, alone.bytes - 1)
    assert less.bytes is None
    assert less.closed


@settings(max_examples=20)
@given(problems())
def test_a_search_cut_short_still_bounds_the_optimum(problem: Problem) -> None:
    space = Space(problem[0].shape, problem[1])
    found, hasty = best(space), minimum(space, limit=0.0)
    assert found is not None
    assert hasty.bound <= found.bytes
    assert hasty.bytes is None or hasty.bytes >= found.bytes
