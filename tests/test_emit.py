"""An emitted program computes what its layer means, whatever the schedule: bit for bit in fixed point."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dnnc
from dnnc import constraints
from dnnc.axis import uniform_cut
from dnnc.emit import emit
from dnnc.layer import HostLayer, Layer, Operand, Shape
from dnnc.schedule import Dim, Pin, Schedule
from dnnc_runtime import Fixed, Float32, Result, execute, refer, walk
from dnnc_runtime import machine as machines_file
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kernel, Load, Placement, Pool, Program, Role, Tensor, Window
from dnnc_runtime.tensor import View
from graphs import Builder
from one_layer import extents, feeds, located, lowered, program, strided
from strategies import Case, cases, fitted, sharing_cases

SNOWFLAKE = machines_file.load("snowflake")


def both(case: Case, fixed: bool, seed: int) -> tuple[Result, Result]:
    """(executed, untiled reference) on random operands."""
    made, feed = program(case.layer, case.machine, case.schedule), feeds(case.layer, seed)
    numbers = Fixed.of(case.machine) if fixed else Float32()
    return execute(made, *feed, numbers), refer(made, *feed, numbers)


@settings(max_examples=70)
@given(cases(), st.integers(0, 9))
def test_fixed_point_is_the_untiled_one_bit_for_bit(case: Case, seed: int) -> None:
    tiled, untiled = both(case, True, seed)
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])


@pytest.mark.parametrize("dim", ["y", "x"])
def test_tiles_that_read_the_same_input_at_other_taps(dim: str) -> None:
    """A window of 3x3 reaches over all of a map of 2x2, so that every row and column of the output reads all of it."""
    made = Builder(1, 4, 2, 0)
    model = made.model(made.conv(made.input, 4, 3, relu=False))
    rules = constraints.loads(f"[all]\ntiles = {{ {dim} = 2 }}\ncuts = 'uniform'\n", "tiles")
    compiled = dnnc.compile(model, "two-buffer", constraints=rules, plan="layerwise")
    image = np.random.default_rng(0).standard_normal((1, 4, 2, 2))
    assert [dnnc.verify(compiled, {"x": image}, system).agree for system in ("float32", "fixed")] == [True, True]


@settings(max_examples=70)
@given(sharing_cases(), st.integers(0, 9))
def test_fixed_point_is_the_untiled_one_with_rows_moved_and_tiles_pinned(case: Case, seed: int) -> None:
    tiled, untiled = both(case, True, seed)
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])
    assert tiled.saturations == untiled.saturations


@settings(max_examples=40)
@given(st.one_of(cases(), sharing_cases()), st.integers(0, 9))
def test_float_is_the_untiled_one(case: Case, seed: int) -> None:
    tiled, untiled = both(case, False, seed)
    np.testing.assert_allclose(tiled.outputs["output"], untiled.outputs["output"], rtol=1e-4, atol=1e-4)


# -- one program for each thing that a schedule can do ---------------------------------------------------------------

SAME = Window(12, 12, 3, 1, 1, 1, 1)
FLAT = Window(6, 6, 3, 1, 1, 1, 1)


def conv(pool: Pool | None = None, residual: bool = False) -> Layer:
    """12 x 6 pixels, 32 channels to 64 planes, 3x3 with bias."""
    shape = Shape("array", 1, 1, 64, 32, SAME, FLAT, 1, residual, pool=pool)
    roles: list[Role] = ["input", "weights", "bias", "output"]
    if residual:
        roles.append("residual")
    operands = tuple(Operand(role, role, strided(role, extents(shape)[role])) for role in roles)
    return located(shape, Kernel("conv", SAME, FLAT, pool=pool), operands)


def rows(size: int, units: int = 1, order: tuple[Dim, ...] = ("y",), **parts: Any) -> Schedule:
    """Row tiles of one size; everything else is whole, but for the parts given."""
    y, x = uniform_cut(SAME, units, size), uniform_cut(FLAT, 1, 6)
    return replace(Schedule("cooperative" if units == 1 else "combined", y, x, 64, 32, 1, order), **parts)


def checked(layer: Layer, schedule: Schedule) -> Program:
    """The program of a schedule in memories of exactly its size; its numbers are right."""
    machine = fitted(layer.shape, SNOWFLAKE, schedule)
    tiled, untiled = both(Case(layer, machine, schedule), True, 0)
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])
    return program(layer, machine, schedule)


MAX = Pool("max", Window(12, 5, 3, 2), Window(6, 2, 3, 2))
AVERAGE = Pool("average", Window(12, 5, 3, 2), Window(6, 2, 3, 2))

# Three row tiles of 4, k in 2 tiles of 32, c in 2 tiles of 16. Four blocks of 3 rows touch 0-3, 2-6, 5-9, 8-11: of each
# pair of rows shared, the lower unit has both first, and sends them up in one move. With one row a step, the first step
# loads all but row 11. The pool's windows of rows 2-4, 4-6 and 8-10 lie over an edge between blocks.
FEATURES: dict[str, tuple[Layer, Schedule, dict[str, int]]] = {
    "halos loaded again": (conv(), rows(4, keep=False), {"Load input": 3, "Compute": 3}),
    "rows moved in one step": (conv(), rows(3, 4, (), move=True), {"Load input": 1, "Move input": 3}),
    "rows moved and kept to their last use": (conv(), rows(1, 4, move=True), {"Load input": 2, "Move input": 3}),
    "kernels again for every row tile": (conv(), rows(4, 1, ("y", "k"), k=32), {"Load weights": 6, "Load input": 3}),
    "one of two kernel tiles pinned": (
        conv(),
        rows(4, 1, ("y", "k"), k=32, pin=Pin("weights", "y", "k", 1)),
        {"Load weights": 2, "Load input": 3},
    ),
    "two of three row tiles pinned": (
        conv(),
        rows(4, 1, ("k", "y"), k=32, pin=Pin("input", "k", "y", 2)),
        {"Load weights": 2, "Load input": 3},
    ),
    "partial sums spilled": (
        conv(),
        rows(4, 1, ("c", "y"), c=16),
        {"Store partial_sums": 3, "Load partial_sums": 3, "Store output": 3},
    ),
    "sums that stay": (conv(), rows(4, 1, ("y", "c"), c=16), {"Store partial_sums": 0, "Load input": 6}),
    "double buffers": (conv(), rows(4, 1, ("y", "k"), k=32, buffers=(2, 2, 2)), {"Load weights": 6, "Store output": 6}),
    "parameters that follow": (conv(), rows(4, 1, ("k", "y"), k=32, follow=True), {"Load bias": 2}),
    "a residual": (conv(residual=True), rows(4), {"Load residual": 3}),
    "a pool over tile edges": (conv(MAX), rows(4), {"PoolTile": 3, "Store output": 3, "Move pending": 0}),
    "a pool over tile edges, other kernels between": (
        conv(AVERAGE),
        rows(4, 1, ("y", "k"), k=32),
        {"PoolTile": 6, "Store output": 6},
    ),
    "a pool over block edges": (conv(AVERAGE), rows(3, 4, ()), {"PoolTile": 4, "Move pending": 3}),
}


@pytest.mark.parametrize("name", FEATURES)
def test_what_a_schedule_asks_for_is_in_the_program(name: str) -> None:
    layer, schedule, expected = FEATURES[name]
    (section,) = checked(layer, schedule).sections
    counts = Counter(f"{type(i).__name__} {getattr(i, 'role', '')}".strip() for i in section.instructions)
    assert {what: counts[what] for what in expected} == expected


def test_a_tile_whose_rows_are_all_received() -> None:
    """Five taps two rows apart, pad 3, blocks 0-1 and 2: outputs 0 and 2 both touch rows 1 and 3. The lower unit loads
    them and sends them up, where the first tile loads none of its own."""
    y, x = Window(5, 3, 5, 1, 2, 3, 3), Window(3, 3, 2, 1, 1, 0, 1)
    shape = Shape("array", 1, 1, 8, 4, y, x)
    roles: tuple[Role, ...] = ("input", "weights", "output")
    operands = tuple(Operand(role, role, strided(role, extents(shape)[role])) for role in roles)
    machine = replace(SNOWFLAKE, levels=(replace(SNOWFLAKE.levels[0], count=2), *SNOWFLAKE.levels[1:]))
    schedule = Schedule("combined", uniform_cut(y, 2, 1), uniform_cut(x, 1, 2), 8, 4, 1, ("x", "y"), move=True)
    layer = located(shape, Kernel("conv", y, x), operands)
    case = Case(layer, fitted(shape, machine, schedule), schedule)
    tiled, untiled = both(case, True, 0)
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])


def test_a_broadcast_lies_in_every_memory_that_needs_it() -> None:
    """Cooperative: the same maps in all four units. Combined: its own rows in each, the same kernels in all."""
    (section,) = checked(conv(), rows(12, 1, ())).sections
    loads = {i.role: i for i in section.instructions if isinstance(i, Load)}
    assert [piece.instances for piece in loads["input"].pieces] == [(0, 1, 2, 3)]
    assert all(len(piece.instances) == 1 for piece in loads["weights"].pieces)
    (section,) = checked(conv(), rows(3, 4, ())).sections
    loads = {i.role: i for i in section.instructions if isinstance(i, Load)}
    assert [piece.instances for piece in loads["input"].pieces] == [(0,), (1,), (2,), (3,)]
    assert all(len(piece.instances) == 4 for piece in loads["weights"].pieces)


def test_layers_follow_each_other_and_host_layers_keep_their_place() -> None:
    layer = conv()
    host = HostLayer("softmax", "Softmax", ("softmax",), ("output",), ("odds",), "no unit for it", 0, 0)
    only, odds = lowered(layer), Placement("odds", (1,), View("odds", 0, (1,), (1,)))
    both = replace(
        only, layers=(layer, host), tensors=(*only.tensors, Tensor("odds", 1)), placements=(*only.placements, odds)
    )
    made = emit(both, {"layer": rows(4)}, SNOWFLAKE)
    assert [section.name for section in made.sections] == ["layer", "softmax"]
    assert made.sections[1].kernel is None
    walk(made)


def test_the_text_of_a_program_is_read_back_to_an_equal_one() -> None:
    made = checked(conv(AVERAGE), rows(3, 4, ("c",), c=16))
    assert Program.parse(str(made)) == made


def test_a_machine_too_small_by_a_word_is_refused_by_the_walk() -> None:
    """What the closed form calls used is used: with one word less, an instruction reaches over the memory's end."""
    layer, schedule = conv(), rows(4)
    machine: Machine = fitted(layer.shape, SNOWFLAKE, schedule)
    walk(program(layer, machine, schedule))
    for memory in machine.memories:
        tight = machine.with_memory(memory.name, memory.bytes - machine.word_bytes)
        with pytest.raises(DisagreementFault, match=memory.name):
            walk(program(layer, tight, schedule))
