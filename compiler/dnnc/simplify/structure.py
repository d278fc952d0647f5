"""Rules that remove nodes which compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dnnc.graph import Graph, Node
from dnnc.simplify.rule import Edit, reads


@dataclass(frozen=True, slots=True)
class RemoveDead:
    """Removes nodes that no graph output depends on.

    Ensures: every node has an output that is read or is a graph output.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The removal of a node whose outputs nothing reads."""
        live = any(name in graph.outputs or graph.consumers(name) for name in node.outputs if name)
        return None if live else Edit((node.name,))


@dataclass(frozen=True, slots=True)
class RemoveIdentities:
    """Removes nodes that hand on their first input: Identity, Dropout (none is imported that drops), Cast to the same
    type, one-input Sum or Concat, Reshape to the same shape, Transpose and Pad that do nothing.

    1. Their readers read the input instead.
    2. Where the output is a graph output, the node before takes over its name.
    3. Where that is taken, the input being a graph input, output or constant too, what stays is an Identity: a copy.

    Requires: canonical forms.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The removal of an identity."""
        test = IDENTITIES.get(node.operator)
        if test is None or any(node.outputs[1:]) or not test(graph, node):
            return None
        source, out = node.inputs[0], node.outputs[0]
        before = graph.producer(source)
        if out not in graph.outputs:
            return _bypassed(graph, node, before, old=out, new=source)
        if before and source not in graph.outputs:
            # Its other readers, and this node's, read what the node before now makes.
            named = replace(before, outputs=tuple(out if name == source else name for name in before.outputs))
            return _bypassed(graph, node, named, old=source, new=out)
        copy = Node(node.name, "Identity", (source,), (out,), nodes=node.nodes)
        return None if copy == node else Edit((node.name,), (copy,))


def _bypassed(graph: Graph, node: Node, before: Node | None, *, old: str, new: str) -> Edit:
    """The edit that takes a node away: who read the old value reads the new one; the node before covers it."""
    readers = [reader for reader in graph.consumers(old) if reader != node]
    changed = [reads(reader, old, new) for reader in readers]
    if before:
        changed.append(replace(before, nodes=before.nodes + node.nodes))
    return Edit((node.name, *(other.name for other in changed)), tuple(changed))


def _same(graph: Graph, node: Node) -> bool:
    """Whether a node's output has its first input's shape and type."""
    source, out = graph.value(node.inputs[0]), graph.value(node.outputs[0])
    return (source.shape, source.dtype) == (out.shape, out.dtype)


def _in_order(graph: Graph, node: Node) -> bool:
    """Whether a Transpose leaves every axis where it is."""
    shape = graph.value(node.inputs[0]).shape
    perm = node.integers("perm", tuple(range(len(shape)))[::-1])
    return _same(graph, node) and list(perm) == sorted(perm)


IDENTITIES: Mapping[str, Callable[[Graph, Node], bool]] = {
    "Cast": _same,
    "Concat": lambda _, node: len(node.inputs) == 1,
    "Dropout": lambda _, node: True,
    "Expand": _same,
    "Flatten": _same,
    "Identity": lambda _, node: True,
    "Pad": lambda graph, node: _same(graph, node) and not any(node.integers("pads", (1,))),
    "Reshape": _same,
    "Sum": lambda _, node: len(node.inputs) == 1,
    "Squeeze": _same,
    "Transpose": _in_order,
    "Unsqueeze": _same,
}
"""When a node of each operator does nothing."""
