"""The rules by which a group of nodes becomes a layer: one for each family of operators.

A rule is a pure function of the group and of where its operands lie. It gives the layer's extents and every operand's
view on the fixed axes of its role, or None where some operand lies so that no view says it and a copy is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dnnc import operators
from dnnc.constants import Constant, ConvWeights, Filled, NormScale, NormShift
from dnnc.draft import Draft, Layouts, Operation, biases, in_order, maps_views, per_plane, view_of, walk
from dnnc.fuse import Group
from dnnc.graph import Graph, Node
from dnnc.layout import Layout, Loop, Sub, collapse, refine
from dnnc.product import product
from dnnc_runtime.program import Role, Window
from dnnc_runtime.tensor import View

Rule = Callable[[Graph, Group, Layouts], Draft | None]


def draft(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """A group as a layer, its operands lying as given; None where some must be copied first."""
    return RULES[group.main.operator](graph, group, layouts)


def operands(graph: Graph, group: Group) -> dict[Role, str]:
    """The values that a group reads and writes, apart from weights and parameters known at compile time."""
    node = group.main
    out: dict[Role, str] = {"input": node.inputs[0]}
    if node.operator in ("Add", "Sub", "Mul"):
        out = _binary_operands(graph, node)
    elif node.operator in ("Gemm", "MatMul") and not graph.value(node.inputs[1]).constant:
        out["weights"] = node.inputs[1]
    if group.summand:
        out["residual"] = group.summand
    return {**out, "output": group.output}


def _binary_operands(graph: Graph, node: Node) -> dict[Role, str]:
    """The input has the output's shape, and is the computed operand where both have."""
    first, second = (graph.value(name) for name in node.inputs)
    if is_negation(graph, node):
        return {"input": second.name}
    whole = graph.value(node.outputs[0]).shape
    if node.operator != "Sub" and second.shape == whole and (first.shape != whole or first.constant):
        first, second = second, first
    return {"input": first.name, "second": second.name}


def is_negation(graph: Graph, node: Node) -> bool:
    """Whether a difference is run as -1 * second + first: its first operand is a constant that broadcasts."""
    return node.operator == "Sub" and operators.shape(graph, node) != graph.value(node.outputs[0]).shape


def copy(source: Layout, target: Layout) -> Draft | None:
    """A copy from one layout to another of the same shape; None where that takes more than four loops."""
    return _elementwise("identity", {"input": source, "output": target})


