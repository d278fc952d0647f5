"""The operators that the array runs: one row each, with what it asks of a node; all others run on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dnnc.graph import Graph, Node
from dnnc_runtime.program import Activation, Pool, Window

Kind = Literal["array", "vector", "activation", "pool", "alias", "concat", "host"]
Requirement = Callable[[Graph, Node], bool]
"""Whether a node meets a requirement; its docstring ends the sentence "the array needs ..."."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What a node of an operator is to the array, and what the array needs of it beyond floating-point data."""

    kind: Kind
    needs: tuple[Requirement, ...] = ()


def kind(graph: Graph, node: Node) -> Kind:
    """What a node is to the array: "host" where its operator or one of its particulars is not for the array."""
    return "host" if refusal(graph, node) else OPERATORS[node.operator].kind


def refusal(graph: Graph, node: Node) -> str | None:
    """Why a node runs on the host, as a sentence fragment; None if the array runs it."""
    operator = OPERATORS.get(node.operator)
    if operator is None:
        return f"the array has no unit for {node.operator}"
    needs = operator.needs if operator.kind in ("alias", "concat") else (_floats, *operator.needs)
    missed = next((need for need in needs if not need(graph, node)), None)
    return f"the array needs {missed.__doc__}" if missed else None


def shape(graph: Graph, node: Node, operand: int = 0) -> tuple[int, ...]:
    """Extents of a node's input."""
    return graph.value(node.inputs[operand]).shape


def present(node: Node, operand: int) -> bool:
    """Whether a node has an optional input."""
    return operand < len(node.inputs) and node.inputs[operand] != ""


def windows(graph: Graph, node: Node) -> tuple[Window, Window]:
    """The windows of a convolution or pool over rows and columns; a 1-D one has its axis on the columns."""
    space = shape(graph, node)[2:]
    out = graph.value(node.outputs[0]).shape[2:]
    ones, zeros = (1,) * len(space), (0,) * 2 * len(space)
    strides, dilations = node.integers("strides", ones), node.integers("dilations", ones)
    pads = node.integers("pads", zeros)
    before, after = pads[: len(space)], pads[len(space) :]
    fields = (space, out, node.integers("kernel_shape"), strides, dilations, before, after)
    axes = [Window(*axis) for axis in zip(*fields, strict=True)]
    y, x = [Window(1, 1), *axes][-2:]
    return y, x


def pool(graph: Graph, node: Node) -> Pool:
    """What a pooling node computes."""
    y, x = windows(graph, node)
    return Pool("max" if node.operator == "MaxPool" else "average", y, x, bool(node.integer("count_include_pad")))


def activation(node: Node) -> Activation:
    """An activation with its parameters, defaults filled in."""
    return Activation(node.operator, tuple(node.number(name, default) for name, default in ACTIVATIONS[node.operator]))


def plane_axis(graph: Graph, value: str, rank: int) -> int | None:
    """The axis of a tensor of some rank along which a value broadcast to it varies: -1 if along none.

    Returns:
        None where it varies along several axes.
    """
    extents = graph.value(value).shape
    varying = [rank - len(extents) + i for i, extent in enumerate(extents) if extent > 1]
    return -1 if not varying else varying[0] if len(varying) == 1 else None


def padding(node: Node) -> tuple[tuple[int, int], ...]:
    """Elements that a Pad adds before and after every axis of its input."""
    pads = node.integers("pads")
    return tuple(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))


def _constant(graph: Graph, node: Node, *operands: int) -> bool:
    return all(graph.value(node.inputs[i]).constant for i in operands if present(node, i))


def _floats(graph: Graph, node: Node) -> bool:
    """floating-point tensors"""
    return all(graph.value(name).dtype.startswith("float") for name in (*node.inputs[:1], *node.outputs[:1]) if name)


def _one_output(graph: Graph, node: Node) -> bool:
    """no output used but the first"""
    return not any(name in graph.outputs or graph.consumers(name) for name in node.outputs[1:] if name)


def _constant_weights(graph: Graph, node: Node) -> bool:
    """constant weights and bias"""
    return _constant(graph, node, 1, 2)


def _planar(graph: Graph, node: Node) -> bool:
    """one or two spatial axes"""
    return len(shape(graph, node)) in (3, 4)


