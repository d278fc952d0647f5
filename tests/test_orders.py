"""Orders of execution: every moment that can be come to is there, and no other; a better order is found and run."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.orders import MANY, Orders, mask_of, prefix
from dnnc.pipeline import compile, verify
from dnnc_runtime import machine
from graphs import Builder


@st.composite
def needs(draw: st.DrawFn, most: int = 5) -> tuple[int, ...]:
    """What every layer needs of those before it."""
    count = draw(st.integers(1, most))
    return tuple(draw(st.integers(0, prefix(layer))) for layer in range(count))


def executions(needs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All orders in which every layer comes after what it needs."""

    def may(order: tuple[int, ...]) -> bool:
        return all(not needs[layer] & ~mask_of(order[:turn]) for turn, layer in enumerate(order))

    return [order for order in permutations(range(len(needs))) if may(order)]


@given(needs())
def test_moments_are_those_of_all_executions(needs: tuple[int, ...]) -> None:
    every = {mask_of(order[:turn]) for order in executions(needs) for turn in range(len(order) + 1)}
    assert set(Orders(needs).moments) == every


@given(needs())
def test_every_execution_is_a_path_of_single_layers(needs: tuple[int, ...]) -> None:
    orders = Orders(needs)
    paths: list[tuple[tuple[int, ...], int]] = [((), 0)]
    for _ in needs:
        paths = [((*path, layer), after) for path, moment in paths for layer, after in orders.next(moment)]
    assert sorted(path for path, _ in paths) == executions(needs)
    assert {moment for _, moment in paths} == {len(orders.moments) - 1}


@given(needs(), st.integers(1, 6))
def test_groups_may_run_and_lead_where_they_say(needs: tuple[int, ...], longest: int) -> None:
    orders = Orders(needs)
    stages = [range(first, stop) for first, stop in orders.stages]
    assert [layer for stage in stages for layer in stage] == list(range(len(needs)))
    for moment, done in enumerate(orders.moments):
        groups = orders.groups(moment, longest)
        assert [len(layers) for layers, _ in groups] == sorted(len(layers) for layers, _ in groups)
        for layers, after in groups:
            assert 1 <= len(layers) <= longest
            assert orders.moments[after] == done | mask_of(layers)
            consecutive = layers == tuple(range(done.bit_count(), done.bit_count() + len(layers)))
            assert consecutive or any(set(layers) <= set(stage) for stage in stages)


@given(needs())
def test_stages_follow_each_other(needs: tuple[int, ...]) -> None:
    before: list[int] = []
    for direct in needs:
        before.append(direct)
        for layer in range(len(before) - 1):
            if direct >> layer & 1:
                before[-1] |= before[layer]
    stages = Orders(needs).stages
    for first, stop in stages:
        assert all(prefix(first) & ~before[layer] == 0 for layer in range(first, stop))
        # No stage could be two.
        for cut in range(first + 1, stop):
            assert any(prefix(cut) & ~before[layer] for layer in range(cut, stop))


def test_a_stage_with_too_many_moments_keeps_the_models_order() -> None:
    # Eight layers side by side have 2^8 moments, seven have 2^7; each time one layer gathers them.
    many, few = (Orders((*(0,) * count, prefix(count))) for count in (8, 7))
    assert many.moments == tuple(prefix(layers) for layers in range(10))
    assert len(few.moments) == MANY + 1


@pytest.mark.parametrize("plan", ["resident", "fused"])
@settings(max_examples=5)
@given(st.integers(0, 99))
def test_branches_one_after_the_other(plan: str, seed: int) -> None:
    """The model lists the large maps of both branches first; one branch after the other needs half the room.

    By hand, in words: x is 8 x 8 x 2 = 128. A branch is a 1x1 convolution to 8 planes, 512, and one to 2 planes, 128;
    so is the sum of both. With 896 words, x, one large map and one small one (768) fit, and both large maps do not.
    So in the branches' order everything stays: x, all kernels (16 + 16 a branch) and biases (8 + 2 a branch) are read
    once, and the sum is written: 128 + 2 (32 + 10) + 128 = 340 words.
    """
    net = Builder(1, 2, 8, seed)
    large = [net.conv(net.input, 8, 1) for _ in range(2)]
    small = [net.conv(x, 2, 1) for x in large]
    model = net.model(net.add(*small))
    target = machine.load("two-buffer").with_memory("maps", 2 * 896).with_memory("weights", 2 * 128)
    made = compile(model, target, plan=plan)  # type: ignore[arg-type]
    assert made.plan.totals.dram_bytes == 2 * 340
    network = made.plan.network
    assert network is not None
    assert network.bound == network.bytes
    executed = [position for segment in network.segments for position in segment.positions]
    if plan == "resident":
        assert executed in ([0, 2, 1, 3, 4], [1, 3, 0, 2, 4])
    image = np.random.default_rng(seed).standard_normal((1, 2, 8, 8)).astype(np.float32)
    assert verify(made, {"x": image}, "float32").agree
    assert verify(made, {"x": image}, "fixed").agree
