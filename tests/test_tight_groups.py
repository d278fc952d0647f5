"""Groups in which rows take less room: maps that do not wait for the next strip, that go tile by tile from one layer to
the next, or of which only some columns are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dnnc.chip import Chip
from dnnc.cuts import Cuts, Meter
from dnnc.emit import emit
from dnnc.grouping import Grouping, grouped, handable, spillable
from dnnc.pipeline import Compilation, compile, verify
from dnnc.realize import Realized, realize
from dnnc.segments import Alone, Network, Segment, Strips
from dnnc.steps import Steps, steps_of
from dnnc.strip_run import run
from dnnc.strips import walk as walk_of
from dnnc.together import alone_of, with_network
from dnnc_runtime import Counters, machine, walk
from dnnc_runtime.errors import CapacityFault
from dnnc_runtime.machine import Machine
from graphs import Builder, networks

RUN = 3
"""Plans of a network that are executed."""


def small(maps: int, weights: int) -> Machine:
    """A machine of one unit with so many bytes."""
    return machine.load("two-buffer").with_memory("maps", maps).with_memory("weights", weights)


def strips(made: Compilation) -> list[Strips]:
    """The groups of a plan."""
    assert made.plan.network is not None
    return [segment for segment in made.plan.network.segments if isinstance(segment, Strips)]


def test_a_shortcut_goes_tile_by_tile() -> None:
    """By hand: two convolutions of one image whose sum leaves. Handed over tile by tile, the first one's result needs
    no rows, so that one strip is enough and kernels come once; nothing but what has to move does. There is room for
    the image (512 B) and for a plane of each result (128 B), and for half of the kernels."""
    made = Builder(1, 4, 8, 0)
    first, second = (made.conv(made.input, 32, 1, relu=False) for _ in range(2))
    found = compile(made.model(made.add(first, second)), small(768, 320))
    # Words: 4x8x8 of the image, 2 x (32x4 + 32) of kernels and biases, 32x8x8 of the sum.
    words = 256 + 320 + 2048
    assert found.plan.totals.dram_bytes == 2 * words
    (group,) = strips(found)
    assert len(group.bounds) == 1
    assert len(group.handed) == 1
    # One section of the plan is many of the program, by turns.
    assert found.realized is not None
    (turns,) = found.realized.program_sections
    assert turns == range(len(found.program.sections))
    assert len(turns) > 2


def test_a_residual_goes_to_dram_and_comes_back_for_the_next_strip() -> None:
    """By hand: 1x1, 1x1, 3x3, 1x1 with a residual of 6 rows of 6x32 words, in strips of two rows. The 3x3 window takes
    a row more than its strip, so rows 3 and 5 of the residual (from 1) are computed a strip before they are added. Each
    is written and loaded instead of waiting.

    Rows of the residual have 384 B, those of the others 192 B. If they wait, the fullest moment is that of the 3x3
    convolution in the second strip: rows 3 to 5 of the residual, 2 to 5 of its input, 3 and 4 of its output, 2304 B. If
    not, it is in the first: rows 1 and 2 of the residual, 1 to 3 of its input, 1 and 2 of its output, 1728 B."""
    made = Builder(1, 4, 6, 0)
    wide = made.conv(made.input, 32, 1)
    inner = made.conv(made.conv(wide, 16, 1), 16, 3)
    found = compile(made.model(made.add(made.conv(inner, 32, 1, relu=False), wide)), "two-buffer", plan="layerwise")
    steps, chip, row = steps_of(found.lowered), Chip(found.machine), 6 * 32 * 2
    waits = grouped(steps, chip, (0, 1, 2, 3))
    assert waits is not None
    (m,) = spillable(waits)
    goes = grouped(steps, chip, (0, 1, 2, 3), spilled=(m,))
    assert goes is not None
    made_by = [run(walk_of(of.group, (2, 4, 6)), {}, {}) for of in (waits, goes)]
    assert made_by[1].loaded[goes.local[m]] == 0b010100
    assert [one.peak for one in made_by] == [2304, 1728]
    plans = [realize(steps, chip, around(steps, cut(of, (2, 4, 6))), alone_of(found.plan)) for of in (waits, goes)]
    moved = [sum(f.dram_bytes for f in plan.figures().values()) for plan in plans if isinstance(plan, Realized)]
    assert moved[1] - moved[0] == 2 * 2 * row


def test_a_row_has_the_columns_that_are_read() -> None:
    """By hand: a 1x1 convolution of stride 2 reads every other column of every other row; these take no more room."""
    made = Builder(1, 8, 16, 0)
    steps = steps_of(compile(made.model(made.conv(made.input, 4, 1, stride=2)), "two-buffer").lowered)
    chip, read = Chip(machine.load("two-buffer")), 0
    some, whole = (grouped(steps, chip, (0,), there=there) for there in ((), (steps.reads[0][read],)))
    assert some is not None
    assert whole is not None
    assert some.group.sizes[some.local[steps.reads[0][read]]] == 8 * 8 * 2
    assert whole.group.sizes[whole.local[steps.reads[0][read]]] == 16 * 8 * 2


def tight(steps: Steps, chip: Chip) -> Iterator[Grouping]:
    """Groups of consecutive layers with a map that is spilled or handed over."""
    count = len(steps.at)
    for first in range(count):
        for stop in range(first + 1, count + 1):
            plain = grouped(steps, chip, tuple(range(first, stop)))
            if plain is None:
                continue
            kinds = [*(((m,), ()) for m in spillable(plain)), *(((), (m,)) for m in handable(plain))]
            made = (grouped(steps, chip, plain.positions, (), spilled, handed) for spilled, handed in kinds)
            yield from (grouping for grouping in made if grouping is not None)


def around(steps: Steps, group: Strips) -> tuple[Segment, ...]:
    """A plan in which all other layers run by themselves."""
    first, stop = group.positions[0], group.positions[-1] + 1
    return (*map(Alone, range(first)), group, *map(Alone, range(stop, len(steps.at))))


def cut(grouping: Grouping, bounds: Sequence[int]) -> Strips:
    """A group that runs by some strips, from DRAM to DRAM."""
    spilled = tuple(grouping.maps[i] for i in grouping.group.spilled)
    return Strips(grouping.positions, tuple(bounds), (), (), (), spilled, grouping.handed)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(networks(), st.sampled_from(["two-buffer", "snowflake"]), st.sampled_from([512, 2048, 8192]), st.data())
def test_they_move_what_is_predicted_and_compute_the_same(
    model: onnx.ModelProto, name: str, weights: int, data: st.DataObject
) -> None:
    target = machine.load(name).with_memory("weights", weights)
    try:
        made = compile(model, target, plan="layerwise")
    except CapacityFault:
        assume(False)
        raise
    steps, chip, alone = steps_of(made.lowered), Chip(target), alone_of(made.plan)
    every = [*tight(steps, chip)]
    assume(every)
    random = np.random.default_rng(0)
    inputs = {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }
    chosen = data.draw(st.lists(st.sampled_from(range(len(every))), min_size=1, max_size=RUN, unique=True))
    for grouping in (every[i] for i in chosen):
        cuts = Cuts(grouping.group, Meter())
        for bounds in islice(cuts.strips, 1, 4, 2):
            found = realize(steps, chip, around(steps, cut(grouping, bounds)), alone)
            assert isinstance(found, Realized)
            plan = with_network(made.plan, Network("fused", found.segments), found)
            program = emit(made.lowered, made.plan.schedules, target, found)
            counters = Counters(program)
            walk(program, [counters])
            assert counters.total().payload == plan.totals.dram_bytes
            for numbers in ("float32", "fixed"):
                assert verify(replace(made, plan=plan, program=program), inputs, numbers).agree
