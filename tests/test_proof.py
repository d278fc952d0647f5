"""The solver, the enumeration and the runtime agree on the fewest bytes; none of them knows what the others found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.enumerate import best
from dnnc.layer import Layer
from dnnc.proof import minimum
from dnnc.space import Limits, Space
from dnnc_runtime.machine import Machine
from one_layer import counted, program
from strategies import layers, machines

BYTES = (24, 48, 96, 192, 400, 1000)
"""Sizes of memories that hold a tile, some tiles, or all of the layers drawn here."""


@pytest.mark.parametrize("twentieth", range(20))
@settings(max_examples=50)
@given(layers(4, 4), machines(BYTES))
def test_a_thousand_layers_solver_is_enumeration_is_replay(twentieth: int, layer: Layer, machine: Machine) -> None:
    space = Space(layer.shape, machine)
    found, solved = best(space), minimum(space)
    assert solved.closed
    if found is None:
        assert solved.bytes is None
        return
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


@settings(max_examples=60)
@given(layers(4, 5), machines(BYTES), st.sampled_from(LIMITS))
def test_they_agree_within_limits_too(layer: Layer, machine: Machine, limits: Limits) -> None:
    space = Space(layer.shape, machine, limits)
    found, solved = best(space), minimum(space)
    assert solved.closed
    assert solved.bytes == (found.bytes if found else None)


@settings(max_examples=20)
@given(layers(4, 5), machines(BYTES))
def test_what_is_known_bounds_the_search_and_changes_no_answer(layer: Layer, machine: Machine) -> None:
    space = Space(layer.shape, machine)
    alone = minimum(space)
    assert alone == minimum(space), "one worker and a fixed seed give the same answer twice"
    if alone.bytes is not None:
        told = minimum(space, alone.bytes)
        assert (told.bytes, told.bound, told.closed) == (alone.bytes, alone.bytes, True)
        assert told.structures[1] <= alone.structures[1]
        less = minimum(space, alone.bytes - 1)
        assert less.bytes is None
        assert less.closed


@settings(max_examples=20)
@given(layers(5, 6), machines(BYTES))
def test_a_search_cut_short_still_bounds_the_optimum(layer: Layer, machine: Machine) -> None:
    space = Space(layer.shape, machine)
    found = best(space)
    hasty = minimum(space, limit=0.0)
    if found is not None:
        assert hasty.bound <= found.bytes
        assert hasty.bytes is None or hasty.bytes >= found.bytes
