"""Programs that are wrong are refused, whatever is wrong with them; unusual ones that are right are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
import pytest

from dnnc_runtime import Counters, Fixed, Float32, Numbers, execute, refer, walk
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import (
    Compute,
    Instruction,
    Kernel,
    Load,
    Move,
    Part,
    Pool,
    PoolTile,
    Program,
    Release,
    Role,
    Store,
    Tensor,
    Window,
)
from dnnc_runtime.tensor import Piece, View, span
from runtime_tiler import Conv, alone, data, dense, feeds, machine, program

TOY = machine()
FIXED = Fixed.of(TOY)
Edit = Callable[[list[Instruction]], list[Instruction]]
T = TypeVar("T")
SQUARE = Window(6, 6, 3, 1, 1, 1, 1)
CONV = Conv(SQUARE, SQUARE, k=6, c=4, residual=True, rows=2, planes=4, channels=2)


def edited(edit: Edit, conv: Conv = CONV, target: Machine = TOY) -> Program:
    made = program(conv, target)
    (section,) = made.sections
    return replace(made, sections=(replace(section, instructions=tuple(edit(list(section.instructions)))),))


def refused(made: Program, words: str) -> None:
    """Both the walk and the execution refuse the program, in one sentence."""
    with pytest.raises(DisagreementFault, match=words):
        walk(made)
    with pytest.raises(DisagreementFault, match=words):
        execute(made, *feeds(data(CONV, 0)))


def nth(instructions: list[Instruction], kind: type[T], index: int = 0, role: str = "") -> tuple[int, T]:
    """The index-th instruction of a kind and role, and where it is."""
    found = [(i, x) for i, x in enumerate(instructions) if isinstance(x, kind)]
    return [(i, x) for i, x in found if role in ("", getattr(x, "role", ""))][index]


def without(kind: type[Any], index: int, role: str = "") -> Edit:
    def edit(instructions: list[Instruction]) -> list[Instruction]:
        at, _ = nth(instructions, kind, index, role)
        return instructions[:at] + instructions[at + 1 :]

    return edit


def changed(kind: type[T], index: int, change: Callable[[T], Instruction], role: str = "") -> Edit:
    def edit(instructions: list[Instruction]) -> list[Instruction]:
        at, found = nth(instructions, kind, index, role)
        return [*instructions[:at], change(found), *instructions[at + 1 :]]

    return edit


def test_the_unedited_program_runs() -> None:
    walk(edited(lambda instructions: instructions))


@pytest.mark.parametrize("role", ["input", "weights"])
@pytest.mark.parametrize("index", range(6))
def test_a_forgotten_load(role: str, index: int) -> None:
    refused(edited(without(Load, index, role)), r"layer 'layer', instruction \d+ \(Compute\): word \d+ of memory")


def test_a_wrong_halo() -> None:
    def fewer_rows(load: Load) -> Load:
        (piece,) = load.pieces
        region = (piece.region[0], span(0, 2), *piece.region[2:])
        return replace(load, transfers=(region,), pieces=(piece._replace(region=region),))

    refused(edited(changed(Load, 0, fewer_rows, "input")), "holds nothing, expected input")


def test_an_overwritten_resident() -> None:
    def moved(load: Load) -> Load:
        _, inputs = nth(list(program(CONV, TOY).sections[0].instructions), Load, 0, "input")
        return replace(load, pieces=tuple(piece._replace(base=inputs.pieces[0].base) for piece in load.pieces))

    refused(edited(changed(Load, 0, moved, "residual")), r"holds residual \(.*\), expected input")


def test_an_overfull_buffer() -> None:
    refused(program(CONV, machine(maps=512)), "of memory 'maps', which has 256")


def test_a_double_store() -> None:
    def twice(instructions: list[Instruction]) -> list[Instruction]:
        at, store = nth(instructions, Store)
        return [*instructions[:at], store, *instructions[at:]]

    refused(edited(twice), "stored a second time")


def test_a_forgotten_store() -> None:
    refused(edited(without(Store, 1)), r"output element \(0, 2, 0, 0, 0\) \(n, y, x, g, k\) was never stored")


def test_forgotten_channels() -> None:
    refused(edited(without(Compute, 0)), "sums channels 2..4 .* expected to go on at 0")


def test_pieces_that_do_not_cover_the_transfer() -> None:
    refused(edited(changed(Load, 0, lambda load: replace(load, pieces=load.pieces[1:]), "weights")), "do not hold each")


def test_a_broadcast_that_leaves_out_a_unit() -> None:
    def one(load: Load) -> Load:
        return replace(load, pieces=tuple(piece._replace(instances=(0,)) for piece in load.pieces))

    refused(edited(changed(Load, 0, one, "input")), "of unit 1 holds nothing")


def test_a_read_after_release() -> None:
    def released(instructions: list[Instruction]) -> list[Instruction]:
        at, load = nth(instructions, Load, 0, "input")
        return [*instructions[: at + 1], Release(load.memory, load.width, load.pieces), *instructions[at + 1 :]]

    refused(edited(released), "holds nothing, expected input")


def test_the_memory_of_another_unit() -> None:
    def crossed(compute: Compute) -> Compute:
        a, b = compute.parts
        swap = dict(a.operands) | {"input": dict(b.operands)["input"]}
        return replace(compute, parts=(a._replace(operands=tuple(swap.items())), b))

    refused(edited(changed(Compute, 0, crossed)), r"one part reads memories of units \[0, 1\]")


def test_an_input_that_nobody_wrote() -> None:
    made = program(CONV, TOY)
    with pytest.raises(DisagreementFault, match="of DRAM tensor 'residual' was never written"):
        walk(replace(made, inputs=("input",)))


def test_units_outside_the_memory() -> None:
    def to(*units: int) -> Callable[[Load], Load]:
        return lambda load: replace(load, pieces=tuple(piece._replace(instances=units) for piece in load.pieces))

    refused(edited(changed(Load, 0, to(2), "input")), "unit 2 of memory 'maps', which has 2")
    refused(edited(changed(Load, 0, to(), "input")), "a piece in no unit of memory 'maps'")


def test_a_memory_that_the_machine_has_not() -> None:
    def elsewhere(instruction: Instruction) -> Instruction:
        if isinstance(instruction, Load) and instruction.role == "residual":
            return replace(instruction, memory="cache")
        return instruction

    refused(edited(lambda instructions: [elsewhere(x) for x in instructions]), "residual lies in 'cache', which is no")


def test_array_instructions_without_a_kernel() -> None:
    made = program(CONV, TOY)
    with pytest.raises(DisagreementFault, match="expected host instructions alone"):
        walk(replace(made, sections=(replace(made.sections[0], kernel=None),)))


def test_a_moved_copy_is_as_good_as_a_broadcast() -> None:
    def sent(instructions: list[Instruction]) -> list[Instruction]:
        out: list[Instruction] = []
        for x in instructions:
            if isinstance(x, Load) and x.role == "input":
                here = tuple(piece._replace(instances=(0,)) for piece in x.pieces)
                there = tuple(piece._replace(instances=(1,)) for piece in x.pieces)
                out += [replace(x, pieces=here), Move("input", "maps", "word", here, there)]
            else:
                out.append(x)
        return out

    feed = feeds(data(CONV, 0))
    got = execute(edited(sent), *feed, FIXED)
    np.testing.assert_array_equal(got.outputs["output"], execute(program(CONV, TOY), *feed, FIXED).outputs["output"])


def spilled(instructions: list[Instruction]) -> list[Instruction]:
    """Sums leave for DRAM after every visit but the last, and come back."""
    out: list[Instruction] = []
    for x in instructions:
        out.append(x)
        if isinstance(x, Compute) and not x.last:
            pieces = tuple(piece for part in x.parts for piece in dict(part.operands)["accumulator"])
            regions = tuple(piece.region for piece in pieces)
            out.append(Store("partial_sums", "maps", "accumulator", regions, pieces))
            out.append(Release("maps", "accumulator", pieces))
            out.append(Load("partial_sums", "maps", "accumulator", regions, pieces))
    return out


@pytest.mark.parametrize("numbers", [Float32(), FIXED])
def test_spilled_partial_sums(numbers: Numbers) -> None:
    made = edited(spilled)
    shape = CONV.shapes["output"]
    view = View("sums", 0, shape, tuple(2 * stride for stride in dense(shape)))
    (section,) = made.sections
    section = replace(section, views=(*section.views, ("partial_sums", view)))
    made = replace(made, tensors=(*made.tensors, Tensor("sums", 2 * prod(shape))), sections=(section,))
    feed = feeds(data(CONV, 0))
    counters = Counters(made)
    got = execute(made, *feed, numbers, listeners=[counters])
    np.testing.assert_array_equal(got.outputs["output"], execute(program(CONV, TOY), *feed, numbers).outputs["output"])
    assert counters.traffic["layer", "partial_sums", "write"].payload == 4 * prod(shape)
    assert counters.traffic["layer", "partial_sums", "read"].payload == 4 * prod(shape)


POINT = Window(1, 1)
HALF = Window(4, 2, 3, 2, 1, 1)
Kind = Literal["max", "average"]


def over_the_edge(kind: Kind) -> Program:
    """Four rows on two units; the window of pooled row 1 (rows 1 to 3) reaches over the edge between rows 1 and 2.

    The lower unit pools its rows 2 and 3 first and sends what it has up; the upper one completes both windows.
    """
    rows, pool = Window(4, 4), Pool(kind, HALF, POINT)
    shapes: dict[Role, tuple[int, ...]] = {
        "input": (1, 4, 1, 1, 1),
        "weights": (1, 1, 1, 1, 1),
        "output": (1, 2, 1, 1, 1),
    }
    width: Literal["word", "accumulator"] = "word" if kind == "max" else "accumulator"
    tiles = [at(unit, 0, 2 * unit, 2) for unit in (0, 1)]
    inputs = [tile._replace(base=8) for tile in tiles]
    kernels = Piece((0, 2), 0, (1,) * 5, (span(0, 1),) * 5)
    parts = tuple(
        Part(t.region, (("input", (x,)), ("weights", (kernels._replace(instances=(2 * u,)),)), ("tile", (t,))))
        for u, (t, x) in enumerate(zip(tiles, inputs, strict=True))
    )
    sent, held = at(1, 16, 1, 1), at(0, 18, 1, 1)
    out = at(0, 0, 0, 2)
    upper = Part(tiles[0].region, (("tile", (tiles[0],)), ("output", (out,))))
    lower = Part(tiles[1].region, (("tile", (tiles[1],)),))
    instructions: list[Instruction] = [
        Load("weights", "weights", "word", (kernels.region,), (kernels,)),
        Load("input", "maps", "word", tuple(x.region for x in inputs), tuple(inputs)),
        Compute(parts, (0, 1)),
        PoolTile((lower,), ((),), ((sent,),)),
        Move("pending", "maps", width, (sent,), (held,)),
        PoolTile((upper,), ((held,),), ((),)),
        Store("output", "maps", "word", (out.region,), (out,)),
    ]
    return alone(Kernel("conv", rows, POINT, pool=pool), shapes, TOY, tuple(instructions))


def at(unit: int, base: int, row: int, rows: int) -> Piece:
    """Rows of one word in the maps memory of a unit."""
    return Piece((unit,), base, (1,) * 5, (span(0, 1), span(row, rows), span(0, 1), span(0, 1), span(0, 1)))


@pytest.mark.parametrize("numbers", [Float32(), FIXED])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_windows_over_the_edge_of_a_units_rows(kind: Kind, numbers: Numbers) -> None:
    values = {"input": np.array([3, -2, 5, 0.5], np.float32).reshape(1, 4, 1, 1, 1)}
    feed = feeds(values | {"weights": np.ones((1, 1, 1, 1, 1), np.float32)})
    made = over_the_edge(kind)
    expected = [3.0, 5.0] if kind == "max" else [0.5, 3.5 / 3]
    got = execute(made, *feed, numbers).outputs["output"].reshape(-1)
    np.testing.assert_allclose(got, expected, atol=2**-8)
    np.testing.assert_array_equal(got, refer(made, *feed, numbers).outputs["output"].reshape(-1))


@pytest.mark.parametrize("kind", ["max", "average"])
def test_a_window_without_all_its_rows(kind: Kind) -> None:
    def alone_above(pool: PoolTile) -> PoolTile:
        return replace(pool, before=((),))

    made = over_the_edge(kind)
    (section,) = made.sections
    lost = changed(PoolTile, 1, alone_above)(list(section.instructions))
    with pytest.raises(DisagreementFault, match=r"pooled row 1 is completed without rows \[2, 3\]"):
        walk(replace(made, sections=(replace(section, instructions=tuple(lost)),)))


def test_a_row_pooled_twice() -> None:
    def again(pool: PoolTile) -> PoolTile:
        return replace(pool, before=(pool.before[0] * 2,))

    made = over_the_edge("average")
    (section,) = made.sections
    twice = changed(PoolTile, 1, again)(list(section.instructions))
    with pytest.raises(DisagreementFault, match=r"pooled row 1 combines rows \[2, 3\] twice"):
        walk(replace(made, sections=(replace(section, instructions=tuple(twice)),)))


def test_a_piece_whose_elements_collide() -> None:
    def folded(instruction: Any) -> Any:
        if not isinstance(instruction, Load | Compute):
            return instruction
        if isinstance(instruction, Load):
            return replace(instruction, pieces=tuple(map(fold, instruction.pieces)))
        parts = [p._replace(operands=tuple((r, tuple(map(fold, x))) for r, x in p.operands)) for p in instruction.parts]
        return replace(instruction, parts=tuple(parts))

    def fold(piece: Piece) -> Piece:
        return piece._replace(pitch=(*piece.pitch[:-1], 0)) if len(piece.pitch) == 5 and piece.base else piece

    refused(edited(lambda instructions: [folded(x) for x in instructions]), r"holds input \(.*\), expected input")
