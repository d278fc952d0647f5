"""Layers under their own loop nests with operands on chip: bytes, numbers, and laws of such nests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dnnc import artifact
from dnnc.agreement import agree
from dnnc.chip import Chip
from dnnc.emit import emit
from dnnc.enumerate import best, structures
from dnnc.layer import Layer, Shape
from dnnc.length import tiles
from dnnc.nests import Bounded, Nests, Roles, fewest, maps_on_chip, nested, operands, output_of
from dnnc.network_records import network_record, restore_network
from dnnc.pipeline import Compilation, compile, verify
from dnnc.realize import Realized, realize
from dnnc.report import layers_grid
from dnnc.residency import Residency
from dnnc.search import figures
from dnnc.segments import Alone, Best, Network, Scope, Segment, Strips
from dnnc.singles import Single, Singles
from dnnc.space import Space
from dnnc.steps import Steps, steps_of
from dnnc.together import Together, alone_of, with_network
from dnnc_runtime import machine
from dnnc_runtime.errors import CapacityFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Compute, Role
from dnnc_runtime.timeline import timeline
from graphs import Builder, networks
from strategies import fitted, layers, machines, schedules

pytestmark = pytest.mark.slow

SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Planned:
    """A network planned layer by layer, to be planned otherwise."""

    made: Compilation

    @cached_property
    def steps(self) -> Steps:
        """Its layers as steps."""
        return steps_of(self.made.lowered)

    @cached_property
    def chip(self) -> Chip:
        """Its machine."""
        return Chip(self.made.machine)

    @cached_property
    def nests(self) -> Nests:
        """The schedules of its layers with operands on chip."""
        return Nests(self.steps, self.chip)

    def block(self, m: int) -> int:
        """Lines of a map that a unit has."""
        return -(-self.steps.maps[m].lines // self.chip.units)

    def rows(self, maps: set[int]) -> int:
        """Bytes of the rows of some maps in one unit."""
        return sum(self.block(m) * self.steps.maps[m].words for m in maps) * self.chip.machine.word_bytes

    def lines(self, maps: set[int]) -> tuple[tuple[int, int], ...]:
        """All lines of some maps."""
        return tuple((m, self.block(m)) for m in sorted(maps))

    def segment(self, position: int, held: set[int], leaves: bool) -> Alone | None:
        """A layer that runs with maps on chip, and leaves its own there or not; None if there is no room."""
        after = {m for m in held if self.steps.wanted(m, position + 1)}
        after |= {output_of(self.steps, position)} if leaves else set[int]()
        room = self.chip.bytes - self.rows(held | after)
        return self.nests.segment(position, self.lines(held), self.lines(after), room)

    def realized(self, segments: list[Segment]) -> Realized | None:
        """A plan made concrete, if everything has a place."""
        found = realize(self.steps, self.chip, segments, alone_of(self.made.plan))
        return found if isinstance(found, Realized) else None

    def compiled(self, found: Realized) -> Compilation:
        """The whole plan, for which the bytes of the walked program are compared with those predicted."""
        moved = self.made.plan.totals.dram_bytes
        plan = with_network(self.made.plan, Network("fused", found.segments, {"fused": Best(moved, moved)}), found)
        program = emit(self.made.lowered, plan.schedules, plan.machine, found)
        return replace(self.made, plan=plan, program=program, counted=agree(plan, program))


def planned(model: onnx.ModelProto, target: Machine) -> Planned:
    """A network, planned layer by layer."""
    try:
        return Planned(compile(model, target, plan="layerwise"))
    except CapacityFault:
        assume(False)
        raise


@st.composite
def targets(draw: st.DrawFn) -> Machine:
    """A machine with little memory: of one unit, or of four that share rows."""
    made = machine.load(draw(st.sampled_from(["two-buffer", "two-buffer", "snowflake"])))
    maps, weights = draw(st.sampled_from([512, 1024, 2048, 8192])), draw(st.sampled_from([256, 1024, 8192]))
    fuses = made.fuses | draw(st.sampled_from([set[str](), {"max_pool", "average_pool"}]))
    return replace(made, fuses=fuses).with_memory("maps", maps).with_memory("weights", weights)


def segments(random: Random, of: Planned) -> Iterator[Segment]:
    """A plan: by chance maps are on chip while a layer runs, and it leaves its own there."""
    held: set[int] = set()
    for position in range(len(of.steps.at)):
        may = operands(of.steps, of.chip, position)
        held = {m for m in held if of.steps.wanted(m, position) and random.randrange(8)}
        mine = {m for role, maps in may.items() if role != "output" for m in maps}
        if not may or (not mine & held and not random.randrange(3)):
            yield Alone(position)
            continue
        out = may.get("output", ())
        leaves = bool(out) and bool(of.steps.wanted(out[0], position + 1)) and bool(random.randrange(4))
        found = of.segment(position, held, leaves) or of.segment(position, held, False) or Alone(position)
        held = {m for m, _ in found.leaving}
        yield found


def feeds(model: onnx.ModelProto, seed: int) -> dict[str, NDArray[np.float64]]:
    """Random inputs of a model."""
    random = np.random.default_rng(seed)
    return {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }


@SLOW
@given(networks(), targets(), st.randoms(use_true_random=False))
def test_counted_bytes_and_numbers(model: onnx.ModelProto, target: Machine, random: Random) -> None:
    of = planned(model, target)
    found = of.realized(list(segments(random, of)))
    assume(found is not None)
    assert found is not None
    made = of.compiled(found)
    assert timeline(made.program).cycles > 0
    inputs = feeds(model, 0)
    assert verify(made, inputs, "float32").agree
    assert verify(made, inputs, "fixed").agree
    own, moved = (plan.totals.dram_bytes for plan in (of.made.plan, made.plan))
    bound = min(own, moved)
    best: dict[Scope, Best] = {"layerwise": Best(own, own), "resident": Best(own, bound), "fused": Best(moved, bound)}
    network = Network("fused", found.segments, best)
    assert restore_network(network_record(network), of.steps, of.chip, alone_of(of.made.plan)) == network


# -- laws ------------------------------------------------------------------------------------------------------------


@st.composite
def on_chip(draw: st.DrawFn, shape: Shape) -> Shape:
    """A shape with some of its operands on chip."""
    roles = list[Role](["input", "output"])
    roles += ["residual"] if shape.residual else []
    roles += ["second"] if shape.second and all(shape.second) else []
    return replace(shape, on_chip=tuple(sorted(draw(st.sets(st.sampled_from(roles))))))


def one_unit(target: Machine) -> Machine:
    """A machine with one unit at its outermost level."""
    return replace(target, levels=(replace(target.levels[0], count=1), *target.levels[1:]))


@settings(max_examples=100, deadline=None)
@given(layers(6, 6), machines(), st.data())
def test_no_legal_schedule_beats_the_fewest(layer: Layer, target: Machine, data: st.DataObject) -> None:
    target = one_unit(target)
    assume(not Chip(target).why)
    shape = data.draw(on_chip(layer.shape))
    schedule = replace(data.draw(schedules(shape, target)), move=False)
    assume(not schedule.pin or schedule.pin.operand not in shape.on_chip)
    target = fitted(shape, target, schedule)
    granules = next(d for d in Space(shape, target).deals if d.mode == schedule.mode).granules(shape, target)
    sizes = (
        (schedule.k, shape.k, granules["k"]),
        (schedule.c, shape.c, granules["c"]),
        (schedule.g, shape.g, granules["g"]),
    )
    assume(all(size == whole or size % granule == 0 for size, whole, granule in sizes))
    assume(schedule.y.style == schedule.x.style == "footprint")
    memory = target.memory_of("output")
    space = Space(shape, target)
    found = fewest(space, memory.name)
    assert found is not None
    assert found.bytes <= figures(shape, target, schedule).dram_bytes
    made = figures(shape, target, found.schedule)
    assert (made.dram_bytes, made.memory[memory.name]) == (found.bytes, found.used)
    assert all(made.memory[m.name] <= m.bytes for m in target.memories)
    other = best(space)
    assert other is None or other.bytes == found.bytes
    # The structures that are left out would not have been better.
    every = [
        Bounded(0, *one) for follow in (False, True) for deal in space.deals for one in structures(space, deal, follow)
    ]
    plain = fewest(space, memory.name, every)
    assert plain is not None
    assert (plain.bytes, plain.used, plain.tiles) == (found.bytes, found.used, found.tiles)


@SLOW
@given(networks(), targets(), st.data())
def test_more_room_never_costs_bytes_and_what_is_known_is_right(
    model: onnx.ModelProto, target: Machine, data: st.DataObject
) -> None:
    of = planned(model, target)
    for position, own in enumerate(of.made.plan.on_array):
        if of.chip.units == 1:
            plain = of.nests.best(position, (), of.chip.bytes)
            assert plain is not None
            assert plain.bytes == own.figures.dram_bytes
        may = operands(of.steps, of.chip, position)
        some: list[Role] = [role for role in may if data.draw(st.booleans())]
        roles = tuple(sorted(some))
        rooms = sorted(data.draw(st.lists(st.integers(0, of.chip.bytes), min_size=3, max_size=3)), reverse=True)
        before = 0
        for room in rooms:
            found, fresh = of.nests.best(position, roles, room), Nests(of.steps, of.chip).best(position, roles, room)
            assert (found and (found.bytes, found.used)) == (fresh and (fresh.bytes, fresh.used))
            if found is None:
                break
            assert found.used <= room
            assert found.bytes >= before
            before = found.bytes


@SLOW
@given(networks(), st.sampled_from([512, 1024, 2048]))
def test_what_is_searched_is_what_runs(model: onnx.ModelProto, maps: int) -> None:
    """A layer's segment says by what enters and leaves which operands it was searched with."""
    target = machine.load("two-buffer").with_memory("maps", maps).with_memory("weights", 2048)
    try:
        alone = compile(model, target, plan="layerwise")
    except CapacityFault:
        assume(False)
        raise
    chip, together = Chip(target), Together(alone.lowered, alone.plan)
    seen: list[Roles] = []
    with pytest.MonkeyPatch.context() as patch:
        nest = Singles._nest  # pyright: ignore[reportPrivateUsage]

        def spied(of: Singles, *given: Any) -> Single | None:
            made = nest(of, *given)
            if made is not None:
                assert tuple(sorted(maps_on_chip(together.steps, chip, made.segment))) == given[5]
                seen.append(given[5])
            return made

        patch.setattr(Singles, "_nest", spied)
        together.fewest("resident")
    event(f"{min(len(seen), 3)} segments")


