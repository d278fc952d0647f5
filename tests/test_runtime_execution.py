"""Tiled execution equals the untiled reference, and a program that is wrong is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnnc_runtime import Counters, Fixed, Float32, Numbers, Result, execute, refer, walk
from dnnc_runtime.errors import DisagreementFault, UsageFault
from dnnc_runtime.program import (
    Activation,
    Compute,
    Host,
    Instruction,
    Kernel,
    Load,
    Part,
    Placement,
    Pool,
    Program,
    Section,
    Store,
    Tensor,
    Window,
)
from dnnc_runtime.tensor import Piece, View, span
from dnnc_runtime.walk import checked
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
    spread: Literal["k", "y"] = draw(st.sampled_from(("k", "y")))
    pool = draw(st.none() | pools(y, x)) if spread == "k" else None
    activations = [
        None,
        Activation("Relu"),
        Activation("PRelu"),
        Activation("Sigmoid"),
        Activation("Clip", (-1.0, 1.0)),
    ]
    return Conv(
        y,
        x,
        n=draw(st.integers(1, 2)),
        g=draw(st.integers(1, 3)),
        k=draw(st.integers(1, 7)),
        c=draw(st.integers(1, 5)),
        bias=draw(st.booleans()),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(activations)),
        pool=pool,
        rows=draw(st.integers(1, 4)),
        planes=draw(st.integers(1, 7)),
        channels=draw(st.integers(1, 5)),
        spread=spread,
    )


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


def test_a_checked_program_is_not_checked_again_unless_it_was_changed() -> None:
    """It computes and counts the same; what another program found says nothing of this one."""
    right, feed = program(CONV, TOY), feeds(data(CONV, 0))
    done = checked(right)
    assert done.checked is not None
    assert [done.checked.hold(some) for some in (done, replace(done, inputs=()))] == [True, False]
    for numbers in (Float32(), FIXED):
        once, again = (execute(p, *feed, numbers, keep_values=True) for p in (right, done))
        assert once.saturations == again.saturations
        assert once.values.keys() == again.values.keys()
        assert all(np.array_equal(once.values[name], again.values[name]) for name in once.values)
    (section,) = right.sections
    forgetful = replace(section, instructions=section.instructions[1:])
    with pytest.raises(DisagreementFault):
        execute(replace(done, sections=(forgetful,)), *feed)
    with pytest.raises(DisagreementFault):
        checked(replace(right, sections=(forgetful,)))


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