def _explicit_padding(graph: Graph, node: Node) -> bool:
    """explicit padding that is not negative"""
    return node.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID") and min(node.integers("pads"), default=0) >= 0


def _summand(graph: Graph, node: Node) -> bool:
    """a computed summand unscaled (beta = 1)"""
    return _constant(graph, node, 2) or node.number("beta", 1.0) == 1.0


def _unscaled(graph: Graph, node: Node) -> bool:
    """a product of computed factors unscaled (alpha = 1)"""
    return _constant(graph, node, 1) or node.number("alpha", 1.0) == 1.0


def _batches(graph: Graph, node: Node) -> bool:
    """a first factor that has every batch of the second"""
    first, second = shape(graph, node)[:-2], shape(graph, node, 1)[:-2]
    own = ((1,) * len(second) + first)[len(first) :]
    return all(extent in (1, mine) for mine, extent in zip(own[len(own) - len(second) :], second, strict=True))


def _statistics(graph: Graph, node: Node) -> bool:
    """constant statistics, scale and shift (inference mode)"""
    return _constant(graph, node, 1, 2, 3, 4) and not node.integer("training_mode")


def _constant_bounds(graph: Graph, node: Node) -> bool:
    """constant bounds"""
    return len(node.inputs) == 1


def _plane_slope(graph: Graph, node: Node) -> bool:
    """a constant slope along one axis"""
    return _constant(graph, node, 1) and plane_axis(graph, node.inputs[1], len(shape(graph, node))) is not None


def _one_broadcast(graph: Graph, node: Node) -> bool:
    """one operand of the output's shape, the first of a difference unless that is a constant along one axis"""
    whole = graph.value(node.outputs[0]).shape
    first, second = (graph.value(name) for name in node.inputs)
    if node.operator != "Sub" or first.shape == whole:
        return whole in (first.shape, second.shape)
    return first.constant and second.shape == whole and plane_axis(graph, first.name, len(whole)) is not None


def _constant_padding(graph: Graph, node: Node) -> bool:
    """padding by a constant"""
    return node.attribute("mode", "constant") == "constant" and len(node.inputs) == 1


def _two_padded(graph: Graph, node: Node) -> bool:
    """padding of at most two axes, by no negative amount"""
    amounts = padding(node)
    return sum(pair != (0, 0) for pair in amounts) <= 2 and min(a for pair in amounts for a in pair) >= 0


def _float(number: float | np.float32) -> float:
    """The float32 that ONNX means by a number."""
    return float(np.float32(number))


ACTIVATIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "Relu": (),
    "LeakyRelu": (("alpha", _float(0.01)),),
    "PRelu": (),
    "Clip": (("min", -_float(np.finfo(np.float32).max)), ("max", _float(np.finfo(np.float32).max))),
    "HardSigmoid": (("alpha", _float(0.2)), ("beta", 0.5)),
    "HardSwish": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activations, and the names and defaults of their parameters."""

_WINDOWED = (_planar, _explicit_padding)
_BINARY = Operator("vector", (_one_broadcast,))
_POOL = Operator("pool", (*_WINDOWED, _one_output))
_ALIAS = Operator("alias")

OPERATORS: dict[str, Operator] = {
    "Conv": Operator("array", (_constant_weights, *_WINDOWED)),
    "Gemm": Operator("array", (_unscaled, _summand)),
    "MatMul": Operator("array", (_batches,)),
    "BatchNormalization": Operator("vector", (_statistics, _one_output)),
    "Add": _BINARY,
    "Sub": _BINARY,
    "Mul": _BINARY,
    "Pad": Operator("vector", (_constant_padding, _two_padded)),
    "MaxPool": _POOL,
    "AveragePool": _POOL,
    "Concat": Operator("concat"),
    "Identity": _ALIAS,
    "Flatten": _ALIAS,
    "Reshape": _ALIAS,
    "Squeeze": _ALIAS,
    "Unsqueeze": _ALIAS,
    "Transpose": _ALIAS,
    **{name: Operator("activation") for name in ACTIVATIONS},
    "Clip": Operator("activation", (_constant_bounds,)),
    "PRelu": Operator("activation", (_plane_slope,)),
}
"""Every operator that the array runs or that costs nothing."""