def test_rows_that_a_stride_passes_over_take_no_room_behind_a_nest(tmp_path: Path) -> None:
    """The shortcut reads every other row of the first map, which is all that has room beside the branch."""
    made = Builder(2, 5, 6, 0)
    x = made.conv(made.input, 4, 3)
    inside = made.conv(made.conv(x, 6, 3, 2), 12, 1, relu=False)
    model = made.model(made.conv(made.add(inside, made.conv(x, 12, 1, 2, relu=False)), 1, 1))
    onnx.save(model, str(tmp_path / "net.onnx"))
    target = machine.load("two-buffer").with_memory("maps", 1024).with_memory("weights", 256)
    found = compile(tmp_path / "net.onnx", target)
    assert found.plan.network is not None
    assert found.plan.network.best["fused"].bytes == found.plan.network.bound
    found.save(tmp_path / "net.dnnc")
    assert artifact.load(tmp_path / "net.dnnc").plan == found.plan


# -- programs --------------------------------------------------------------------------------------------------------


@SLOW
@given(networks(), st.data(), st.randoms(use_true_random=False))
def test_any_schedule_is_emitted_right(model: onnx.ModelProto, data: st.DataObject, random: Random) -> None:
    """Whatever the order, the cuts, the buffers and the pins: with sums that leave the chip, too, and torn rows."""
    target = one_unit(replace(machine.load("two-buffer"), fuses=machine.load("snowflake").fuses))
    of = planned(model, target.with_memory("maps", 1 << 15).with_memory("weights", 1 << 15))
    every: list[Segment] = []
    for segment in segments(random, of):
        if isinstance(segment, Alone) and segment.schedule is not None:
            shape = nested(of.steps, of.chip, segment).layer.shape
            drawn = data.draw(schedules(shape, of.chip.machine))
            if drawn.pin and drawn.pin.operand == "input":
                drawn = replace(drawn, pin=None)
            segment = segment._replace(schedule=drawn)
        every.append(segment)
    found = of.realized(every)
    assume(found is not None)
    assert found is not None
    for plot in found.lives.plots:
        atoms = plot.words // plot.atom
        if len(plot.chunks) == 1 and atoms > 1 and random.randrange(2):
            at, left = plot.chunks[0][2], random.randrange(1, atoms) * plot.atom
            plot.chunks = (0, left, at + plot.words - left), (left, plot.words - left, at)
    assert verify(of.compiled(found), feeds(model, 1), "fixed").agree


