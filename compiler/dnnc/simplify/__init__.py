"""Simplification: Graph to Graph, the same numbers with fewer nodes and one form for each operator.

Afterwards these hold, for every opset; whatever has no such form is left as the model has it:

- Conv, MaxPool, AveragePool: ``kernel_shape``, ``strides``, ``pads`` are there, ``auto_pad`` is not. Conv has
  ``dilations`` and ``group``; pools have ``dilations``, ``ceil_mode``, ``count_include_pad`` where they matter.
- GlobalAveragePool, GlobalMaxPool and ReduceMean over all spatial axes are pools of the whole map.
- Gemm has no ``alpha`` and ``beta`` (unless operands that are not constant need them), ``transA`` and ``transB`` where
  they are 1, and no third input or a constant vector (N,). A MatMul of matrices with a bias is a Gemm; one of more axes
  with a bias has the constant vector as third input. A MatMul whose second factor alone has all batches is the
  transpose of the product of its transposed factors.
- BatchNormalization has ``epsilon`` alone. It is folded into the node before it where that can be;
  so is a Mul, Add or Sub with a constant per channel.
- Clip has ``min`` and ``max`` (where it is bounded), Squeeze and Unsqueeze ``axes``, Pad ``pads`` (of all axes),
  ``value`` and ``mode``, all as attributes, with one input. Transpose has ``perm``, Concat no negative ``axis``,
  LeakyRelu ``alpha``, HardSigmoid ``alpha`` and ``beta``.
- Sum of two or more is a chain of Add. Identity, Dropout and their like are gone, but for an
  Identity from a graph input, output or constant to a graph output.
- Every node's output is read or is a graph output. Values keep the names that the model gives to what they hold.
"""

from __future__ import annotations

from collections.abc import Callable

from dnnc.graph import Graph
from dnnc.simplify.affine import FoldAffine
from dnnc.simplify.canonical import Canonicalise
from dnnc.simplify.pads import MergePads
from dnnc.simplify.rule import Edit, Rule, exhaust
from dnnc.simplify.structure import RemoveDead, RemoveIdentities

__all__ = [
    "RULES",
    "Canonicalise",
    "Edit",
    "FoldAffine",
    "MergePads",
    "RemoveDead",
    "RemoveIdentities",
    "Rule",
    "simplify",
]

RULES: tuple[Rule, ...] = (RemoveDead(), Canonicalise(), RemoveIdentities(), MergePads(), FoldAffine())
"""The rules in the order in which they run."""


def simplify(
    graph: Graph, rules: tuple[Rule, ...] = RULES, observe: Callable[[Rule, Graph], object] | None = None
) -> Graph:
    """The simplified graph.

    Args:
        graph: with shapes of all values.
        rules: what to apply, each until it changes nothing more.
        observe: called with each rule and the graph after it.

    Raises:
        ModelFault: a node is in a mode that inference does not have, or a rule broke the graph.
    """
    for rule in rules:
        graph = exhaust(graph, rule)
        if observe:
            observe(rule, graph)
    return graph
