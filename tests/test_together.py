"""Layers planned together: what is predicted is counted, the numbers are right, and the laws of such plans hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dnnc.agreement import agree
from dnnc.chip import Chip
from dnnc.cuts import Cuts, Meter
from dnnc.emit import emit
from dnnc.grouping import grouped
from dnnc.network_records import network_record, restore_network
from dnnc.pipeline import Compilation, compile, verify
from dnnc.price import Price
from dnnc.realize import Realized, realize
from dnnc.search import Goal, Objective
from dnnc.segments import Best, Scope, Strips
from dnnc.steps import steps_of
from dnnc.together import PRICES, Together, alone_of
from dnnc_runtime import machine
from dnnc_runtime.errors import CapacityFault, DisagreementFault
from dnnc_runtime.machine import Machine
from graphs import Builder, networks

SCOPES: tuple[Scope, ...] = ("layerwise", "resident", "fused")
SLOW = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
FEW = settings(SLOW, max_examples=8)


@st.composite
def targets(draw: st.DrawFn) -> Machine:
    """A machine with little memory: of one unit, or of four that share rows."""
    name = draw(st.sampled_from(["two-buffer", "snowflake"]))
    maps, weights = draw(st.sampled_from([256, 512, 1024, 2048, 8192])), draw(st.sampled_from([256, 1024, 8192]))
    return machine.load(name).with_memory("maps", maps).with_memory("weights", weights)


def compiled(
    model: onnx.ModelProto, target: Machine, plan: Scope, objective: Goal | Objective = "traffic"
) -> Compilation:  # fmt: skip
    """A compilation, for which the bytes of the walked program are compared with those predicted."""
    try:
        return compile(model, target, objective=objective, plan=plan)
    except CapacityFault:
        assume(False)
        raise


def read_back(made: Compilation) -> bool:
    """Whether the plan of all layers is what is read where it is stored."""
    network = made.plan.network
    if network is None:
        return True
    stored = network_record(network)
    return restore_network(stored, steps_of(made.lowered), Chip(made.machine), alone_of(made.plan)) == network


def realized(made: Compilation) -> Realized | None:
    """What stays on chip, in its place."""
    if made.plan.network is None:
        return None
    found = realize(steps_of(made.lowered), Chip(made.machine), made.plan.network.segments, alone_of(made.plan))
    assert isinstance(found, Realized)
    return found


@SLOW
@given(networks(), targets(), st.integers(0, 99))
def test_counted_bytes_and_numbers(model: onnx.ModelProto, target: Machine, seed: int) -> None:
    made = compiled(model, target, "fused")
    random = np.random.default_rng(seed)
    inputs = {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }
    assert verify(made, inputs, "float32").agree
    assert verify(made, inputs, "fixed").agree
    assert read_back(made)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("role", ["weights", "parameters"])
@FEW
@given(networks(), targets(), st.integers(0, 99))
def test_wherever_kernels_and_parameters_lie(
    role: str, apart: bool, model: onnx.ModelProto, target: Machine, seed: int
) -> None:  # fmt: skip
    """In the memory for feature maps, or in one of their own."""
    third = replace(target.memory("weights"), name="third")
    roles = {**dict(target.roles), role: "third" if apart else "maps"}
    target = replace(target, memories=(*target.memories, third), roles=tuple(roles.items()))
    made = compiled(model, target, "fused")
    random = np.random.default_rng(seed)
    inputs = {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }
    assert verify(made, inputs, "fixed").agree
    assert read_back(made)


@pytest.mark.parametrize(("target", "maps", "weights"), [("two-buffer", 384, 112), ("snowflake", 384, 64)])
def test_tiles_of_shared_kernels_are_not_handed_over(target: str, maps: int, weights: int) -> None:
    """A sum of two convolutions, one of which has the kernels of a layer before: handed over, it would need its own."""
    made = Builder(1, 2, 8, 0)
    same = made.kernels(16, 1, 1)
    x = made.conv(made.conv(made.conv(made.input, 1, 3), 16, 1, constants=same), 1, 1)
    both = made.conv(x, 16, 1, relu=False), made.conv(x, 16, 1, relu=False, constants=same)
    small = machine.load(target).with_memory("maps", maps).with_memory("weights", weights)
    found = compile(made.model(made.conv(made.add(*both), 1, 1)), small)
    assert found.plan.network is not None
    assert found.plan.network.bytes == found.plan.totals.dram_bytes


@SLOW
@given(networks(), targets())
def test_more_freedom_never_costs_bytes(model: onnx.ModelProto, target: Machine) -> None:
    moved = [compiled(model, target, scope).plan.totals.dram_bytes for scope in SCOPES]
    assert moved == sorted(moved, reverse=True)


@SLOW
@given(networks(), targets(), st.floats(0, 0.002))
def test_a_search_cut_short_moves_no_more_than_layer_by_layer(
    model: onnx.ModelProto, target: Machine, limit: float
) -> None:  # fmt: skip
    alone = compiled(model, target, "layerwise")
    short, made = Together(alone.lowered, alone.plan, time_limit=limit).fewest("fused")
    assert short.network is not None
    assert short.network.bound <= short.totals.dram_bytes <= alone.plan.totals.dram_bytes
    agree(short, emit(alone.lowered, dict(short.schedules), target, made))


@pytest.mark.parametrize("axis", [0, 2, 3])
@pytest.mark.parametrize("scope", SCOPES)
def test_layers_that_share_their_input_leave_it_to_each_other(axis: int, scope: Scope) -> None:
    """Two convolutions of one image, one behind the other in a tensor: neither moves less by strips than by itself, but
    the second does without the image if the first leaves it."""
    made = Builder(1, 4, 12, 0)
    parts = [made.conv(made.input, 4, 3, relu=False)[0] for _ in range(2)]
    whole = (made.node("Concat", parts, axis=axis), 4, 12)
    model = made.model(whole)
    for dim, size in zip(model.graph.output[0].type.tensor_type.shape.dim, (1, 4, 12, 12), strict=True):
        dim.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value *= 2
    found = compile(model, "two-buffer", plan=scope)
    # Words: two kernels of 4x4x3x3 with biases, the image for each or once, both outputs.
    words = 2 * (4 * 4 * 9 + 4) + (1 if scope != "layerwise" else 2) * 4 * 12 * 12 + 2 * 4 * 12 * 12
    assert found.plan.totals.dram_bytes == 2 * words
    image = np.random.default_rng(0).standard_normal((1, 4, 12, 12))
    assert verify(found, {"x": image}, "float32").agree


def test_a_search_cut_short_leaves_nothing_that_nobody_left() -> None:
    """A dense block on a machine with little memory, where layers are found to do as well by themselves."""
    made = Builder(1, 8, 8, 0)
    x = made.input
    for _ in range(5):
        x = made.concat(x, made.conv(made.norm(x), 8, 3))
    target = machine.load("two-buffer").with_memory("maps", 8192).with_memory("weights", 2048)
    alone = compile(made.model(x), target, plan="layerwise")
    for limit in (0.05, 0.2, 0.45, 0.7):
        plan, whole = Together(alone.lowered, alone.plan, time_limit=limit).fewest("fused")
        agree(plan, emit(alone.lowered, dict(plan.schedules), target, whole))


def test_a_plan_that_uses_what_nobody_left_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plan that is found is gone through again by other means."""
    made = Builder(1, 4, 8, 0)
    alone = compile(made.model(made.conv(made.conv(made.input, 4, 3), 4, 3)), "two-buffer", plan="layerwise")
    together = Together(alone.lowered, alone.plan)
    found, whole = together.fewest("resident")
    assert found.network is not None
    first, second = found.network.segments
    phantom = replace(found.network, segments=(first._replace(leaving=()), second))
    with pytest.raises(DisagreementFault, match="segment 1: 8 lines of map 1 are not on chip when it starts"):
        together.confirmed(phantom, realized_of(whole))
    best = Best(found.network.bytes + 1, found.network.bound)
    dearer: dict[Scope, Best] = {**found.network.best, "resident": best}
    with pytest.raises(DisagreementFault, match="is said to move"):
        together.confirmed(replace(found.network, best=dearer), realized_of(whole))


