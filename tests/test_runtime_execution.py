"""Tiled execution equals the untiled reference, and a program that is wrong is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnnc_runtime import Counters, Fixed, Float32, Numbers, Result, execute, refer, walk
from dnnc_runtime.errors import DisagreementFault, UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import (
    Activation,
    Compute,
    Host,
    Instruction,
    Kernel,
    Load,
    Move,
    Part,
    Placement,
    Pool,
    Program,
    Release,
    Section,
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


@st.composite
def windows(draw: st.DrawFn, largest: int = 9, kernels: int = 3) -> Window:
    """A window with its outputs: any stride, dilation, padding before and after."""
    kernel, stride, dilation = draw(st.integers(1, kernels)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    size = draw(st.integers(1, largest))
    pad, after = (draw(st.integers(0, kernel - 1)) for _ in range(2))
    room = size + pad + after - (kernel - 1) * dilation - 1
    assume(room >= 0)
    return Window(size, room // stride + 1, kernel, stride, dilation, pad, after)


@st.composite
def pools(draw: st.DrawFn, y: Window, x: Window) -> Pool:
    """A pool behind a convolution, every window of which touches at least one row and column."""
    axes: list[Window] = []
    for size in (y.out, x.out):
        kernel = draw(st.integers(1, min(3, size)))
        pad = draw(st.integers(0, kernel - 1))
        stride = draw(st.integers(1, 3))
        axes.append(Window(size, (size + 2 * pad - kernel) // stride + 1, kernel, stride, 1, pad, pad))
    return Pool(draw(st.sampled_from(["max", "average"])), axes[0], axes[1], draw(st.booleans()))


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    """Any convolution with any cut."""
    y, x = draw(windows()), draw(windows(6))
    spread = draw(st.sampled_from(["k", "y"]))
    pool = draw(st.none() | pools(y, x)) if spread == "k" else None
    activations = [
        None,
        Activation("Relu"),
        Activation("PRelu"),
        Activation("Sigmoid"),
        Activation("Clip", (-1.0, 1.0)),
    ]
    return Conv(
        y, x, n=draw(st.integers(1, 2)), g=draw(st.integers(1, 3)), k=draw(st.integers(1, 7)), c=draw(st.integers(1, 5)),
        bias=draw(st.booleans()), residual=draw(st.booleans()), activation=draw(st.sampled_from(activations)), pool=pool,
        rows=draw(st.integers(1, 4)), planes=draw(st.integers(1, 7)), channels=draw(st.integers(1, 5)), spread=spread,
    )  # fmt: skip


def both(conv: Conv, numbers: Numbers, values: dict[str, NDArray[np.float32]]) -> tuple[Result, Result]:
    made, (inputs, constants) = program(conv, TOY), feeds(values)
    return execute(made, inputs, constants, numbers), refer(made, inputs, constants, numbers)


@settings(max_examples=60)
@given(convs(), st.integers(0, 99), st.sampled_from([0.3, 4.0]))
def test_tiled_fixed_point_is_the_untiled_one_bit_for_bit(conv: Conv, seed: int, scale: float) -> None:
    tiled, untiled = both(conv, FIXED, data(conv, seed, scale))
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])
    assert tiled.saturations == untiled.saturations


@settings(max_examples=30)
@given(convs(), st.integers(0, 99))
def test_tiled_float_is_the_untiled_one(conv: Conv, seed: int) -> None:
    tiled, untiled = both(conv, Float32(), data(conv, seed))
    np.testing.assert_allclose(tiled.outputs["output"], untiled.outputs["output"], rtol=1e-4, atol=1e-4)


@settings(max_examples=30)
@given(convs())
def test_every_operand_is_counted_once_for_each_load(conv: Conv) -> None:
    made = program(conv, TOY)
    counters = Counters(made)
    walk(made, [counters])
    (section,) = made.sections
    words = dict.fromkeys(conv.shapes, 0)
    for instruction in section.instructions:
        if isinstance(instruction, Load | Store):
            for region in instruction.transfers:
                words[instruction.role] += prod(sum(run.count for run in axis) for axis in region)
    for (_, role, way), counted in counters.traffic.items():
        assert counted.payload == 2 * words[role]
        assert counted.bus >= counted.payload
        assert (way == "write") == (role == "output")
    assert counters.total("write").payload == 2 * prod(conv.shapes["output"])


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
        return replace(load, transfers=(region,), pieces=(replace(piece, region=region),))

    refused(edited(changed(Load, 0, fewer_rows, "input")), "holds nothing, expected input")


def test_an_overwritten_resident() -> None:
    def moved(load: Load) -> Load:
        _, inputs = nth(list(program(CONV, TOY).sections[0].instructions), Load, 0, "input")
        return replace(load, pieces=tuple(replace(piece, base=inputs.pieces[0].base) for piece in load.pieces))

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
        return replace(load, pieces=tuple(replace(piece, instances=(0,)) for piece in load.pieces))

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
        return replace(compute, parts=(replace(a, operands=tuple(swap.items())), b))

    refused(edited(changed(Compute, 0, crossed)), r"one part reads memories of units \[0, 1\]")


def test_an_input_that_nobody_wrote() -> None:
    made = program(CONV, TOY)
    with pytest.raises(DisagreementFault, match="of DRAM tensor 'residual' was never written"):
        walk(replace(made, inputs=("input",)))


def test_units_outside_the_memory() -> None:
    def beyond(load: Load) -> Load:
        return replace(load, pieces=tuple(replace(piece, instances=(2,)) for piece in load.pieces))

    refused(edited(changed(Load, 0, beyond, "input")), "unit 2 of memory 'maps', which has 2")


def test_a_moved_copy_is_as_good_as_a_broadcast() -> None:
    def sent(instructions: list[Instruction]) -> list[Instruction]:
        out: list[Instruction] = []
        for x in instructions:
            if isinstance(x, Load) and x.role == "input":
                here = tuple(replace(piece, instances=(0,)) for piece in x.pieces)
                there = tuple(replace(piece, instances=(1,)) for piece in x.pieces)
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


def test_an_accumulator_overflow_is_counted_and_wraps() -> None:
    point = Window(1, 1)
    conv = Conv(point, point, k=1, c=4, bias=False, channels=1)
    values = {"input": np.full((1, 1, 1, 1, 4), 127.0), "weights": np.full((1, 1, 1, 1, 4), 127.0)}
    tiled, untiled = both(conv, FIXED, {role: v.astype(np.float32) for role, v in values.items()})
    wrapped = (4 * 127 * 127 * 65536 + 2**31) % 2**32 - 2**31
    assert tiled.overflows == {"layer": 1}
    assert float(tiled.outputs["output"].item()) == max(-128.0, min(wrapped / 65536, 32767 / 256))
    np.testing.assert_array_equal(tiled.outputs["output"], untiled.outputs["output"])


def hosted() -> Program:
    """A program whose only section runs on the host."""
    view = View("x", 0, (2, 3), (3, 1))
    values = (Placement("x", (2, 3), view), Placement("y", (3, 2), View("y", 0, (3, 2), (2, 1))))
    host = Host("t", "Transpose", ("x",), ("y",), "for a test")
    return Program(TOY, (Tensor("x", 6), Tensor("y", 6)), (Section("t", None, (), (host,)),), values, ("x",), ("y",))


def test_host_nodes_read_and_write_values() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3) / 3
    counters = Counters(hosted())
    run = {"x": x}
    got = execute(hosted(), run, {}, FIXED, lambda node, values: {"y": values["x"].T}, [counters])
    np.testing.assert_array_equal(got.outputs["y"], np.floor(x.T * 256 + 0.5) / 256)
    assert counters.host == {("t", "read"): 12, ("t", "write"): 12}
    assert not counters.traffic
    with pytest.raises(UsageFault, match="pass a host function"):
        execute(hosted(), run, {})


def test_wrong_arguments_are_a_users_fault() -> None:
    inputs, constants = feeds(data(CONV, 0))
    made = program(CONV, TOY)
    with pytest.raises(UsageFault, match="input 'residual' is absent; given are input"):
        execute(made, {"input": inputs["input"]}, constants)
    with pytest.raises(UsageFault, match="has shape"):
        execute(made, {**inputs, "input": inputs["input"][0]}, constants)
    with pytest.raises(UsageFault, match="constant 'bias' has no loader"):
        execute(made, inputs, {"weights": constants["weights"]})


def test_values_are_kept_on_request() -> None:
    result = execute(program(CONV, TOY), *feeds(data(CONV, 0)), keep_values=True)
    assert sorted(result.values) == ["input", "output", "residual"]


@pytest.mark.parametrize("numbers", [Float32(), FIXED])
def test_vector_layers_tile_too(numbers: Numbers) -> None:
    kernel = Kernel("add", Window(4, 4), Window(3, 3), Activation("Relu"))
    shape = (1, 4, 3, 1, 5)
    shapes: Any = {"input": shape, "second": (1, 1, 3, 1, 5), "output": shape}
    rng = np.random.default_rng(0)
    feed = feeds({role: rng.normal(size=shapes[role]).astype(np.float32) for role in ("input", "second")})
    made = alone(kernel, shapes, TOY, tuple(adding(shape)))
    got, expected = execute(made, *feed, numbers), refer(made, *feed, numbers)
    np.testing.assert_array_equal(got.outputs["output"], expected.outputs["output"])


def adding(shape: tuple[int, ...]) -> list[Instruction]:
    """Rows one by one, the broadcast operand loaded once."""
    n, rows, columns, g, k = shape
    row = (span(0, n), span(0, 1), span(0, columns), span(0, g), span(0, k))
    second = Piece((0,), 0, dense((n, 1, columns, g, k)), row)
    out: list[Instruction] = [Load("second", "maps", "word", (row,), (second,))]
    for y in range(rows):
        region = (row[0], span(y, 1), *row[2:])
        here, there = (Piece((0,), base, second.pitch, region) for base in (100, 200))
        out.append(Load("input", "maps", "word", (region,), (here,)))
        out.append(Compute((Part(region, (("input", (here,)), ("second", (second,)), ("output", (there,)))),), (0, 1)))
        out.append(Store("output", "maps", "word", (region,), (there,)))
    return out