def stage(channels: int = 32, inner: int = 8) -> onnx.ModelProto:
    """Of five rows: 1x1, 3x3, and 1x1 with the input as a residual."""
    made = Builder(1, channels, 5, 0)
    x = made.conv(made.conv(made.input, inner, 1), inner, 3)
    return made.model(made.add(made.conv(x, channels, 1, relu=False), made.input))


STAGE_WORDS = (800 + 256 + 8) + (576 + 8) + (256 + 32 + 800 + 800)
"""Input, kernels and biases once, the input once more as a residual, the output: nothing between the layers."""


def test_what_fits_in_no_strips_stays_on_chip_beside_nests() -> None:
    """By hand: neither the input, of 1,600 bytes, nor the kernels of 512 fit; sums of all outputs, of 8 planes of 25
    pixels, are on chip meanwhile: 400 bytes in the rows, 400 beside them. Maps in between stay, of 400 bytes each."""
    target = machine.load("two-buffer").with_memory("maps", 900).with_memory("weights", 400)
    of = planned(stage(), target)
    first, second, third = (output_of(of.steps, i) for i in range(3))
    every = [of.segment(0, set(), True), of.segment(1, {first}, True), of.segment(2, {second}, False)]
    found = of.realized([segment for segment in every if segment is not None])
    assert found is not None
    made = of.compiled(found)
    assert made.plan.totals.dram_bytes == 2 * STAGE_WORDS < of.made.plan.totals.dram_bytes
    assert found.stored[first] == found.stored[second] == 0 != found.stored[third]
    assert verify(made, feeds(stage(), 2), "fixed").agree
    of_plan = Residency(made.plan, found)
    assert [(kept.bytes, kept.rows) for kept in of_plan.kept] == [(400, 5), (400, 5)]
    assert [stored.rows for stored in of_plan.stored] == [5]
    (maps,) = (fullest for fullest in of_plan.fullest if fullest.memory.name == "maps")
    assert maps.used == max(found.used) == sum(holder.bytes for holder in maps.holders) <= 900
    grid = layers_grid(made.plan, made.timing, found)
    shown = [dict(zip(grid.headings, row, strict=True)) for row in grid.rows]
    assert [row["proof"] for row in shown] == ["-"] * 3
    assert shown[0]["loops"].startswith("c:")
    sections = made.program.sections
    assert tiles(made.plan, found) == {s.name: sum(isinstance(i, Compute) for i in s.instructions) for s in sections}


