"""Fusion: which nodes become one layer, so that what lies between them never leaves the chip.

An array layer is  Conv | Gemm | MatMul  [+ residual] [+ activation] [+ pool];
a vector layer is  Add | Sub | Mul | BatchNormalization | pool  [+ activation].
A node joins only through a value that nothing else reads and that is no output of the graph, only where the machine
fuses that kind of work, and only where the caller allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from dnnc import operators
from dnnc.graph import Graph, Loader, Node, Value
from dnnc_runtime.machine import Machine

Fused = Callable[[str, str], bool]
"""(layer name, kind of fused work as a machine names it) -> allowed."""

Slot = Literal["residual", "activation", "pool"]


@dataclass(frozen=True, slots=True)
class Group:
    """The nodes of one layer: the main one, and those fused behind it in this order."""

    main: Node
    residual: Node | None = None
    activation: Node | None = None
    pool: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The group's nodes in the order they run."""
        return tuple(n for n in (self.main, self.residual, self.activation, self.pool) if n is not None)

    @property
    def output(self) -> str:
        """The value that the group writes."""
        return self.nodes[-1].outputs[0]

    @property
    def summand(self) -> str | None:
        """The operand of the fused residual addition that comes from outside the group."""
        if self.residual is None:
            return None
        return next(name for name in self.residual.inputs if name != self.main.outputs[0])


def always(layer: str, kind: str) -> bool:
    """Allows every fusion."""
    return True


def fuse(graph: Graph, machine: Machine, allowed: Fused = always) -> tuple[Group, ...]:
    """Every node of the graph in exactly one group, in an order of execution.

    A group stands where its last node does, so all that it reads is written before. Where either of two layers could
    take a residual addition, the later one does: the other's result is then ready.
    """
    taken: dict[str, Group] = {}
    mains = [n for n in graph.nodes if operators.kind(graph, n) == "array"]
    for node in (*reversed(mains), *graph.nodes):
        if node.name not in taken:
            group = _grown(graph, machine, allowed, node, taken)
            taken.update((member.name, group) for member in group.nodes)
    return tuple(taken[n.name] for n in graph.nodes if taken[n.name].nodes[-1] == n)


def _grown(graph: Graph, machine: Machine, allowed: Fused, main: Node, taken: dict[str, Group]) -> Group:
    """A group with everything that may be fused behind its main node."""
    group = Group(main)
    for slot, kind, joins in _STEPS.get(operators.kind(graph, main), ()):
        node = _sole_reader(graph, group.output)
        if node is None or node.name in taken or getattr(group, slot) or kind not in machine.fuses:
            continue
        if joins(graph, group, node) and allowed(main.name, kind):
            group = replace(group, **{slot: node})
    return group


def _sole_reader(graph: Graph, value: str) -> Node | None:
    """The one node that reads a value, once, if the value is seen nowhere else."""
    readers = graph.consumers(value)
    if len(readers) != 1 or value in graph.outputs or readers[0].inputs.count(value) != 1:
        return None
    return readers[0]


def _plane_axis(graph: Graph, group: Group) -> int:
    """The axis of a group's output whose planes its parameters belong to."""
    product = group.main.operator in ("Gemm", "MatMul")
    return len(graph.value(group.output).shape) - 1 if product else 1


def _joins_residual(graph: Graph, group: Group, node: Node) -> bool:
    shape = graph.value(group.output).shape
    return node.operator == "Add" and all(graph.value(name).shape == shape for name in node.inputs)


def _joins_activation(graph: Graph, group: Group, node: Node) -> bool:
    if operators.kind(graph, node) != "activation" or group.main.operator == "Pad":
        return False
    rank = len(graph.value(group.output).shape)
    slope = operators.plane_axis(graph, node.inputs[1], rank) if node.operator == "PRelu" else -1
    return slope in (-1, _plane_axis(graph, group)) or group.main.operator in ("Add", "Sub", "Mul")


def _joins_pool(operator: str, graph: Graph, group: Group, node: Node) -> bool:
    return group.main.operator == "Conv" and node.operator == operator and operators.kind(graph, node) == "pool"


_ACTIVATION: tuple[Slot, str, Callable[[Graph, Group, Node], bool]] = ("activation", "activation", _joins_activation)
_STEPS: dict[str, tuple[tuple[Slot, str, Callable[[Graph, Group, Node], bool]], ...]] = {
    "array": (
        ("residual", "residual", _joins_residual),
        _ACTIVATION,
        ("pool", "max_pool", partial(_joins_pool, "MaxPool")),
        ("pool", "average_pool", partial(_joins_pool, "AveragePool")),
    ),
    "vector": (_ACTIVATION,),
    "pool": (_ACTIVATION,),
}
"""For each kind of main node: the slots filled in order, what the machine calls them, what may fill them."""


def split_sums(graph: Graph, machine: Machine) -> Graph:
    """Gives a sum that cannot be a bias an Add node of its own, ``<node>:sum``, behind its convolution or product.

    A bias is a constant along the output planes, on a machine that fuses biases. Constant sums take their ``beta``.
    """
    split = [n for n in graph.nodes if operators.kind(graph, n) == "array" and _needs_split(graph, machine, n)]
    nodes: list[Node] = []
    values: list[Value] = []
    constants: dict[str, Loader] = {}
    for node in split:
        out = graph.value(node.outputs[0])
        product = replace(out, name=f"{node.name}:product")
        summand = graph.value(node.inputs[2])
        if summand.constant:
            summand, constants[f"{node.name}:summand"] = _summand(graph, node, len(out.shape))
            values.append(summand)
        values.append(product)
        nodes.append(replace(node, inputs=node.inputs[:2], outputs=(product.name,)))
        nodes.append(Node(f"{node.name}:sum", "Add", (product.name, summand.name), node.outputs, (), node.nodes))
    return graph.rewrite([n.name for n in split], nodes, values, constants) if split else graph


def _needs_split(graph: Graph, machine: Machine, node: Node) -> bool:
    if not operators.present(node, 2):
        return False
    if node.operator == "Conv":
        return "bias" not in machine.fuses
    value, rank = graph.value(node.inputs[2]), len(graph.value(node.outputs[0]).shape)
    along = operators.plane_axis(graph, value.name, rank)
    return not value.constant or along not in (-1, rank - 1) or "bias" not in machine.fuses


def _summand(graph: Graph, node: Node, rank: int) -> tuple[Value, Loader]:
    """The constant that stands in for a bias in an Add: along the planes, and times ``beta``."""
    value, load = graph.value(node.inputs[2]), graph.constant_loader(node.inputs[2])
    beta = np.float32(node.number("beta", 1.0))
    shape = (*value.shape, *(1,) * (rank - 2)) if node.operator == "Conv" else value.shape
    return replace(value, name=f"{node.name}:summand", shape=shape), lambda: (load() * beta).reshape(shape)
