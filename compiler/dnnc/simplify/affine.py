"""Scales and shifts per channel go into the weights and biases before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc.graph import Graph, Loader, Node, Value
from dnnc.simplify.rule import Edit, constants_only, derive, derived_name, sole_consumer

Vectors = Callable[[], tuple[NDArray[Any], NDArray[Any]]]
"""Loads a scale and a shift, one number per channel each, in float64."""


@dataclass(frozen=True, slots=True)
class Affine:
    """x * scale + shift per channel.

    Attributes:
        axis: of the channels; None where it is one number for all.
        vectors: loads scale and shift.
        shift: the constant that the shift comes from; a new bias is named after it.
        scales, shifts: whether the scale is not 1 and the shift is not 0.
    """

    axis: int | None
    vectors: Vectors
    shift: str
    scales: bool = True
    shifts: bool = True


@dataclass(frozen=True, slots=True)
class FoldAffine:
    """Folds a BatchNormalization, or a Mul, Add or Sub with a constant per channel, into the node before.

    That is a Conv, Gemm, MatMul (weights of two axes) or BatchNormalization (weights: its scale) with constant weights,
    whose output nothing else reads. The merged node keeps the first one's name and the second one's output. With a
    bias, a MatMul of matrices becomes a Gemm; one of more axes keeps its operator and takes the bias as a third input.

    Requires: canonical forms.
    Ensures: the folded constants are computed when they are wanted, in float64, and rounded once.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The merged node in place of two."""
        axis = _weights_axis(graph, node)
        if axis is None or not node.outputs or not constants_only(graph, node.inputs[1:]):
            return None
        reader = sole_consumer(graph, node.outputs[0])
        build = AFFINE.get(reader.operator) if reader else None
        affine = build(graph, reader, node.outputs[0]) if build and reader else None
        channels = len(graph.value(node.outputs[0]).shape) - 1 if node.operator in ("Gemm", "MatMul") else 1
        if reader is None or affine is None or affine.axis not in (None, channels):
            return None
        return _merged(graph, node, reader, affine, axis)


def _weights_axis(graph: Graph, node: Node) -> int | None:
    """The axis of a node's weights that its output channels have; None where it takes no scale."""
    if node.operator in ("Conv", "BatchNormalization"):
        return 0
    if node.operator == "Gemm" and not {"alpha", "beta"} & dict(node.attributes).keys():
        return 0 if node.integer("transB") else 1
    if node.operator == "MatMul" and len(graph.value(node.inputs[1]).shape) == 2:
        return 1
    return None


def _merged(graph: Graph, node: Node, reader: Node, affine: Affine, axis: int) -> Edit:
    """The edit that applies an affine map to a node's weights and bias."""
    edit = Edit((), (node,))
    weights = graph.value(node.inputs[1])
    if affine.scales:
        spread = [1] * len(weights.shape)
        spread[axis] = -1

        def scaled(data: NDArray[Any]) -> NDArray[Any]:
            return data * affine.vectors()[0].reshape(spread)

        edit = derive(graph, node, 1, scaled, weights.shape)
    merged, bias = _shifted(graph, edit.add[0], affine, weights.shape[axis])
    operator = node.operator
    if operator == "MatMul" and merged.input(2) and len(graph.value(reader.outputs[0]).shape) == 2:
        operator = "Gemm"
    merged = replace(merged, operator=operator, outputs=reader.outputs, nodes=node.nodes + reader.nodes)
    return Edit((node.name, reader.name), (merged,), (*edit.values, *bias.values), {**edit.constants, **bias.constants})


def _shifted(graph: Graph, node: Node, affine: Affine, channels: int) -> tuple[Node, Edit]:
    """A node with the scaled and shifted bias, and the constant that this takes."""
    if node.input(2):

        def moved(data: NDArray[Any]) -> NDArray[Any]:
            scale, shift = affine.vectors()
            return data * scale + shift

        edit = derive(graph, node, 2, moved, (channels,))
        return edit.add[0], edit
    if not affine.shifts:
        return node, Edit(())
    value = Value(derived_name(graph, affine.shift, node, 2), (channels,), constant=True)

    def bias() -> NDArray[Any]:
        return np.broadcast_to(affine.vectors()[1], (channels,)).astype(np.float32)

    return replace(node, inputs=(*node.inputs[:2], value.name)), Edit((), (), (value,), {value.name: bias})


def _batch_norm(graph: Graph, node: Node, _: str) -> Affine | None:
    if not constants_only(graph, node.inputs[1:]):
        return None
    loads = [graph.constant_loader(name) for name in node.inputs[1:]]
    epsilon = node.number("epsilon")

    def vectors() -> tuple[NDArray[Any], NDArray[Any]]:
        gamma, beta, mean, variance = (load().astype(np.float64) for load in loads)
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale

    return Affine(1, vectors, node.inputs[2])


def _binary(graph: Graph, node: Node, value: str) -> Affine | None:
    """Mul, Add or Sub of a value and a constant per channel."""
    other = node.inputs[1 - node.inputs.index(value)]
    shape = graph.value(value).shape
    constant = graph.value(other)
    if not constant.constant or graph.value(node.outputs[0]).shape != shape:
        return None
    full = (1,) * (len(shape) - len(constant.shape)) + constant.shape
    axes = [axis for axis, size in enumerate(full) if size > 1]
    if len(axes) > 1:
        return None
    axis = axes[0] if axes else None
    load = graph.constant_loader(other)
    if node.operator == "Mul":
        return Affine(axis, lambda: (_vector(load), np.zeros(1)), other, shifts=False)
    if node.operator == "Add":
        return Affine(axis, lambda: (np.ones(1), _vector(load)), other, scales=False)
    if node.inputs[0] == value:
        return Affine(axis, lambda: (np.ones(1), -_vector(load)), other, scales=False)
    return Affine(axis, lambda: (-np.ones(1), _vector(load)), other)


def _vector(load: Loader) -> NDArray[Any]:
    return load().reshape(-1).astype(np.float64)


AFFINE: Mapping[str, Callable[[Graph, Node, str], Affine | None]] = {
    "Add": _binary,
    "BatchNormalization": _batch_norm,
    "Mul": _binary,
    "Sub": _binary,
}
"""What reads each operator as an affine map of a value; None where it is not one."""
