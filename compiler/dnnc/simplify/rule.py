"""What a simplification is made of: edits that rules propose, and the loop that applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnnc.graph import AttributeValue, Graph, Loader, Node, Value

FOLDED = ":folded"
"""Ends the name of a constant that was computed from the model's."""

Function = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Edit:
    """A local change of a graph; the arguments of :meth:`Graph.rewrite`."""

    remove: tuple[str, ...]
    add: tuple[Node, ...] = ()
    values: tuple[Value, ...] = ()
    constants: Mapping[str, Loader] = field(default_factory=dict[str, Loader])


class Rule(Protocol):
    """A frozen value that proposes edits, one node at a time.

    An edit removes every node that it changes, and reads no values but those that the removed nodes read or wrote.
    So edits that remove different nodes can be applied together.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """What to change about a node, or None."""
        ...


def exhaust(graph: Graph, rule: Rule) -> Graph:
    """The graph after a rule has been applied until it proposes nothing more; verified after every round."""
    while edits := _disjoint(graph, rule):
        graph = graph.rewrite(
            [name for edit in edits for name in edit.remove],
            [node for edit in edits for node in edit.add],
            [value for edit in edits for value in edit.values],
            {name: loader for edit in edits for name, loader in edit.constants.items()},
        )
    return graph


def _disjoint(graph: Graph, rule: Rule) -> list[Edit]:
    """The edits that a rule proposes, leaving out those that touch a node of an earlier one."""
    edits: list[Edit] = []
    touched: set[str] = set()
    for node in graph.nodes:
        edit = rule.edit(graph, node)
        if edit is None:
            continue
        # New values count too: two edits may have hit on one name.
        names = {*edit.remove, *(value.name for value in edit.values)}
        if touched.isdisjoint(names):
            touched |= names
            edits.append(edit)
    return edits


def reads(node: Node, old: str, new: str) -> Node:
    """A node that reads one value instead of another."""
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def with_attributes(node: Node, **attributes: AttributeValue) -> Node:
    """A node that has just these attributes."""
    return replace(node, attributes=tuple(attributes.items()))


def fresh(graph: Graph, name: str) -> str:
    """A value name that the graph does not have."""
    while ("value", name) in graph.nx:
        name += "'"
    return name


def fresh_node(graph: Graph, name: str) -> str:
    """A node name that the graph does not have."""
    while ("node", name) in graph.nx:
        name += "'"
    return name


def derive(graph: Graph, node: Node, place: int, function: Function, shape: tuple[int, ...]) -> Edit:
    """The edit that replaces one constant input of a node by a function of its data, computed when it is wanted."""
    old = node.inputs[place]
    load = graph.constant_loader(old)
    value = Value(derived_name(graph, old, node, place), shape, graph.value(old).dtype, constant=True)
    changed = replace(node, inputs=(*node.inputs[:place], value.name, *node.inputs[place + 1 :]))
    return Edit((node.name,), (changed,), (value,), {value.name: lambda: _converted(function(load()), value)})


def derived_name(graph: Graph, old: str, node: Node, place: int) -> str:
    """The name of what is computed from a constant for one input of a node.

    It is the constant's with ``:folded`` behind; but the node's, with the place, where the constant is read elsewhere.
    """
    uses = sum(reader.inputs.count(old) for reader in graph.consumers(old))
    name = f"{old.removesuffix(FOLDED)}{FOLDED}" if uses == 1 else f"{node.name}:{place}{FOLDED}"
    return name if name == old else fresh(graph, name)


def _converted(data: NDArray[Any], value: Value) -> NDArray[Any]:
    return np.ascontiguousarray(data, np.dtype(value.dtype)).reshape(value.shape)


def sole_consumer(graph: Graph, value: str) -> Node | None:
    """The only reader of a value, where the value is no graph output and is read once."""
    readers = graph.consumers(value)
    if len(readers) != 1 or value in graph.outputs or readers[0].inputs.count(value) != 1:
        return None
    return readers[0]


def constants_only(graph: Graph, names: tuple[str, ...]) -> bool:
    """Whether all values of these names are constant; absent ones are."""
    return all(not name or graph.value(name).constant for name in names)
