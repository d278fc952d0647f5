"""Matrix products whose second factor alone has batches, turned so that it is the first that has them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from dnnc.graph import Graph, Node, Value
from dnnc.simplify.rule import Edit, derive, fresh, fresh_node, with_attributes


def turned_product(graph: Graph, node: Node) -> Edit | None:
    """A B is the transpose of B' A': where the second factor alone has all batches, it is the first one there."""
    first, second, out = (graph.value(name) for name in (*node.inputs[:2], node.outputs[0]))
    batches = second.shape[:-2]
    if len(node.inputs) > 2 or len(first.shape) < 2 or batches != out.shape[:-2]:
        return None
    if prod(batches) == prod(first.shape[:-2]):
        return None
    turned = Value(fresh(graph, f"{out.name}:turned"), _turned(out.shape))
    sides = [_factor(graph, node, place) for place in (1, 0)]
    inputs = tuple(value.name for side in sides for value in side.values)
    nodes = [n for side in sides for n in side.add]
    nodes.append(replace(node, inputs=inputs, outputs=(turned.name,)))
    nodes.append(_turn(fresh_node(graph, f"{node.name}:turned"), turned, out.name, node))
    constants = {name: load for side in sides for name, load in side.constants.items()}
    return Edit((node.name,), tuple(nodes), (*(v for side in sides for v in side.values), turned), constants)


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    """With the last two axes in each other's place."""
    return (*shape[:-2], shape[-1], shape[-2])


def _factor(graph: Graph, node: Node, place: int) -> Edit:
    """What to add for the transpose of one factor of a product: a constant, or a node and its value."""
    value = graph.value(node.inputs[place])
    if value.constant:
        made = derive(graph, node, place, lambda data: np.swapaxes(data, -1, -2), _turned(value.shape))
        return Edit((), (), made.values, made.constants)
    turned = Value(fresh(graph, f"{node.outputs[0]}:factor{place}"), _turned(value.shape))
    return Edit((), (_turn(fresh_node(graph, f"{node.name}:factor{place}"), value, turned.name, node),), (turned,))


def _turn(name: str, source: Value, out: str, node: Node) -> Node:
    """A Transpose of the last two axes, in place of a node of the model."""
    turn = Node(name, "Transpose", (source.name,), (out,), nodes=node.nodes)
    return with_attributes(turn, perm=_turned(tuple(range(len(source.shape)))))
