"""Where values lie in DRAM before any layer is made: the order of their axes, and concatenations in place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from dnnc import operators
from dnnc.fuse import Group
from dnnc.graph import Graph, Node
from dnnc.layout import Layout, dense, join, pieces

Order = tuple[int, ...]
"""A value's axes from outermost to innermost in DRAM."""


def channels_last(rank: int) -> Order:
    """Images, then spatial axes, then channels."""
    return (0, *range(2, rank), 1)


def row_major(rank: int) -> Order:
    """The axes as they are."""
    return tuple(range(rank))


def alias(graph: Graph, node: Node, source: Layout) -> Layout | None:
    """Where the output of a shape-only node lies if its input lies at ``source``; None if it needs a copy."""
    if node.operator == "Transpose":
        return source.transpose(_permutation(graph, node))
    return source.reshape(graph.value(node.outputs[0]).shape)


def _unalias(graph: Graph, node: Node, target: Layout) -> Layout | None:
    """Where the input of a shape-only node must lie for its output to lie at ``target``."""
    if node.operator == "Transpose":
        permutation = _permutation(graph, node)
        return target.transpose([permutation.index(a) for a in range(len(permutation))])
    return target.reshape(operators.shape(graph, node))


def _permutation(graph: Graph, node: Node) -> Order:
    return node.integers("perm", tuple(reversed(range(len(operators.shape(graph, node))))))


_WINDOWED = frozenset({"Conv", "MaxPool", "AveragePool"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_WISHES = {
    **dict.fromkeys((*_WINDOWED, "BatchNormalization"), channels_last),
    **dict.fromkeys(_PRODUCTS, row_major),
}
"""The order in which operators want their operands to lie."""


def preferred(graph: Graph, node: Node, value: str) -> Order | None:
    """The order in which a node wants an operand to lie, if it matters to it."""
    if node.operator not in _WISHES:
        return None
    order = _WISHES[node.operator](len(graph.value(value).shape))
    turned = node.operator == "Gemm" and node.integer("transA") == 1 and value == node.inputs[0]
    return order[::-1] if turned else order


def orders(graph: Graph) -> dict[str, Order]:
    """The order in which every computed value's axes lie in DRAM, if it has a tensor of its own.

    1. What convolutions, pools and batch norms read or write lies channels-last.
    2. What products with constant weights read or write lies row-major.
    3. What products of computed factors read or write lies row-major (they mind less: a batch may lie anywhere).
    4. Shape-only, elementwise and such nodes hand an order on, forwards and backwards, before the next rule is used.
    5. Of all others, those of rank 4 lie channels-last, the rest row-major; they, too, hand it on.
    """
    found: dict[str, Order] = {}
    for rank in (0, 1, 2):
        nodes = (node for node in graph.nodes if _rank(graph, node) == rank)
        _spread(graph, found, (wish for node in nodes for wish in _wishes(graph, node)))
    for value in (value for value in graph.values if not value.constant):
        rank = len(value.shape)
        _spread(graph, found, [(value.name, channels_last(rank) if rank == 4 else row_major(rank))])
    return found


def _spread(graph: Graph, found: dict[str, Order], wishes: Iterable[tuple[str, Order]]) -> None:
    """Gives the values that have no order yet those wished for, and hands them on, nearest first."""
    queue = deque(wishes)
    while queue:
        name, order = queue.popleft()
        if name not in found:
            found[name] = order
            queue.extend(_neighbours(graph, name, order))


def _rank(graph: Graph, node: Node) -> int | None:
    """Whose wishes go first."""
    if node.operator in _PRODUCTS:
        return 1 if graph.value(node.inputs[1]).constant else 2
    return 0 if node.operator in _WISHES else None


def _wishes(graph: Graph, node: Node) -> Iterator[tuple[str, Order]]:
    operands = node.inputs[:2] if node.operator in _PRODUCTS else node.inputs[:1]
    for name in (*operands, node.outputs[0]):
        order = preferred(graph, node, name)
        if order is not None and not graph.value(name).constant:
            yield name, order


def _neighbours(graph: Graph, name: str, order: Order) -> Iterator[tuple[str, Order]]:
    """The values that should lie as this one does, so that no node between them has to reorder."""
    producer = graph.producer(name)
    for node in (*([producer] if producer else []), *graph.consumers(name)):
        if operators.kind(graph, node) == "alias" and name in (node.inputs[0], node.outputs[0]):
            yield from _handed(graph, node, name, order)
        elif node.operator not in _WINDOWED | _PRODUCTS:
            values = (graph.value(v) for v in (*node.inputs, *node.outputs) if v)
            yield from ((v.name, order) for v in values if len(v.shape) == len(order) and not v.constant)


def _handed(graph: Graph, node: Node, name: str, order: Order) -> Iterator[tuple[str, Order]]:
    """The order on the other side of a shape-only node, if it is an order of whole axes."""
    forward = name == node.inputs[0]
    layout = dense(name, graph.value(name).shape, order)
    other = alias(graph, node, layout) if forward else _unalias(graph, node, layout)
    if other is not None:
        strides = [other.stride(a) for a in range(len(other.axes))]
        if None not in strides:
            lying = sorted(range(len(strides)), key=lambda a: -(strides[a] or 0))
            yield (node.outputs[0] if forward else node.inputs[0]), tuple(lying)


def homes(graph: Graph, groups: Iterable[Group], order: Mapping[str, Order]) -> dict[str, Layout]:
    """Where concatenations lie, and the values that are computed straight into their parts of one.

    Graph inputs, constants, values that already lie in another concatenation and repeated operands are not among
    them: they are copied. A concatenation of consecutive parts of a larger one is a look at that.
    """
    found: dict[str, Layout] = {}
    for node in (group.main for group in reversed(tuple(groups))):
        if operators.kind(graph, node) == "concat":
            _settle(graph, node, order, found)
    return found


def _settle(graph: Graph, node: Node, order: Mapping[str, Order], found: dict[str, Layout]) -> None:
    name = node.outputs[0]
    extents = graph.value(name).shape
    axis = concat_axis(graph, node)
    placed = [found[v] for v in node.inputs if v in found]
    row = join(placed, axis) if len(placed) == len(node.inputs) else None
    if row is not None:
        found.setdefault(name, row)
        return
    whole = found.setdefault(name, dense(name, extents, order[name]))
    sizes = [dense(v, graph.value(v).shape) for v in node.inputs]
    for value, part in zip(node.inputs, pieces(whole, axis, sizes), strict=True):
        if part is not None:
            _claim(graph, value, part, order, found)


def _claim(graph: Graph, value: str, part: Layout, order: Mapping[str, Order], found: dict[str, Layout]) -> None:
    """Has a value computed into a part of a concatenation, through shape-only nodes if need be."""
    producer = graph.producer(value)
    if producer is None or value in found:
        return
    if operators.kind(graph, producer) == "alias":
        source = _unalias(graph, producer, part)
        if source is not None:
            _claim(graph, producer.inputs[0], source, order, found)
    elif all(part.stride(a) is not None for a in range(len(part.axes))) and part.stride(order[value][-1]) in (0, 1):
        found[value] = part


def concat_axis(graph: Graph, node: Node) -> int:
    """The axis that a Concat joins its inputs along, counted from the first."""
    return node.integer("axis") % len(graph.value(node.outputs[0]).shape)
