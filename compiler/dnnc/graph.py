"""The intermediate representation: a graph of nodes and values over a networkx DiGraph.

A graph is a value: passes derive new ones with :meth:`Graph.rewrite`, and every graph verifies itself when made.
Its text form (``str(graph)``) reads back to an equal graph; the data of constants is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import networkx as nx
from numpy.typing import NDArray

from dnnc_runtime.errors import ModelFault

Digraph: TypeAlias = "nx.DiGraph[tuple[str, str]]"
"""Bipartite: ("value", name) and ("node", name), each with its Value or Node under "data"."""

Edges = list[tuple[tuple[str, str], tuple[str, str]]]

AttributeValue = int | float | str | bytes | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""An attribute of a node; bytes are a serialised ONNX tensor."""

Loader = Callable[[], NDArray[Any]]
"""Reads or computes a constant's data when it is wanted."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that nodes read and write: its ONNX name, extents and numpy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; an absent optional input or output is "".

    Attributes:
        name: unique in its graph; the ONNX node name, or its first output where that is empty or repeated.
        operator: ONNX operator, "domain::operator" outside the default domain.
        inputs, outputs: value names.
        attributes: sorted by name.
        nodes: names of the ONNX nodes it covers, itself included, in the order they would run.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(sorted(self.attributes)))
        object.__setattr__(self, "nodes", self.nodes or (self.name,))

    def input(self, place: int) -> str:
        """The name of the input at a place; "" where it is absent."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def attribute(self, name: str, default: AttributeValue | None = None) -> AttributeValue | None:
        """An attribute's value, or the default where the node does not have it."""
        return next((value for key, value in self.attributes if key == name), default)

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is an integer; a ModelFault if it is anything else."""
        value = self.attribute(name, default)
        if isinstance(value, int):
            return value
        raise ModelFault(f"node {self.name!r} ({self.operator}): attribute {name!r} is {value!r}, not an integer")

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """An attribute that is a list of integers; a ModelFault if it is anything else."""
        value = self.attribute(name, default)
        if isinstance(value, tuple):
            found = tuple(item for item in value if isinstance(item, int))
            if len(found) == len(value):
                return found
        raise ModelFault(f"node {self.name!r} ({self.operator}): attribute {name!r} is {value!r}, not integers")

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute that is a number; a ModelFault if it is anything else."""
        value = self.attribute(name, default)
        if isinstance(value, int | float):
            return float(value)
        raise ModelFault(f"node {self.name!r} ({self.operator}): attribute {name!r} is {value!r}, not a number")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a graph came from.

    Attributes:
        path: the ONNX file, or None for a model given as an object.
        sha256: of the ONNX file's bytes (of the serialised model where there is no file).
        open: gives the original ``onnx.ModelProto``, its external data not loaded.
    """

    path: Path | None
    sha256: str
    open: Callable[[], Any] = field(compare=False, repr=False)


class Graph:
    """An immutable, verified graph of nodes over values.

    Args:
        name: the model's name.
        inputs, outputs: value names, in the model's order.
        nodes: in any order; ties of the topological order keep it.
        values: every value that is an input, a constant or an output of a node.
        constants: for each constant value, what loads it.
        opsets: (domain, version) pairs; the default domain is "".
        source: where the graph came from.

    Raises:
        ModelFault: the graph is not well formed (see :meth:`verify`).
    """

    __slots__ = ("_constants", "inputs", "name", "nodes", "nx", "opsets", "outputs", "source")

    def __init__(
        self,
        name: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        nodes: Iterable[Node],
        values: Iterable[Value],
        constants: Mapping[str, Loader],
        opsets: Iterable[tuple[str, int]] = (),
        source: Source | None = None,
    ) -> None:
        self.name: Final = name
        self.inputs: Final = tuple(inputs)
        self.outputs: Final = tuple(outputs)
        self.opsets: Final = tuple(sorted(opsets))
        self.source: Final = source
        given = tuple(nodes)
        self.nx: Final[Digraph] = _digraph(given, values)
        self.nodes: Final = _topological(self.nx, given)
        self._constants: Final = {v: load for v, load in constants.items() if ("value", v) in self.nx}
        self.verify()

    def value(self, name: str) -> Value:
        """The value of that name; KeyError if there is none."""
        found: Value = self.nx.nodes["value", name]["data"]
        return found

    def node(self, name: str) -> Node:
        """The node of that name; KeyError if there is none."""
        found: Node = self.nx.nodes["node", name]["data"]
        return found

    @property
    def values(self) -> tuple[Value, ...]:
        """Every value."""
        return tuple(data["data"] for key, data in self.nx.nodes(data=True) if key[0] == "value")

    def producer(self, value: str) -> Node | None:
        """The node that writes a value; None for graph inputs and constants."""
        return next((self.node(name) for _, name in self.nx.pred["value", value]), None)

    def consumers(self, value: str) -> tuple[Node, ...]:
        """The nodes that read a value, each once, in execution order."""
        return tuple(self.node(name) for _, name in self.nx.succ["value", value])

    def constant(self, name: str) -> NDArray[Any]:
        """The data of a constant value, loaded now."""
        return self._constants[name]()

    def constant_loader(self, name: str) -> Loader:
        """What loads a constant value."""
        return self._constants[name]

    def opset(self, domain: str = "") -> int:
        """The model's opset version of a domain."""
        return dict(self.opsets)[domain]

    def rewrite(
        self,
        remove: Iterable[str] = (),
        add: Iterable[Node] = (),
        values: Iterable[Value] = (),
        constants: Mapping[str, Loader] | None = None,
    ) -> Graph:
        """A new graph without some nodes and with others; values that nothing uses any more go too.

        An added node stands where the removed one of its name stood, else just before the next added node.

        Args:
            remove: node names.
            add: nodes; they may carry names and outputs of removed ones.
            values: values that are new or change.
            constants: loaders of constants that are new or change.
        """
        gone = {name: self.node(name) for name in remove}
        nodes = _merged(self.nodes, gone, tuple(add))
        declared = {v.name: v for v in (*self.values, *values)}
        used = {*self.inputs, *self.outputs, *(v for n in nodes for v in (*n.inputs, *n.outputs))}
        kept = [v for v in declared.values() if v.name in used]
        loaders = {**self._constants, **(constants or {})}
        return Graph(self.name, self.inputs, self.outputs, nodes, kept, loaders, self.opsets, self.source)

    def verify(self) -> None:
        """Checks that every value is declared and has exactly one origin, and that constants have loaders.

        That names are unique and the graph has no cycle is checked before, when it is made.

        Raises:
            ModelFault: it is not so; the message names the value and the node.
        """
        for value in self.values:
            origins = (value.name in self.inputs) + value.constant + len(self.nx.pred["value", value.name])
            if origins != 1:
                found = "nothing produces it" if not origins else "it has more than one origin"
                raise ModelFault(f"value {value.name!r}: {found}; it must be one input, constant or node output")
            if value.constant and value.name not in self._constants:
                raise ModelFault(f"constant {value.name!r} has no data")
            if not value.constant and min(value.shape, default=1) < 1:
                raise ModelFault(f"value {value.name!r} has a zero-sized dimension: {list(value.shape)}")
        for name in (*self.inputs, *self.outputs):
            if ("value", name) not in self.nx:
                raise ModelFault(f"graph input or output {name!r} is not a value of the graph")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return _structure(self) == _structure(other)

    def __hash__(self) -> int:
        return hash((self.name, self.inputs, self.outputs, self.nodes))

    def __str__(self) -> str:
        from dnnc.graph_text import write

        return write(self)

    @staticmethod
    def parse(text: str) -> Graph:
        """The graph that a text form describes; its constants have no data.

        Raises:
            ModelFault: the text is malformed (the message names the line), or describes no graph.
        """
        from dnnc.graph_text import read

        return read(text)