def realized_of(made: Realized | None) -> Realized:
    assert made is not None
    return made


@pytest.mark.parametrize("goal", ["latency", "balanced"])
def test_where_time_counts_the_fewest_bytes_are_told_too(goal: Goal) -> None:
    """Whichever plan is taken: of layers one after the other, each by itself may be the fastest."""
    made = Builder(1, 8, 14, 0)
    x = made.input
    for _ in range(4):
        x = made.conv(made.pool(x, "MaxPool"), 8, 3)
    taken, fewest = (compile(made.model(x), "snowflake", objective=of) for of in (goal, "traffic"))
    assert taken.plan.network is not None
    assert fewest.plan.network is not None
    assert taken.plan.network.scope == "fused"
    assert taken.plan.network.best["layerwise"] >= fewest.plan.network.best["layerwise"]
    assert taken.plan.network.bound == fewest.plan.network.bound
    assert taken.timing.cycles <= fewest.timing.cycles * (1.0 if goal == "latency" else 1.1)


@FEW
@given(networks(), targets())
def test_where_time_counts_no_plan_that_was_looked_at_is_faster(model: onnx.ModelProto, target: Machine) -> None:
    alone, fast = (compiled(model, target, plan, "latency") for plan in ("layerwise", "fused"))
    assert fast.timing.cycles <= alone.timing.cycles
    balanced = Objective("balanced", 20.0)
    alone_too, near = (compiled(model, target, plan, balanced) for plan in ("layerwise", "fused"))
    assert near.timing.cycles <= alone_too.timing.cycles * 1.2
    assert read_back(fast)
    assert read_back(near)
    # Every plan that was looked at is legal, whichever is taken.
    together = Together(alone.lowered, alone.plan)
    together.fewest("fused")
    for price in PRICES:
        priced = together.priced("fused", price)
        if priced is not None:
            plan, made = priced
            agree(plan, emit(alone.lowered, dict(plan.schedules), target, made))
            assert plan.network is not None
            assert plan.network.bound <= plan.network.bytes == plan.totals.dram_bytes


