"""Groups cut into blocks of columns: nothing is loaded or computed twice, and what is predicted is what happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dnnc
from dnnc import cuts
from dnnc.agreement import agree
from dnnc.axis import touched_by_any
from dnnc.chip import Chip
from dnnc.columns import halo, in_blocks
from dnnc.emit import emit
from dnnc.grouping import Grouping, grouped
from dnnc.layer import HostLayer
from dnnc.lives import lives
from dnnc.peaks import Peaks
from dnnc.pipeline import Compilation, compile, verify
from dnnc.realize import Realized, realize
from dnnc.replay import moved_bytes
from dnnc.segments import Alone, Best, Network, Segment, Strips
from dnnc.steps import Steps, steps_of
from dnnc.strip_run import run
from dnnc.strips import walk
from dnnc.together import alone_of, with_network
from dnnc_runtime import machine
from dnnc_runtime.errors import CapacityFault
from dnnc_runtime.machine import Machine
from graphs import Builder, Value, networks

pytestmark = pytest.mark.slow

SLOW = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
MACHINES = ("two-buffer", "snowflake")


def roomy(name: str) -> Machine:
    """A machine on which every group of a small network fits, and that keeps some kernels."""
    return machine.load(name).with_memory("maps", 32768).with_memory("weights", 2048)


def compiled(model: onnx.ModelProto, target: Machine) -> Compilation:
    """A compilation; where a layer does not fit at all, there is nothing to see."""
    try:
        return compile(model, target)
    except CapacityFault:
        assume(False)
        raise


def wide(made: Builder, out: Value, rows: int, columns: int) -> onnx.ModelProto:
    """The network for images that are not square."""
    model = made.model(out)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = rows, columns
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def by_hand(made: Compilation, segments: Sequence[Segment]) -> tuple[Compilation, Realized]:
    """A compilation as it is if its layers run in these segments; counted bytes are compared with those predicted."""
    steps, chip, alone = steps_of(made.lowered), Chip(made.machine), alone_of(made.plan)
    moved = moved_bytes(segments, steps, chip, alone)
    found = realize(steps, chip, segments, alone)
    assert isinstance(found, Realized)
    apart = replace(
        made.plan,
        network=None,
        layers=tuple(replace(layer, figures=layer.by_itself, alone=None, strips=0) for layer in made.plan.on_array),
    )
    plan = with_network(apart, Network("fused", tuple(segments), {"fused": Best(moved, moved)}), found)
    assert plan.totals.dram_bytes == moved
    program = emit(made.lowered, dict(plan.schedules), made.machine, found)
    return replace(made, plan=plan, program=program, counted=agree(plan, program)), found


def last(steps: Steps, stop: int) -> tuple[int, int]:
    """Rows and columns of what the last step before a position computes."""
    shape = steps.steps[steps.at[stop - 1][-1]].layer.shape
    return shape.y.out, shape.x.out


@st.composite
def bounds(draw: st.DrawFn, size: int, least: int = 0) -> tuple[int, ...]:
    """An axis cut somehow, at so many points at least."""
    points = draw(st.sets(st.integers(1, size - 1), min_size=least, max_size=5)) if size > 1 else set[int]()
    return (*sorted(points), size)


@st.composite
def plans(draw: st.DrawFn, steps: Steps, chip: Chip) -> list[Segment]:
    """Groups in blocks of columns, and layers by themselves."""
    found: list[Segment] = []
    first = 0
    while first < len(steps.at):
        stop = draw(st.integers(first + 1, len(steps.at)))
        while stop > first and grouped(steps, chip, tuple(range(first, stop))) is None:
            stop -= 1
        rows, columns = last(steps, stop) if stop > first else (1, 1)
        if columns == 1:
            found.append(Alone(first))
            first += 1
            continue
        found.append(Strips(tuple(range(first, stop)), draw(bounds(rows)), (), (), draw(bounds(columns, 1))))
        first = stop
    return found


def groups(steps: Steps, chip: Chip, segments: Sequence[Segment]) -> Iterator[tuple[Grouping, Strips]]:
    """The groups of a plan, cut."""
    for segment in segments:
        if isinstance(segment, Strips):
            made = grouped(steps, chip, segment.positions, segment.columns)
            assert made is not None
            yield made, segment


def numbers_agree(made: Compilation, model: onnx.ModelProto) -> None:
    """The program computes the model."""
    random = np.random.default_rng(0)
    inputs = {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }
    assert verify(made, inputs, "float32").agree
    assert verify(made, inputs, "fixed").agree


@SLOW
@given(networks(), st.sampled_from(MACHINES), st.data())
def test_any_blocks_and_strips(model: onnx.ModelProto, name: str, data: st.DataObject) -> None:
    made = compiled(model, roomy(name))
    steps, chip = steps_of(made.lowered), Chip(made.machine)
    segments = data.draw(plans(steps, chip))
    found, _ = by_hand(made, segments)
    numbers_agree(found, model)
    # Every column that somebody reads is loaded once, whatever the blocks.
    word = made.machine.word_bytes
    for grouping, segment in groups(steps, chip, segments):
        whole = grouped(steps, chip, segment.positions)
        assert whole is not None
        needed = walk(whole.group, segment.bounds).needed
        once = sum(
            needed[whole.local[m]].bit_count()
            * touched_by_any(whole.columns[m]).bit_count()
            * steps.maps[m].channels
            * word
            for m in whole.entering
        )
        layers = [found.plan.layers[position] for position in segment.positions]
        traffic = [layer.traffic for layer in layers if not isinstance(layer, HostLayer)]
        assert sum(moved[role][0] for moved in traffic for role in ("input", "residual", "other")) == once
        assert not set(grouping.entering) - set(whole.entering)


@SLOW
@given(networks(), st.sampled_from(MACHINES), st.data())
def test_the_memory_is_as_full_as_predicted(model: onnx.ModelProto, name: str, data: st.DataObject) -> None:
    made = compiled(model, roomy(name))
    steps, chip, alone = steps_of(made.lowered), Chip(made.machine), alone_of(made.plan)
    segments = data.draw(plans(steps, chip))
    found = lives(steps, chip, segments, alone)
    held = np.zeros((chip.units, len(found.scenes) + 1), np.int64)
    for plot in found.plots:
        held[plot.unit, plot.start] += plot.words
        held[plot.unit, plot.end + 1] -= plot.words
    words = np.cumsum(held, axis=1).max(axis=0)
    for number, segment in enumerate(segments):
        if isinstance(segment, Strips):
            made_group = found.groups[number]
            assert made_group is not None
            way = walk(made_group.group, segment.bounds)
            predicted = run(way, {}, {})
            at = found.begins(number)
            taken = words[at : at + len(found.of_segment(number))].max()
            assert predicted.peak == taken * made.machine.word_bytes
            # What is known before all of it is gone through is no more than that.
            assert run(replace(way, blocks=2), {}, {}).peak <= predicted.peak
            assert halo(made_group.group) <= predicted.peak * chip.units
            if chip.units == 1:
                closed = Peaks(way).run({}, {})
                assert (closed.peak, closed.loaded) == (predicted.peak, predicted.loaded)


@SLOW
@given(networks(), st.sampled_from(MACHINES), st.data())
def test_pieces_are_all_columns_once(model: onnx.ModelProto, name: str, data: st.DataObject) -> None:
    made = compiled(model, roomy(name))
    steps, chip = steps_of(made.lowered), Chip(made.machine)
    for grouping, segment in groups(steps, chip, data.draw(plans(steps, chip))):
        whole, cut = grouped(steps, chip, segment.positions), grouping.group
        assert whole is not None
        assert in_blocks(whole.group, segment.columns) == cut
        seen: dict[int, int] = {}
        for m, columns in zip(cut.of, cut.columns, strict=True):
            assert not seen.get(m, 0) & columns
            seen[m] = seen.get(m, 0) | columns
        for m, columns in seen.items():
            made_in_group = m in whole.group.computed
            touched = touched_by_any(whole.columns[whole.maps[m]]) if not made_in_group else whole.group.columns[m]
            assert columns == touched
        spans: dict[int, list[tuple[int, int]]] = {}
        for part in cut.parts:
            spans.setdefault(part.step, []).append(part.columns)
        for some in spans.values():
            assert all(one[1] == two[0] for one, two in pairwise(some))


def chain(kind: str) -> tuple[Builder, Value]:
    """Networks of all that a group may consist of."""
    made = Builder(2 if kind == "images" else 1, 3, 0, 7)
    x = made.conv(made.input, 8, 3)
    if kind == "strided":
        x = made.conv(made.conv(x, 8, 3, stride=2), 4, 1, stride=2)
    elif kind == "pools":
        x = made.pool(made.conv(made.pool(x, "MaxPool"), 8, 3), "AveragePool")
    elif kind == "residual":
        x = made.add(made.conv(made.conv(x, 4, 1), 8, 3, relu=False), x)
    elif kind == "concatenation":
        x = made.concat(made.conv(x, 4, 3), made.conv(x, 4, 1))
    elif kind == "dilated":
        weights = made.constant(4, 8, 3, 3)
        out = made.node("Conv", [x[0], weights], kernel_shape=[3, 3], dilations=[2, 3], pads=[2, 3, 2, 3])
        x = (out, 4, x[2])
    elif kind == "depthwise":
        x = made.conv(x, 8, 3, group=8)
    return made, made.conv(x, 4, 3)


KINDS = ("images", "strided", "pools", "residual", "concatenation", "dilated", "depthwise")


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer(kind: str, name: str) -> None:
    model = wide(*chain(kind), 9, 21)
    made = compile(model, roomy(name))
    steps, chip = steps_of(made.lowered), Chip(made.machine)
    stop = len(steps.at)
    assert grouped(steps, chip, tuple(range(stop))) is not None
    rows, columns = last(steps, stop)
    cut = Strips(tuple(range(stop)), (1, rows), (), (), (1, columns // 2, columns))
    found, _ = by_hand(made, [cut])
    numbers_agree(found, model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_finds_blocks(kind: str) -> None:
    """Six rows of 48 columns: too wide for strips, and the search cuts columns."""
    model = wide(*chain(kind), 6, 48)
    target = machine.load("two-buffer").with_memory("maps", 2048).with_memory("weights", 8192)
    made = compile(model, target)
    assert made.plan.network is not None
    assert any(isinstance(s, Strips) and s.columns for s in made.plan.network.segments)
    numbers_agree(made, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "BLOCKS", ())
        by_rows = compile(model, target)
    assert made.plan.totals.dram_bytes < by_rows.plan.totals.dram_bytes


def test_by_hand_where_rows_do_not_fit() -> None:
    """Two 3x3 convolutions of 4 to 8 to 4 channels over 6 rows of 40 columns, in 1,536 B of maps.

    A row of the input is 40 x 4 x 2 = 320 B, one of the map between them 640 B. In strips of one row the first layer
    reads 3 rows while the second still needs 2 rows beside the new one: 3 x 320 + 3 x 640 = 2,880 B do not fit.

    In blocks of columns the halo is 2 columns of 6 rows, of both maps: 12 x (8 + 16) = 288 B. All is moved once: 240
    pixels of 4 channels in and out, 4 x 8 x 9 words of kernels each, and 8 + 4 biases: 960 + 960 + 576 + 12 words.
    """
    made = Builder(1, 4, 0, 0)
    model = wide(made, made.conv(made.conv(made.input, 8, 3), 4, 3), 6, 40)
    target = machine.load("two-buffer").with_memory("maps", 1536).with_memory("weights", 8192)
    found = compile(model, target)
    assert found.plan.totals.dram_bytes == 2 * (960 + 960 + 576 + 12)
    assert found.plan.network is not None
    assert found.plan.network.bound == found.plan.totals.dram_bytes
    (segment,) = found.plan.network.segments
    assert isinstance(segment, Strips)
    assert segment.columns
    made_group = grouped(steps_of(found.lowered), Chip(target), (0, 1), segment.columns)
    assert made_group is not None
    assert halo(made_group.group) == 288
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "BLOCKS", ())
        # The map between the layers, of 240 pixels of 8 channels, is written and read.
        assert compile(model, target).plan.totals.dram_bytes >= 2 * (960 + 960 + 576 + 12 + 2 * 240 * 8)
    numbers_agree(found, model)


@SLOW
@given(networks(largest=12), st.sampled_from(MACHINES), st.sampled_from([256, 512, 1024, 2048]))
def test_columns_never_cost_bytes(model: onnx.ModelProto, name: str, maps: int) -> None:
    target = machine.load(name).with_memory("maps", maps).with_memory("weights", 1024)
    made = compiled(model, target)
    numbers_agree(made, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "BLOCKS", ())
        by_rows = compile(model, target)
    assert made.plan.network is not None
    assert by_rows.plan.network is not None
    assert made.plan.network.bound <= by_rows.plan.network.bytes


def test_it_is_stored_and_shown(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("columns")
    model = wide(*chain("residual"), 6, 48)
    onnx.save(model, str(folder / "net.onnx"))
    target = machine.load("two-buffer").with_memory("maps", 2048).with_memory("weights", 8192)
    made = dnnc.compile(folder / "net.onnx", target)
    made.save(folder / "net.dnnc")
    assert dnnc.load(folder / "net.dnnc").plan == made.plan
