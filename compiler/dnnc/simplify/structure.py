"""Rules that remove nodes which compute nothing, or pad what the next node can pad by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dnnc.graph import Graph, Node
from dnnc.simplify.rule import Edit, reads, sole_consumer, with_attributes


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
    """Removes nodes that hand on their first input: Identity, Dropout, Cast to the same type, one-input Sum or Concat,
    Reshape to the same shape, Transpose and Pad that do nothing.

    Requires: canonical forms.
    1. Their readers read the input instead.
    2. Where the output is a graph output, the node before takes over its name.
    Does not fire on graph inputs or constants that are graph outputs too: that is a copy.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The removal of an identity."""
        test = IDENTITIES.get(node.operator)
        if test is None or any(node.outputs[1:]) or not test(graph, node):
            return None
        source, out = node.inputs[0], node.outputs[0]
        before = graph.producer(source)
        if out not in graph.outputs:
            readers = graph.consumers(out)
            add = [reads(reader, out, source) for reader in readers]
            gone = [node.name, *(reader.name for reader in readers)]
            # Whoever is before covers it in reports.
            if before:
                add.append(replace(before, nodes=before.nodes + node.nodes))
                gone.append(before.name)
            return Edit(tuple(gone), tuple(add))
        if before is None or source in graph.outputs:
            return None
        others = [reader for reader in graph.consumers(source) if reader != node]
        outputs = tuple(out if name == source else name for name in before.outputs)
        renamed = replace(before, outputs=outputs, nodes=before.nodes + node.nodes)
        gone = [node.name, before.name, *(reader.name for reader in others)]
        return Edit(tuple(gone), (renamed, *(reads(reader, source, out) for reader in others)))


@dataclass(frozen=True, slots=True)
class MergePads:
    """Merges a constant Pad of spatial axes into the pads of the node after it, its only reader.

    1. Conv, filled with 0.
    2. AveragePool, filled with 0: it counts the padding; it must count its own already, or have none.
    3. MaxPool, filled with the lowest number; or with 0, where what is padded is never negative.
    Pools must round down, have no dilation, and windows longer than the padding, so that none sees padding alone.

    Requires: canonical forms.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The merged node in place of the Pad and its reader."""
        if node.operator != "Pad" or node.attribute("mode") != "constant" or len(node.inputs) > 1:
            return None
        reader = sole_consumer(graph, node.outputs[0])
        pads = node.integers("pads")
        before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
        if reader is None or reader.input(0) != node.outputs[0] or min(pads) < 0 or any((*before[:2], *after[:2])):
            return None
        test = PADDED.get(reader.operator)
        own = reader.integers("pads") if test else ()
        added = tuple(a + b for a, b in zip(own, (*before[2:], *after[2:]), strict=bool(test)))
        if test is None or not test(graph, node, reader, added):
            return None
        attributes = dict(reader.attributes) | {"pads": added}
        if reader.operator == "AveragePool":
            attributes["count_include_pad"] = 1
        merged = replace(
            with_attributes(reader, **attributes),
            inputs=(node.input(0), *reader.inputs[1:]),
            nodes=node.nodes + reader.nodes,
        )
        return Edit((node.name, reader.name), (merged,))


def _conv_pads(_: Graph, pad: Node, reader: Node, added: tuple[int, ...]) -> bool:
    return pad.number("value") == 0


def _average_pads(_: Graph, pad: Node, reader: Node, added: tuple[int, ...]) -> bool:
    counted = bool(reader.integer("count_include_pad")) or not any(reader.integers("pads"))
    return pad.number("value") == 0 and counted and _windows_reach(reader, added)


def _max_pads(graph: Graph, pad: Node, reader: Node, added: tuple[int, ...]) -> bool:
    value = pad.number("value")
    before = graph.producer(pad.inputs[0])
    never_negative = before is not None and (
        before.operator in ("Relu", "Sigmoid", "HardSigmoid")
        or (before.operator == "Clip" and before.number("min", -1.0) >= 0)
    )
    lowest = value <= float(np.finfo(np.float32).min)
    return (lowest or (value == 0 and never_negative)) and _windows_reach(reader, added)


def _windows_reach(pool: Node, pads: tuple[int, ...]) -> bool:
    """Whether no window of a pool with these pads lies in the padding alone."""
    kernel = pool.integers("kernel_shape")
    plain = not pool.integer("ceil_mode") and pool.attribute("dilations") is None
    return plain and all(pad < taps for pad, taps in zip(pads, kernel + kernel, strict=True))


PADDED: Mapping[str, Callable[[Graph, Node, Node, tuple[int, ...]], bool]] = {
    "AveragePool": _average_pads,
    "Conv": _conv_pads,
    "MaxPool": _max_pads,
}
"""When a Pad before each operator can be merged, given the pads that would result."""


def _same(graph: Graph, node: Node) -> bool:
    """Whether a node's output has its first input's shape and type."""
    source, out = graph.value(node.inputs[0]), graph.value(node.outputs[0])
    return (source.shape, source.dtype) == (out.shape, out.dtype)


def _inference(graph: Graph, node: Node) -> bool:
    """Whether a Dropout is not in training mode."""
    mode = node.input(2)
    return not mode or (graph.value(mode).constant and not graph.constant(mode))


def _in_order(graph: Graph, node: Node) -> bool:
    """Whether a Transpose leaves every axis where it is."""
    shape = graph.value(node.inputs[0]).shape
    perm = node.integers("perm", tuple(range(len(shape)))[::-1])
    return _same(graph, node) and list(perm) == sorted(perm)


IDENTITIES: Mapping[str, Callable[[Graph, Node], bool]] = {
    "Cast": _same,
    "Concat": lambda _, node: len(node.inputs) == 1,
    "Dropout": _inference,
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
