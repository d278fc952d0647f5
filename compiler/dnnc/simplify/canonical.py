"""One form for each operator, whatever the opset: sizes explicit, small constants as attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from dnnc.graph import AttributeValue, Graph, Node, Value
from dnnc.simplify.products import turned_product
from dnnc.simplify.rule import Edit, constants_only, derive, fresh, fresh_node, with_attributes
from dnnc_runtime.errors import ModelFault

DEFAULTS: Mapping[str, Mapping[str, AttributeValue]] = {
    "LeakyRelu": {"alpha": 0.01},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
"""Attributes that are written out where a model leaves them to their defaults."""


@dataclass(frozen=True, slots=True)
class Canonicalise:
    """Brings operators to the forms that the description of :mod:`dnnc.simplify` lists.

    Ensures: names of values and nodes stay. What has no canonical form is left as the model has it: a Clip whose bounds
    are computed, a Pad of integers.
    """

    def edit(self, graph: Graph, node: Node) -> Edit | None:
        """The node in its canonical form, if it is not in it."""
        feature = all(graph.value(name).dtype == "float32" for name in node.outputs if name)
        rewrite = FORMS.get(node.operator) if feature else None
        edit = rewrite(graph, node) if rewrite else None
        return edit if edit and edit.add != (node,) else None


def _spatial(graph: Graph, node: Node) -> tuple[int, ...]:
    """Extents of the spatial axes of a node's first input."""
    return graph.value(node.inputs[0]).shape[2:]


