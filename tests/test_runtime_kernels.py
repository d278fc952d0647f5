"""Every operation of the runtime, untiled and in float32, against onnxruntime."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dnnc_runtime import Result, refer
from dnnc_runtime.program import Activation, Kernel, Pool, Role, Window
from runtime_tiler import alone, feeds, machine

Array = NDArray[np.float32]
POINT = Window(1, 1)


@lru_cache(maxsize=64)
def _session(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def onnx_run(operator: str, inputs: list[Array], **attributes: Any) -> Array:
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n, x in zip(names, inputs, strict=True)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", values, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    (result,) = _session(model.SerializeToString()).run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(result)


def ours(kernel: Kernel, shapes: dict[Role, tuple[int, ...]], data: dict[str, Array]) -> Array:
    """The kernel's output, with the axes (n, y, x, g, k)."""
    result: Result = refer(alone(kernel, shapes, machine()), *feeds(data))
    return result.outputs["output"]


@st.composite
def axes(draw: st.DrawFn, dilations: int = 2) -> Window:
    """A window without its outputs, which the operator's own rule gives."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    dilation = draw(st.integers(1, dilations))
    size = draw(st.integers(1, 9))
    pad, after = (draw(st.integers(0, min(kernel - 1, 2))) for _ in range(2))
    assume(size + pad + after >= (kernel - 1) * dilation + 1)
    return Window(size, 0, kernel, stride, dilation, pad, after)


def rows(window: Window) -> int:
    """Outputs without ceil mode."""
    return (
        window.size + window.pad + window.pad_after - (window.kernel - 1) * window.dilation - 1
    ) // window.stride + 1


def sized(window: Window, out: int) -> Window:
    return Window(window.size, out, window.kernel, window.stride, window.dilation, window.pad, window.pad_after)


def spatial(y: Window, x: Window) -> dict[str, Any]:
    return {
        "kernel_shape": [y.kernel, x.kernel],
        "strides": [y.stride, x.stride],
        "dilations": [y.dilation, x.dilation],
        "pads": [y.pad, x.pad, y.pad_after, x.pad_after],
    }


@settings(max_examples=60)
@given(axes(), axes(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_conv(y: Window, x: Window, n: int, g: int, k: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = sized(y, rows(y)), sized(x, rows(x))
    image = rng.normal(size=(n, g * c, y.size, x.size)).astype(np.float32)
    weights = rng.normal(size=(g * k, c, y.kernel, x.kernel)).astype(np.float32)
    bias = rng.normal(size=g * k).astype(np.float32)
    expected = onnx_run("Conv", [image, weights, bias], group=g, **spatial(y, x))
    shapes: dict[Role, tuple[int, ...]] = {
        "input": (n, y.size, x.size, g, c),
        "weights": (g, k, y.kernel, x.kernel, c),
        "bias": (g, k),
        "output": (n, y.out, x.out, g, k),
    }
    data = {
        "input": image.transpose(0, 2, 3, 1).reshape(shapes["input"]),
        "weights": weights.transpose(0, 2, 3, 1).reshape(shapes["weights"]),
        "bias": bias.reshape(g, k),
    }
    got = ours(Kernel("conv", y, x), shapes, data)
    np.testing.assert_allclose(got.reshape(n, y.out, x.out, -1).transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60)
@given(axes(), axes(), st.sampled_from(["max", "average"]), st.booleans(), st.booleans(), st.integers(0, 99))
def test_pool(y: Window, x: Window, kind: Literal["max", "average"], ceil: bool, include: bool, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(2, 3, y.size, x.size)).astype(np.float32)
    extra = {"ceil_mode": int(ceil)} | ({"count_include_pad": int(include)} if kind == "average" else {})
    expected = onnx_run("MaxPool" if kind == "max" else "AveragePool", [image], **spatial(y, x), **extra)
    y, x = sized(y, expected.shape[2]), sized(x, expected.shape[3])
    shapes: dict[Role, tuple[int, ...]] = {"input": (2, y.size, x.size, 1, 3), "output": (2, y.out, x.out, 1, 3)}
    data = {"input": image.transpose(0, 2, 3, 1).reshape(shapes["input"])}
    got = ours(Kernel("pool", y, x, pool=Pool(kind, y, x, include)), shapes, data)
    np.testing.assert_allclose(got[:, :, :, 0].transpose(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6)


ACTIVATIONS: list[tuple[str, tuple[float, ...], dict[str, float]]] = [
    ("Relu", (), {}),
    ("LeakyRelu", (0.25,), {"alpha": 0.25}),
    ("HardSigmoid", (0.3, 0.4), {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", (), {}),
    ("Sigmoid", (), {}),
    ("Tanh", (), {}),
]


@pytest.mark.parametrize(("name", "parameters", "attributes"), ACTIVATIONS)
def test_activation(name: str, parameters: tuple[float, ...], attributes: dict[str, float]) -> None:
    values = np.linspace(-9, 9, 1001, dtype=np.float32)
    expected = onnx_run(name, [values], **attributes)
    got = flat(Kernel("identity", POINT, POINT, Activation(name, parameters)), {"input": values})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def flat(kernel: Kernel, data: dict[str, Array]) -> Array:
    """A kernel on vectors along the channels."""
    vectors = {role: values.reshape((1, 1, 1, 1, -1)) for role, values in data.items()}
    shapes: dict[Any, tuple[int, ...]] = {role: values.shape for role, values in vectors.items()}
    shapes |= {role: (1, prod(shapes[role])) for role in ("scale", "bias", "slope") if role in shapes}
    flat_data = {role: values.reshape(shapes[role]) for role, values in vectors.items()}
    return ours(kernel, {**shapes, "output": shapes["input"]}, flat_data).reshape(-1)


def test_clip() -> None:
    values = np.linspace(-9, 9, 101, dtype=np.float32)
    expected = onnx_run("Clip", [values, np.array(-1.5, np.float32), np.array(6, np.float32)])
    got = flat(Kernel("identity", POINT, POINT, Activation("Clip", (-1.5, 6.0))), {"input": values})
    np.testing.assert_array_equal(got, expected)


def test_prelu() -> None:
    values, slope = np.linspace(-9, 9, 100, dtype=np.float32), np.linspace(-1, 2, 100, dtype=np.float32)
    got = flat(Kernel("identity", POINT, POINT, Activation("PRelu")), {"input": values, "slope": slope})
    np.testing.assert_allclose(got, onnx_run("PRelu", [values, slope]), rtol=1e-6)


OPERATIONS: list[tuple[Literal["add", "sub", "mul"], str]] = [("add", "Add"), ("sub", "Sub"), ("mul", "Mul")]


@pytest.mark.parametrize(("operation", "operator"), OPERATIONS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 1, 5), (1, 1, 1, 1, 5), (2, 1, 4, 1, 1), (1, 1, 1, 1, 1)])
def test_elementwise_broadcasts(operation: Literal["add", "sub", "mul"], operator: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 1, 5)).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    shapes: dict[Role, tuple[int, ...]] = {"input": a.shape, "second": shape, "output": a.shape}
    got = ours(Kernel(operation, Window(3, 3), Window(4, 4)), shapes, {"input": a, "second": b})
    np.testing.assert_array_equal(got, onnx_run(operator, [a, b]))


def test_scale_is_a_batch_norm() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    gain, beta, mean = (rng.normal(size=5).astype(np.float32) for _ in range(3))
    variance = rng.random(5).astype(np.float32) + 1
    scale = gain / np.sqrt(variance + 1e-5)
    expected = onnx_run("BatchNormalization", [x, gain, beta, mean, variance])
    data: dict[str, Array] = {
        "input": x.transpose(0, 2, 3, 1).reshape(2, 3, 4, 1, 5),
        "scale": scale[np.newaxis].astype(np.float32),
        "bias": (beta - mean * scale)[np.newaxis].astype(np.float32),
    }
    shapes: dict[Role, tuple[int, ...]] = {"input": (2, 3, 4, 1, 5), "scale": (1, 5), "bias": (1, 5)}
    got = ours(Kernel("scale", Window(3, 3), Window(4, 4)), {**shapes, "output": (2, 3, 4, 1, 5)}, data)
    np.testing.assert_allclose(got[:, :, :, 0].transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pads", [(1, 2, 0, 3), (0, 0, 2, 0), (-1, 0, -1, 2)])
def test_identity_pads_and_crops(pads: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = pads
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 5)).astype(np.float32)
    ends = np.array([0, 0, top, left, 0, 0, bottom, right])
    node = helper.make_node("Pad", ["x", "p", "v"], ["y"])
    graph = helper.make_graph(
        [node],
        "pad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("p", TensorProto.INT64, [8], ends), helper.make_tensor("v", TensorProto.FLOAT, [], [0.75])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (expected,) = _session(model.SerializeToString()).run(None, {"x": x})
    y, z = Window(4, 4 + top + bottom, pad=top), Window(5, 5 + left + right, pad=left)
    shapes: dict[Role, tuple[int, ...]] = {"input": (1, 4, 5, 1, 2), "output": (1, y.out, z.out, 1, 2)}
    data = {"input": x.transpose(0, 2, 3, 1).reshape(shapes["input"])}
    got = ours(Kernel("identity", y, z, fill=0.75), shapes, data)
    np.testing.assert_array_equal(got[:, :, :, 0].transpose(0, 3, 1, 2), np.asarray(expected))
