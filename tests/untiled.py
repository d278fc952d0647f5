"""What a lowered graph means, computed plainly: whole views in float64, no tiles, nothing shared with the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dnnc import onnx_import
from dnnc.graph import Graph
from dnnc.layer import HostLayer, Layer, Lowered, Shape, dense_axes
from dnnc_runtime.program import Activation, Kernel, Pool, Role, Window
from dnnc_runtime.tensor import View

Array = NDArray[Any]


def run(lowered: Lowered, graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every placed value. Words that nothing wrote are NaN; a word written twice is an error."""
    dram = {tensor.name: np.full(tensor.words, np.nan) for tensor in lowered.tensors}
    for name, load in lowered.constants.items():
        dram[name][:] = load().reshape(-1)
    places = {placement.name: placement for placement in lowered.placements}

    def read(name: str) -> Array:
        return look(dram, places[name].view).reshape(places[name].shape)

    def write(name: str, data: Array) -> None:
        _store(dram, places[name].view, data.reshape(places[name].view.shape))

    for name, data in inputs.items():
        write(name, data)
    for layer in lowered.layers:
        if isinstance(layer, HostLayer):
            results = _host(graph, layer, {name: read(name) for name in layer.inputs})
            for name, data in zip(layer.outputs, results, strict=True):
                write(name, data)
        else:
            check(layer)
            operands: dict[Role, Array] = {o.role: look(dram, o.view) for o in layer.operands if o.role != "output"}
            output = layer.operand("output")
            assert output is not None
            _store(dram, output.view, compute(layer.kernel, operands))
    return {name: read(name) for name in places}


