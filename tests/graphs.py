"""Random small networks: chains, diamonds, residual and dense blocks, concatenations, pools, shared kernels, in one or
two images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Value = tuple[str, int, int]
"""Name, channels, rows (as many columns)."""


class Builder:
    """Adds nodes to a model, with seeded random constants."""

    def __init__(self, images: int, channels: int, size: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.images = images
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input: Value = ("x", channels, size)

    def constant(self, *shape: int) -> str:
        """A random constant."""
        name = f"c{len(self.constants)}"
        values = (self.random.random(shape, np.float32) - np.float32(0.5)) * np.float32(0.8)
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def kernels(self, planes: int, channels: int, kernel: int) -> tuple[str, str]:
        """Random kernels and biases, for one convolution or more."""
        return self.constant(planes, channels, kernel, kernel), self.constant(planes)

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        """A node with one output."""
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))  # type: ignore[arg-type]
        return name

    def conv(
        self, x: Value, planes: int, kernel: int, stride: int = 1, group: int = 1, relu: bool = True,
        constants: tuple[str, str] | None = None,
    ) -> Value:  # fmt: skip
        """A convolution with padding that keeps the size at stride 1, with constants of its own unless given."""
        name, channels, size = x
        weights, biases = constants or self.kernels(planes, channels // group, kernel)
        out = self.node(
            "Conv", [name, weights, biases], kernel_shape=[kernel, kernel], strides=[stride, stride],
            pads=[kernel // 2] * 4, group=group,
        )  # fmt: skip
        out = self.node("Relu", [out]) if relu else out
        return out, planes, (size - 1) // stride + 1

    def pool(self, x: Value, kind: str) -> Value:
        """A pool of 3x3 windows at stride 2."""
        name, channels, size = x
        out = self.node(kind, [name], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        return out, channels, (size - 1) // 2 + 1

    def add(self, a: Value, b: Value) -> Value:
        """A sum."""
        return self.node("Relu", [self.node("Add", [a[0], b[0]])]), a[1], a[2]

    def concat(self, *parts: Value) -> Value:
        """A concatenation of channels."""
        return self.node("Concat", [name for name, _, _ in parts], axis=1), sum(c for _, c, _ in parts), parts[0][2]

    def norm(self, x: Value) -> Value:
        """A batch norm that follows no convolution, and a relu."""
        name, channels, size = x
        one = [self.constant(channels) for _ in range(3)]
        variance = numpy_helper.from_array(np.ones(channels, np.float32), f"c{len(self.constants)}")
        self.constants.append(variance)
        return self.node("Relu", [self.node("BatchNormalization", [name, *one, variance.name])]), channels, size

    def model(self, *outputs: Value) -> onnx.ModelProto:
        """All of it."""
        name, channels, size = self.input
        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.images, channels, size, size])
        made = [
            helper.make_tensor_value_info(out, TensorProto.FLOAT, [self.images, c, rows, rows])
            for out, c, rows in outputs
        ]
        graph = helper.make_graph(self.nodes, "random", [given], made, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


Grow = Callable[[st.DrawFn, Builder, Value, int, int], Value]
"""What some operators, of so many planes and so large kernels, make of a value."""


def _diamond(draw: st.DrawFn, made: Builder, x: Value, planes: int, kernel: int) -> Value:
    return made.concat(made.conv(x, planes, kernel), made.conv(x, draw(st.integers(1, 4)), 3))


def _residual(_: st.DrawFn, made: Builder, x: Value, planes: int, kernel: int) -> Value:
    return made.add(made.conv(made.conv(x, planes, kernel), x[1], 3, relu=False), x)


def _shortcut(draw: st.DrawFn, made: Builder, x: Value, planes: int, _: int) -> Value:
    stride = draw(st.sampled_from([1, 2]))
    inside = made.conv(made.conv(x, planes, 3, stride), 2 * planes, 1, relu=False)
    return made.add(inside, made.conv(x, 2 * planes, 1, stride, relu=False))


def _shared(_: st.DrawFn, made: Builder, x: Value, __: int, kernel: int) -> Value:
    same = made.kernels(x[1], x[1], kernel)
    return made.conv(made.conv(x, x[1], kernel, constants=same), x[1], kernel, constants=same)


def _twins(_: st.DrawFn, made: Builder, x: Value, planes: int, kernel: int) -> Value:
    same = made.kernels(planes, x[1], kernel)
    return made.concat(*(made.conv(x, planes, kernel, constants=same) for _ in range(2)))


KINDS: dict[str, Grow] = {
    "chain": lambda _, made, x, planes, kernel: made.conv(x, planes, kernel),
    "strided": lambda _, made, x, planes, kernel: made.conv(x, planes, kernel, stride=2),
    "diamond": _diamond,
    "residual": _residual,
    "shortcut": _shortcut,
    "dense": lambda _, made, x, planes, __: made.concat(x, made.conv(made.norm(x), planes, 3)),
    "pool": lambda draw, made, x, _, __: made.pool(x, draw(st.sampled_from(["MaxPool", "AveragePool"]))),
    "depthwise": lambda _, made, x, __, ___: made.conv(x, x[1], 3, group=x[1]),
    "shared": _shared,
    "twins": _twins,
}


@st.composite
def networks(draw: st.DrawFn, most: int = 7, largest: int = 9) -> onnx.ModelProto:
    """A network of about ``most`` operators on at most as many rows as ``largest``; perhaps with a second output."""
    size, channels = draw(st.integers(3, largest)), draw(st.integers(1, 5))
    made = Builder(draw(st.sampled_from([1, 1, 1, 2])), channels, size, draw(st.integers(0, 99)))
    x = made.conv(made.input, draw(st.integers(1, 6)), draw(st.sampled_from([1, 3])))
    extra: Value | None = None
    while len(made.nodes) < most:
        kind = draw(st.sampled_from([*KINDS, "out"]))
        planes, kernel = draw(st.integers(1, 6)), draw(st.sampled_from([1, 3]))
        if kind == "out":
            extra = x
        else:
            x = KINDS[kind](draw, made, x, planes, kernel)
    x = made.conv(x, draw(st.integers(1, 4)), 1)
    return made.model(*([x] if extra is None or extra[0] == x[0] else [extra, x]))