def test_who_interrupts_the_choice_gets_the_fewest_bytes() -> None:
    made = Builder(1, 8, 8, 0)
    alone = compile(made.model(made.conv(made.conv(made.input, 8, 3), 8, 3)), "snowflake", plan="layerwise")
    plan = replace(alone.plan, objective=Objective("latency"))
    together = Together(alone.lowered, plan)

    def timed(*_: object) -> float:
        raise KeyboardInterrupt

    found, _ = together.find("fused", timed)
    assert together.interrupted
    assert found == together.fewest("fused")[0]


@FEW
@given(networks(), targets())
def test_the_price_of_a_group_is_that_of_its_cycles(model: onnx.ModelProto, target: Machine) -> None:
    """At a byte for a cycle, and where layers by themselves took none."""
    made = compiled(model, target, "fused")
    steps, chip = steps_of(made.lowered), Chip(target)
    price = Price(chip, 1.0, (0,) * len(made.plan.layers))
    found = realized(made)
    for segment in made.plan.network.segments if made.plan.network and found else ():
        grouping = grouped(steps, chip, segment.positions) if isinstance(segment, Strips) else None
        if grouping is not None and found is not None and isinstance(segment, Strips) and not segment.columns:
            cuts = Cuts(grouping.group, Meter())
            computing = sum(found.figures()[position].compute_cycles for position in segment.positions)
            assert price.of_group(grouping, cuts)(cuts.strips.index(segment.bounds)) == computing


@SLOW
@given(networks(), targets())
def test_a_larger_memory_never_costs_bytes(model: onnx.ModelProto, target: Machine) -> None:
    small = compiled(model, target, "fused")
    more = target.with_memory("maps", 2 * target.memory("maps").bytes)
    large = compiled(model, more, "fused")
    assert small.plan.network is not None
    assert large.plan.network is not None
    assert large.plan.network.bound <= small.plan.network.bytes
    assert large.plan.totals.dram_bytes <= small.plan.totals.dram_bytes