def reference(graph: Graph, inputs: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """What onnxruntime finds for those of the values that the original model has."""
    model = onnx_import.with_outputs(onnx_import.original(graph), names)
    found = _session(model).run(None, dict(inputs))
    return {value.name: np.asarray(data) for value, data in zip(model.graph.output, found, strict=True)}


def check(layer: Layer) -> None:
    """That a layer's views are on its role's axes, and its shape says what they say."""
    s, k = layer.shape, layer.kernel
    inner = (s.g, s.c) if s.kind == "array" else (1, s.k)
    expected: dict[str, tuple[int, ...]] = {
        "input": (s.n, s.y.size, s.x.size, *inner),
        "weights": (s.g, s.k, k.y.kernel, k.x.kernel, s.c),
        "residual": (s.n, s.y.out, s.x.out, s.g, s.k),
        "output": (s.n, s.out_rows, s.out_columns, s.g, s.k),
        "second": _second(s),
        **dict.fromkeys(("bias", "scale", "slope"), (s.g, s.k)),
    }
    for operand in layer.operands:
        assert operand.view.shape == expected[operand.role], f"{layer.name}: {operand.role}"
    roles = {o.role: o.view for o in layer.operands}
    assert s.parameters == sum(role in roles for role in ("bias", "scale", "slope"))
    assert s.residual == ("residual" in roles)
    assert (s.y, s.x) == (k.y, k.x)
    for role, axes in s.dense:
        assert axes == dense_axes(next(view for r, view in roles.items() if r == role))
    if s.kind == "array":
        assert all(roles[r].strides[4] in (0, 1) for r in ("input", "output", "residual") if r in roles)


def _second(shape: Shape) -> tuple[int, ...]:
    extents = (shape.n, shape.y.out, shape.x.out, shape.k)
    n, y, x, k = (e if has else 1 for e, has in zip(extents, shape.second or (False,) * 4, strict=True))
    return n, y, x, 1, k


def compute(kernel: Kernel, operands: Mapping[Role, Array]) -> Array:
    """A layer's output: (n, y, x, g, k)."""
    out = _operation(kernel, operands)
    if "bias" in operands:
        out = out + operands["bias"]
    if "residual" in operands:
        out = out + operands["residual"]
    out = activate(kernel.activation, out, operands)
    return _pooled(kernel.pool, out) if kernel.pool and kernel.operation == "conv" else out


def activate(activation: Activation | None, x: Array, operands: Mapping[Role, Array]) -> Array:
    """An activation of every element."""
    if activation is None:
        return x
    a, b = (*activation.parameters, 0.0, 0.0)[:2]
    functions: dict[str, Callable[[], Array]] = {
        "Relu": lambda: np.maximum(x, 0),
        "LeakyRelu": lambda: np.where(x < 0, a * x, x),
        "PRelu": lambda: np.where(x < 0, operands["slope"] * x, x),
        "Clip": lambda: np.clip(x, a, b),
        "HardSigmoid": lambda: np.clip(a * x + b, 0, 1),
        "HardSwish": lambda: np.multiply(x, np.clip(x / 6 + 0.5, 0, 1)),
        "Sigmoid": lambda: np.reciprocal(1 + np.exp(-x)),
        "Tanh": lambda: np.tanh(x),
    }
    return functions[activation.name]()


def _operation(kernel: Kernel, operands: Mapping[Role, Array]) -> Array:
    x = operands["input"]
    match kernel.operation:
        case "conv":
            return _convolved(_windows(x, kernel.y, kernel.x, 0), operands["weights"])
        case "pool":
            assert kernel.pool is not None
            return _pooled(kernel.pool, x)
        case "scale":
            return x * operands["scale"]
        case "identity":
            out: Array = _windows(x, kernel.y, kernel.x, kernel.fill)[:, :, :, 0, 0]
            return out
        case "add":
            return x + operands["second"]
        case "sub":
            return x - operands["second"]
        case "mul":
            return x * operands["second"]


def _convolved(taps: Array, weights: Array) -> Array:
    """(n, y, x, r, q, g, c) times (g, k, r, q, c)."""
    g, k = weights.shape[:2]
    rows = taps.transpose(5, 0, 1, 2, 3, 4, 6).reshape(g, -1, weights[0, 0].size)
    out: Array = rows @ weights.reshape(g, k, -1).transpose(0, 2, 1)
    return out.reshape(g, *taps.shape[:3], k).transpose(1, 2, 3, 0, 4)


def _pooled(pool: Pool, x: Array) -> Array:
    if pool.kind == "max":
        largest: Array = _windows(x, pool.y, pool.x, -np.inf).max(axis=(3, 4))
        return largest
    counts = [_counts(window, pool.count_include_pad) for window in (pool.y, pool.x)]
    sums: Array = _windows(x, pool.y, pool.x, 0).sum(axis=(3, 4))
    return sums / np.outer(*counts)[None, :, :, None, None]


def _positions(window: Window) -> Array:
    o, t = np.arange(window.out)[:, None], np.arange(window.kernel)
    return o * window.stride + t * window.dilation - window.pad


def _counts(window: Window, padding: bool) -> Array:
    at = _positions(window)
    low, high = (-window.pad, window.size + window.pad_after) if padding else (0, window.size)
    counts: Array = ((at >= low) & (at < high)).sum(axis=1)
    return counts


def _windows(x: Array, y: Window, z: Window, fill: float) -> Array:
    """(n, out y, out x, r, q, ...): every window's taps, padding filled."""
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0), (0, 0)), constant_values=fill)
    rows, columns = (np.where((p < 0) | (p >= w.size), w.size, p) for w in (y, z) for p in [_positions(w)])
    out: Array = padded[:, rows[:, None, :, None], columns[None, :, None, :]]
    return out


def look(dram: Mapping[str, Array], view: View) -> Array:
    """A view's elements, in place."""
    words = dram[view.tensor][view.offset :]
    strides = [stride * words.itemsize for stride in view.strides]
    last = sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True))
    assert last < len(words), f"{view} ends outside its tensor"
    return np.lib.stride_tricks.as_strided(words, view.shape, strides)


def _store(dram: Mapping[str, Array], view: View, data: Array) -> None:
    target = look(dram, view)
    assert np.isnan(target).all(), f"{view} is written twice"
    target[...] = data


def _host(graph: Graph, layer: HostLayer, inputs: Mapping[str, Array]) -> list[Array]:
    feed = {name: data.astype(graph.value(name).dtype) for name, data in inputs.items()}
    session = _session(onnx_import.single_node_model(graph, graph.node(layer.name)))
    return [np.asarray(data) for data in session.run(None, feed)]


def _session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
