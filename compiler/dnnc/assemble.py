"""Drafts to layers: fused work, parameters, names, and how DRAM runs merge."""

from __future__ import annotations

from collections.abc import Mapping

from dnnc import operators
from dnnc.constants import Constant
from dnnc.draft import Draft, per_plane
from dnnc.dram import Dram
from dnnc.fuse import Group
from dnnc.graph import Graph
from dnnc.layer import Layer, Operand, Shape, dense_axes
from dnnc_runtime.program import Kernel, Role

_MAPS: tuple[Role, ...] = ("input", "second", "residual", "output")
_PARAMETERS: tuple[Role, ...] = ("bias", "scale", "slope")


def assemble(graph: Graph, dram: Dram, group: Group, draft: Draft, values: Mapping[Role, str]) -> Layer:
    """The layer of a group: its draft with the work fused behind it; its constants go to DRAM.

    Args:
        values: the value that each operand of the draft's views is.
    """
    act = group.activation or (group.main if operators.kind(graph, group.main) == "activation" else None)
    pool = group.pool or (group.main if draft.operation == "pool" else None)
    constants = dict(draft.constants)
    if act and act.operator == "PRelu":
        constants["slope"] = per_plane(graph, act.inputs[1], draft.g, draft.k)
    operands = [Operand(role, values[role], view) for role, view in draft.views.items()]
    for role, constant in constants.items():
        operands.append(Operand(role, constant.name, dram.constant(constant)))
    kernel = Kernel(
        draft.operation,
        draft.y,
        draft.x,
        operators.activation(act) if act else None,
        operators.pool(graph, pool) if pool else None,
        draft.fill,
    )
    nodes = tuple(dict.fromkeys(name for node in group.nodes for name in node.nodes))
    shape = _shape(draft, kernel, constants)
    return Layer(group.main.name, group.main.operator, nodes, shape, kernel, tuple(operands))


def copy_layer(name: str, nodes: tuple[str, ...], draft: Draft, values: Mapping[Role, str]) -> Layer:
    """A copy of one value into another's place."""
    kernel = Kernel(draft.operation, draft.y, draft.x)
    operands = tuple(Operand(role, values[role], view) for role, view in draft.views.items())
    return Layer(name, "Identity", nodes, _shape(draft, kernel, {}), kernel, operands)


def _shape(draft: Draft, kernel: Kernel, constants: Mapping[Role, Constant]) -> Shape:
    """All that decides the layer's schedule."""
    packed = "weights" not in draft.views
    strided = (*_MAPS, "weights")
    return Shape(
        kind="array" if draft.operation == "conv" else "vector",
        n=draft.n,
        g=draft.g,
        k=draft.k,
        c=draft.c,
        y=draft.y,
        x=draft.x,
        parameters=sum(role in constants for role in _PARAMETERS),
        residual="residual" in draft.views,
        second=draft.second,
        pool=kernel.pool if draft.operation == "conv" else None,
        dense=tuple((role, dense_axes(draft.views[role])) for role in strided if role in draft.views),
        packed=packed,
    )