def _digraph(nodes: tuple[Node, ...], values: Iterable[Value]) -> Digraph:
    """The frozen bipartite graph; duplicate names and undeclared values are faults."""
    out: Digraph = nx.DiGraph()
    for value in values:
        out.add_node(("value", value.name), data=value)
    for node in nodes:
        key = ("node", node.name)
        if not node.name or key in out:
            raise ModelFault(f"node name {node.name!r} ({node.operator}) is empty or used twice")
        out.add_node(key, data=node)
        for name in filter(None, (*node.inputs, *node.outputs)):
            if ("value", name) not in out:
                raise ModelFault(f"node {node.name!r} ({node.operator}) names value {name!r}, which nothing produces")
        out.add_edges_from((("value", name), key) for name in node.inputs if name)
        out.add_edges_from((key, ("value", name)) for name in node.outputs if name)
    nx.freeze(out)  # pyright: ignore[reportUnknownMemberType]
    return out


def _topological(digraph: Digraph, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes in topological order; where that leaves a choice, in the order given."""
    place = {node.name: i for i, node in enumerate(nodes)}

    def key(item: tuple[str, str]) -> int:
        return place[item[1]] if item[0] == "node" else -1

    try:
        order = list(nx.lexicographical_topological_sort(digraph, key))
    except nx.NetworkXUnfeasible:
        edges = cast(Edges, nx.find_cycle(digraph))  # pyright: ignore[reportUnknownMemberType]
        cycle = " -> ".join(repr(name) for (kind, name), _ in edges if kind == "node")
        raise ModelFault(f"the graph has a cycle through nodes {cycle}; it must have none") from None
    return tuple(digraph.nodes[item]["data"] for item in order if item[0] == "node")


def _merged(nodes: tuple[Node, ...], gone: Mapping[str, Node], add: tuple[Node, ...]) -> list[Node]:
    """The remaining and the added nodes, the latter in the places of those they replace."""
    place = {node.name: i for i, node in enumerate(nodes)}
    ordered = [(i, 1, node) for i, node in enumerate(nodes) if node.name not in gone]
    position = len(nodes)
    for offset, node in enumerate(reversed(add)):
        position = place[node.name] if node.name in gone else position
        ordered.append((position, -offset, node))
    return [node for _, _, node in sorted(ordered, key=lambda item: item[:2])]


def _structure(graph: Graph) -> tuple[object, ...]:
    """All that equality compares: everything but the constants' data and the source."""
    return graph.name, graph.inputs, graph.outputs, graph.opsets, graph.nodes, frozenset(graph.values)