def _conv(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """A convolution with constant weights, in groups; a 1-D one has one row."""
    node = group.main
    g = node.integer("group", 1)
    views = maps_views(layouts, g)
    if views is None:
        return None
    y, x = operators.windows(graph, node)
    planes, c = operators.shape(graph, node, 1)[:2]
    k = planes // g
    shape = (g, k, y.kernel, x.kernel, c)
    weights = Constant(node.inputs[1], node.inputs[1:2], shape, ConvWeights(shape))
    n = operators.shape(graph, node)[0]
    return Draft("conv", n, g, k, c, y, x, views, (("weights", weights), *biases(graph, group, g, k)))


def _pool(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """A pool that is a layer of its own: its windows, over planes k."""
    views = maps_views(layouts)
    if views is None:
        return None
    n, k = operators.shape(graph, group.main)[:2]
    return Draft("pool", n, 1, k, 1, *operators.windows(graph, group.main), views)


def _elementwise(operation: Operation, layouts: Layouts, channel: int | None = None) -> Draft | None:
    """Loops over whole operands of one shape; the planes are an axis if one is given, else what lies innermost."""
    loops = walk(tuple(layouts.values()), channel)
    if loops is None:
        return None
    (n, y, x), k = loops
    views: dict[Role, View] = {}
    for i, (role, layout) in enumerate(layouts.items()):
        outer = ((loop.extent, loop.strides[i]) for loop in (n, y, x))
        views[role] = view_of(layout, (*outer, (1, 0), (k.extent, k.strides[i])))
    return Draft(operation, n.extent, 1, k.extent, 1, _whole(y.extent), _whole(x.extent), views)


def _whole(extent: int) -> Window:
    return Window(extent, extent)


def _slope_axis(graph: Graph, group: Group, value: str) -> int | None:
    """The axis whose planes have a slope each, if the group's activation has such."""
    node = group.activation or group.main
    if node.operator != "PRelu":
        return None
    axis = operators.plane_axis(graph, node.inputs[1], len(graph.value(value).shape))
    return None if axis == -1 else axis


def _activation(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """An activation that is a layer of its own."""
    return _elementwise("identity", layouts, _slope_axis(graph, group, group.output))


def _norm(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """A batch norm that follows no convolution or product: input * scale + bias per channel."""
    made = _elementwise("scale", layouts, channel=1)
    if made is None:
        return None
    _, scale, shift, mean, variance = group.main.inputs
    epsilon, planes = group.main.number("epsilon", 1e-5), (1, made.k)
    factor = Constant(f"{scale}:folded", (scale, variance), planes, NormScale(planes, epsilon))
    summand = Constant(f"{shift}:folded", (scale, shift, mean, variance), planes, NormShift(planes, epsilon))
    return replace(made, constants=(("scale", factor), ("bias", summand)))


def _binary(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """Add, Sub and Mul; axes that the second operand lacks broadcast."""
    if is_negation(graph, group.main):
        return _negation(graph, group, layouts)
    whole: Layouts = {role: layout.broadcast(layouts["output"].shape) for role, layout in layouts.items()}
    made = _elementwise(_BINARY[group.main.operator], whole, _slope_axis(graph, group, group.output))
    if made is None:
        return None
    n, y, x, _, k = (a == b for a, b in zip(made.views["second"].shape, made.views["output"].shape, strict=True))
    return replace(made, second=(n, y, x, k))


def _negation(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """constant - x, where the constant is one number or one per plane, as -1 * x + constant: exact in any numbers."""
    first = group.main.inputs[0]
    along = operators.plane_axis(graph, first, len(operators.shape(graph, group.main, 1)))
    channel = None if along == -1 else along
    slope = _slope_axis(graph, group, group.output)
    if slope is not None and channel not in (None, slope):
        return None
    made = _elementwise("scale", layouts, channel if slope is None else slope)
    if made is None:
        return None
    minus = Constant(f"{group.main.name}:scale", (), (1, made.k), Filled((1, made.k), -1.0))
    return replace(made, constants=(("scale", minus), ("bias", per_plane(graph, first, 1, made.k))))


def _pad(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """Padding by a constant: the padded axes are y and x, wherever they lie; what else there is, n and k."""
    source, target = layouts["input"], layouts["output"]
    amounts = operators.padding(group.main)
    padded = sorted((a for a, pair in enumerate(amounts) if pair != (0, 0)), key=lambda a: -(target.stride(a) or 0))
    kept = [a for a in range(len(amounts)) if a not in padded]
    axes = refine([Layout("", 0, tuple(layout.axes[a] for a in kept)) for layout in (source, target)])
    rest = collapse(in_order(loop for axis in axes or () for loop in axis), 2)
    if axes is None or len(rest) > 2 or any(m.stride(a) is None for m in (source, target) for a in padded):
        return None
    n, k = (Loop(1, (0, 0)),) * (2 - len(rest)) + rest
    whole = _Padded(_whole(1), ((1, 0), (1, 0)))
    y, x = [*(_padded(source, target, a, amounts[a]) for a in padded), whole, whole][:2]
    views: dict[Role, View] = {}
    for i, (role, layout) in enumerate(layouts.items()):
        loops = ((n.extent, n.strides[i]), y.subs[i], x.subs[i], (1, 0), (k.extent, k.strides[i]))
        views[role] = view_of(layout, loops)
    fill = group.main.number("value")
    return Draft("identity", n.extent, 1, k.extent, 1, y.window, x.window, views, fill=fill)


@dataclass(frozen=True, slots=True)
class _Padded:
    """An axis of a Pad: its window, and how it lies in input and output."""

    window: Window
    subs: tuple[Sub, Sub]


def _padded(source: Layout, target: Layout, axis: int, amounts: tuple[int, int]) -> _Padded:
    sizes = source.shape[axis], target.shape[axis]
    window = Window(*sizes, pad=amounts[0], pad_after=amounts[1])
    return _Padded(window, ((sizes[0], source.stride(axis) or 0), (sizes[1], target.stride(axis) or 0)))


_BINARY: dict[str, Operation] = {"Add": "add", "Sub": "sub", "Mul": "mul"}

RULES: dict[str, Rule] = {
    "Conv": _conv,
    "Gemm": product,
    "MatMul": product,
    "BatchNormalization": _norm,
    **dict.fromkeys(_BINARY, _binary),
    "Pad": _pad,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(operators.ACTIVATIONS, _activation),
}
"""The rule of every operator that is a layer's main node."""