@SLOW
@given(networks(), targets())
def test_no_two_rows_share_a_word(model: onnx.ModelProto, target: Machine) -> None:
    made = realized(compiled(model, target, "fused"))
    if made is None:
        return
    words = target.memory("maps").bytes // target.word_bytes
    for section, reserved in enumerate(made.lives.reserved):
        for unit in range(made.chip.units):
            taken = sorted(
                (at, at + count)
                for plot in made.lives.plots
                if plot.unit == unit and plot.start <= section <= plot.end
                for _, count, at in plot.chunks
            )
            bounds = [reserved, *(bound for span in taken for bound in span), words]
            assert all(a <= b for a, b in pairwise(bounds))


@SLOW
@given(networks(), targets())
def test_nothing_goes_below_the_floor(model: onnx.ModelProto, target: Machine) -> None:
    made = compiled(model, target, "fused")
    constants = {tensor.name: tensor.words for tensor in made.lowered.tensors if tensor.constant}
    used = {view.tensor for section in made.program.sections for _, view in section.views}
    # Constants once, and the outputs; of the input, strides may skip much.
    shapes = [value.shape for value in made.lowered.placements if value.name in made.lowered.outputs]
    words = sum(size for name, size in constants.items() if name in used) + sum(prod(shape) for shape in shapes)
    assert made.plan.totals.dram_bytes >= words * target.word_bytes


def test_what_stays_inside_a_layer_is_not_taken_for_read() -> None:
    """By hand: between a convolution and its fused pool more passes than everything else moves."""
    made = Builder(1, 4, 8, 0)
    found = compile(made.model(made.conv(made.pool(made.conv(made.input, 16, 1), "MaxPool"), 4, 1)), "snowflake")
    # Words: 4x8x8 of the image, 16x4 + 16 and 4x16 + 4 of weights and biases, 4x4x4 of the result.
    words = 256 + 80 + 68 + 64
    assert found.plan.network is not None
    assert found.plan.network.best["fused"] == Best(2 * words, 2 * words)


@pytest.mark.parametrize("target", ["two-buffer", "snowflake"])
def test_layers_with_the_same_kernels_load_them_once(target: str) -> None:
    """By hand: three 3x3 convolutions of 16 channels, one behind the other, with the same kernels and biases."""
    made = Builder(1, 16, 8, 0)
    same, x = made.kernels(16, 16, 3), made.input
    for _ in range(3):
        x = made.conv(x, 16, 3, constants=same)
    found = compile(made.model(x), target)
    # Words: 16x16x3x3 kernels and 16 biases, an input and an output of 16 channels of 8x8 pixels.
    words = 16 * 16 * 9 + 16 + 2 * 16 * 8 * 8
    assert found.plan.network is not None
    assert found.plan.network.best["fused"] == Best(2 * words, 2 * words)
    kernels = [layer.traffic["weights"] for layer in found.plan.on_array]
    assert kernels == [(2 * 16 * 16 * 9, 0), (0, 0), (0, 0)]
    image = np.random.default_rng(0).standard_normal((1, 16, 8, 8))
    assert [verify(found, {"x": image}, system).agree for system in ("float32", "fixed")] == [True, True]


def test_a_tensor_stays_over_a_residual_branch() -> None:
    """By hand: a 1x1 chain with a residual fits 8 KiB whole, so that weights, input and output are all that moves."""
    made = Builder(1, 8, 8, 0)
    x = made.conv(made.input, 8, 1)
    y = made.add(made.conv(made.conv(x, 4, 1), 8, 1, relu=False), x)
    target = machine.load("two-buffer").with_memory("maps", 8192).with_memory("weights", 8192)
    found = compile(made.model(y), target)
    # Words: 8x8 + 4x8 + 8x4 weights, 8 + 4 + 8 biases, an input and an output of 8 channels of 8x8 pixels.
    words = 64 + 32 + 32 + 20 + 2 * 8 * 8 * 8
    assert found.plan.totals.dram_bytes == 2 * words
    assert found.plan.status == "optimal"


@pytest.mark.parametrize("target", ["two-buffer", "snowflake"])
def test_layer_by_layer_is_what_it_was(target: str) -> None:
    made = Builder(1, 8, 8, 0)
    x = made.conv(made.conv(made.input, 8, 3), 8, 3)
    found = compile(made.model(x), target, plan="layerwise")
    assert found.plan.network is None
    assert all(not section.kept for section in found.program.sections)