def _window(graph: Graph, node: Node, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Kernel, strides and pads of a sliding window, automatic padding resolved."""
    ones = (1,) * len(kernel)
    strides = node.integers("strides", ones)
    pads = node.integers("pads", (0,) * 2 * len(kernel))
    mode = node.attribute("auto_pad", "NOTSET")
    if mode != "NOTSET":
        taps = zip(
            _spatial(graph, node),
            graph.value(node.outputs[0]).shape[2:],
            kernel,
            strides,
            node.integers("dilations", ones),
            strict=True,
        )
        totals = [max((out - 1) * step + (k - 1) * gap + 1 - size, 0) for size, out, k, step, gap in taps]
        if mode == "VALID":
            totals = [0] * len(totals)
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = tuple(less + more if mode == "SAME_UPPER" else more + less)
    return {"kernel_shape": kernel, "strides": strides, "pads": pads}


def _conv(graph: Graph, node: Node) -> Edit:
    maps, channels, *kernel = graph.value(node.inputs[1]).shape
    group, found = node.integer("group", 1), graph.value(node.inputs[0]).shape[1]
    # Shape inference lets these pass.
    if (
        group < 1
        or found != channels * group
        or maps % group
        or node.integers("kernel_shape", tuple(kernel)) != tuple(kernel)
    ):
        raise ModelFault(
            f"node {node.name!r} (Conv): {found} input channels, {group} groups and kernel_shape "
            f"{node.attribute('kernel_shape')!r} do not fit weights {[maps, channels, *kernel]}"
        )
    dilations = node.integers("dilations", (1,) * len(kernel))
    new = with_attributes(node, **_window(graph, node, tuple(kernel)), dilations=dilations, group=group)
    return Edit((node.name,), (replace(new, inputs=_trimmed(node.inputs)),))


def _pool(graph: Graph, node: Node) -> Edit | None:
    if len(node.outputs) != 1:
        return None
    kernel = node.integers("kernel_shape")
    attributes: dict[str, AttributeValue] = {**_window(graph, node, kernel)}
    if node.integers("dilations", (1,) * len(kernel)) != (1,) * len(kernel):
        attributes["dilations"] = node.integers("dilations")
    attributes.update({flag: 1 for flag in ("ceil_mode", "count_include_pad") if node.integer(flag)})
    return Edit((node.name,), (with_attributes(node, **attributes),))


def _global_pool(graph: Graph, node: Node) -> Edit:
    new = replace(node, operator=node.operator.removeprefix("Global"))
    return Edit((node.name,), (_whole(graph, new),))


def _whole(graph: Graph, node: Node) -> Node:
    """A pool whose window is the whole map."""
    kernel = _spatial(graph, node)
    ones, zeros = (1,) * len(kernel), (0,) * 2 * len(kernel)
    return with_attributes(node, kernel_shape=kernel, strides=ones, pads=zeros)


def _reduce_mean(graph: Graph, node: Node) -> Edit | None:
    """A mean over all spatial axes is a pool; without kept dimensions a Squeeze follows."""
    source, out = graph.value(node.inputs[0]), graph.value(node.outputs[0])
    axes = _listed(graph, node, "axes", 1)
    rank = len(source.shape)
    if axes is None or rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return None
    pool = replace(node, operator="AveragePool", inputs=node.inputs[:1])
    if node.integer("keepdims", 1):
        return Edit((node.name,), (_whole(graph, pool),))
    middle = Value(fresh(graph, f"{out.name}:mean"), source.shape[:2] + (1,) * (rank - 2))
    pool = _whole(graph, replace(pool, outputs=(middle.name,)))
    squeeze = Node(fresh_node(graph, f"{node.name}:squeeze"), "Squeeze", (middle.name,), (out.name,), nodes=node.nodes)
    return Edit((node.name,), (pool, with_attributes(squeeze, axes=tuple(range(2, rank)))), (middle,))


def _clip(graph: Graph, node: Node) -> Edit | None:
    if not constants_only(graph, node.inputs[1:]):
        return None
    bounds = dict(node.attributes)
    for name, value in zip(("min", "max"), node.inputs[1:], strict=False):
        if value:
            bounds[name] = float(graph.constant(value))
    return Edit((node.name,), (replace(with_attributes(node, **bounds), inputs=node.inputs[:1]),))


def _axes(graph: Graph, node: Node) -> Edit | None:
    axes = _listed(graph, node, "axes", 1)
    if axes is None:
        return None
    return Edit((node.name,), (replace(with_attributes(node, axes=axes), inputs=node.inputs[:1]),))


def _pad(graph: Graph, node: Node) -> Edit | None:
    rank = len(graph.value(node.inputs[0]).shape)
    pads, axes = _listed(graph, node, "pads", 1), _listed(graph, node, "axes", 3) or tuple(range(rank))
    if pads is None or not constants_only(graph, node.inputs[1:]):
        return None
    full = [0] * 2 * rank
    for i, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
    fill = node.input(2)
    value = float(graph.constant(fill)) if fill else node.number("value")
    mode = node.attribute("mode", "constant") or "constant"
    new = with_attributes(node, pads=tuple(full), value=value, mode=mode)
    return Edit((node.name,), (replace(new, inputs=node.inputs[:1]),))


def _batch_norm(_: Graph, node: Node) -> Edit:
    if node.integer("spatial", 1) != 1 or len(node.outputs) > 1:
        raise ModelFault(
            f"node {node.name!r} (BatchNormalization) is in training mode or not per channel; export it for inference"
        )
    return Edit((node.name,), (with_attributes(node, epsilon=node.number("epsilon", 1e-5)),))


def _sum(graph: Graph, node: Node) -> Edit | None:
    """A sum of many is a chain of additions; the last one keeps its name and output."""
    if len(node.inputs) < 2:
        return None
    adds: list[Node] = []
    values: list[Value] = []
    left = node.inputs[0]
    for i, right in enumerate(node.inputs[1:-1], 1):
        shape = np.broadcast_shapes(graph.value(left).shape if i == 1 else values[-1].shape, graph.value(right).shape)
        values.append(Value(fresh(graph, f"{node.outputs[0]}:{i}"), shape))
        name = fresh_node(graph, f"{node.name}:{i}")
        adds.append(Node(name, "Add", (left, right), (values[-1].name,), nodes=node.nodes))
        left = values[-1].name
    last = replace(node, operator="Add", inputs=(left, node.inputs[-1]), attributes=())
    return Edit((node.name,), (*adds, last), tuple(values))


def _gemm(graph: Graph, node: Node) -> Edit:
    kept = {k: node.number(k, 1.0) for k in ("alpha", "beta") if node.number(k, 1.0) != 1}
    flags = {k: 1 for k in ("transA", "transB") if node.integer(k)}
    new = replace(with_attributes(node, **kept, **flags), inputs=_trimmed(node.inputs))
    return _gemm_factor(graph, new) or _gemm_bias(graph, new) or Edit((node.name,), (new,))


def _gemm_factor(graph: Graph, node: Node) -> Edit | None:
    """alpha and beta go into constant operands."""
    for key, place in (("alpha", 1), ("beta", 2)):
        factor, name = node.number(key, 1.0), node.input(place)
        new = with_attributes(node, **{k: v for k, v in node.attributes if k != key})
        if factor != 1 and not name:
            return Edit((node.name,), (new,))
        if factor != 1 and graph.value(name).constant:
            return derive(graph, new, place, partial(np.multiply, factor), graph.value(name).shape)
    return None


def _gemm_bias(graph: Graph, node: Node) -> Edit | None:
    """A constant per column becomes a vector; any other third operand is added afterwards."""
    if len(node.inputs) < 3 or node.number("beta", 1.0) != 1:
        return None
    bias, out = graph.value(node.inputs[2]), graph.value(node.outputs[0])
    columns = out.shape[1:]
    if bias.constant and prod(bias.shape[:-1]) == 1:
        if bias.shape == columns:
            return None
        return derive(graph, node, 2, lambda data: np.broadcast_to(data.reshape(-1), columns), columns)
    middle = Value(fresh(graph, f"{out.name}:product"), out.shape)
    product = replace(node, inputs=node.inputs[:2], outputs=(middle.name,))
    add = Node(fresh_node(graph, f"{node.name}:add"), "Add", (middle.name, bias.name), (out.name,), nodes=node.nodes)
    return Edit((node.name,), (product, add), (middle,))


def _transpose(graph: Graph, node: Node) -> Edit:
    rank = len(graph.value(node.inputs[0]).shape)
    return Edit((node.name,), (with_attributes(node, perm=node.integers("perm", tuple(range(rank))[::-1])),))


def _concat(graph: Graph, node: Node) -> Edit:
    axis = node.integer("axis") % len(graph.value(node.outputs[0]).shape)
    return Edit((node.name,), (with_attributes(node, axis=axis),))


def _defaults(_: Graph, node: Node) -> Edit:
    return Edit((node.name,), (with_attributes(node, **{**DEFAULTS[node.operator], **dict(node.attributes)}),))


def _listed(graph: Graph, node: Node, name: str, place: int) -> tuple[int, ...] | None:
    """Integers from an attribute or, in newer opsets, from a constant input; None where neither is there."""
    if node.attribute(name) is not None:
        return node.integers(name)
    given = node.input(place)
    if not given or not graph.value(given).constant:
        return None
    return tuple(int(item) for item in graph.constant(given).reshape(-1))


def _trimmed(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs without absent ones at the end."""
    return inputs if inputs[-1] else _trimmed(inputs[:-1])


FORMS: Mapping[str, Callable[[Graph, Node], Edit | None]] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": turned_product,
    "MaxPool": _pool,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Squeeze": _axes,
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": _axes,
    **dict.fromkeys(DEFAULTS, _defaults),
}
"""What brings each operator to its canonical form; an operator without a row stays as it is."""