@pytest.mark.parametrize("target", ["two-buffer", "snowflake"])
def test_nests_and_strips_hand_rows_to_each_other(target: str) -> None:
    of = planned(stage(), machine.load(target))
    first, second = (output_of(of.steps, i) for i in range(2))
    for middle in (0, 1, 2):
        rows = [
            Strips((i,), (2, 5), of.lines(before), of.lines(after))
            for i, (before, after) in enumerate(((set[int](), {first}), ({first}, {second}), ({second}, set[int]())))
        ]
        every: list[Segment] = [*rows]
        nest = of.segment(middle, {m for m, _ in rows[middle].entering}, middle < 2)
        assert nest is not None
        every[middle] = nest
        found = of.realized(every)
        assert found is not None
        made = of.compiled(found)
        assert verify(made, feeds(stage(), 3), "float32").agree
        if target == "two-buffer":
            assert made.plan.totals.dram_bytes == 2 * STAGE_WORDS


def test_what_somebody_reads_from_dram_is_stored_and_kept() -> None:
    """The first layer's map is read on chip by the second, and from DRAM by the third, which has no operand on chip."""
    made = Builder(1, 4, 5, 0)
    x = made.conv(made.input, 4, 1)
    y = made.conv(x, 4, 3)
    of = planned(made.model(made.add(y, x)), machine.load("two-buffer"))
    first = output_of(of.steps, 0)
    one, two = of.segment(0, set(), True), of.segment(1, {first}, False)
    assert one is not None
    assert two is not None
    two = two._replace(leaving=())
    found = of.realized([one, two, *(Alone(i) for i in range(2, len(of.steps.at)))])
    assert found is not None
    whole = of.compiled(found)
    layer = whole.plan.on_array[0]
    assert layer.traffic["output"] == (0, 2 * 4 * 25)
    assert whole.plan.on_array[1].traffic["input"] == (0, 0)
    assert verify(whole, feeds(made.model(made.add(y, x)), 4), "fixed").agree


def test_linear_layers_hand_each_other_their_outputs() -> None:
    random = np.random.default_rng(0)
    shapes = {"a": (6, 8), "b": (6,), "c": (3, 6), "d": (3,)}
    constants = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["y"], "one", transB=1),
        helper.make_node("Gemm", ["y", "c", "d"], ["z"], "two", transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, n]) for name, n in (("x", 8), ("z", 3))]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    of = planned(model, machine.load("two-buffer").with_memory("maps", 128).with_memory("weights", 64))
    one, two = of.segment(0, set(), True), of.segment(1, {output_of(of.steps, 0)}, False)
    assert one is not None
    assert two is not None
    found = of.realized([one, two])
    assert found is not None
    made = of.compiled(found)
    assert made.plan.totals.dram_bytes == 2 * (4 * 8 + 6 * 8 + 6 + 3 * 6 + 3 + 4 * 3)
    assert verify(made, feeds(model, 5), "fixed").agree
