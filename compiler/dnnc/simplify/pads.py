"""A Pad before what can pad by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dnnc.graph import Graph, Node
from dnnc.simplify.rule import Edit, sole_consumer, with_attributes


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
        test = PADDED.get(reader.operator) if reader else None
        pads = node.integers("pads")
        before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
        if not reader or not test or reader.input(0) != node.outputs[0]:
            return None
        if min(pads) < 0 or any((*before[:2], *after[:2])):
            return None
        added = tuple(a + b for a, b in zip(reader.integers("pads"), (*before[2:], *after[2:]), strict=True))
        if not test(graph, node, reader, added):
            return None
        counted = {"count_include_pad": 1} if reader.operator == "AveragePool" else {}
        merged = with_attributes(reader, **(dict(reader.attributes) | counted | {"pads": added}))
        merged = replace(merged, inputs=(node.input(0), *reader.inputs[1:]), nodes=node.nodes + reader.nodes)
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
