"""Matrix products as convolutions of one tap: rows are y, the batches of a second factor that has them are groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from dnnc import operators
from dnnc.constants import Constant, ProductWeights
from dnnc.draft import Draft, Layouts, Loops, biases, in_order, spread, view_of
from dnnc.fuse import Group
from dnnc.graph import Graph, Node
from dnnc.layout import Layout, collapse, refine
from dnnc_runtime.program import Role, Window
from dnnc_runtime.tensor import View


def product(graph: Graph, group: Group, layouts: Layouts) -> Draft | None:
    """The rule for Gemm and MatMul; the second factor is constant weights, or a view of computed ones.

    Where the first factor's columns are the axes of a flattened map, they run as they lie in DRAM, and the rows of
    constant weights are permuted to match. Rows that do not merge into y are (y, x) or (n, y, x).
    """
    node = group.main
    extents = _extents(graph, node)
    maps: dict[Role, Layout] = {}
    for role, layout in layouts.items():
        if role != "weights":
            maps[role] = _map(node, extents, role, layout)
    weights: View | Constant | None
    if "weights" in layouts:
        weights = _weights_view(node, extents, layouts["weights"])
    else:
        weights, maps["input"] = _constant_weights(node, extents, maps["input"])
    rows = _rows(tuple(maps.values()))
    if weights is None or rows is None or not all(_is_usable(m) for m in maps.values()):
        return None
    views: dict[Role, View] = {}
    for i, (role, layout) in enumerate(maps.items()):
        views[role] = _view(layout, [(row.extent, row.strides[i]) for row in rows])
    constants: tuple[tuple[Role, Constant], ...] = biases(graph, group, extents.g, extents.k)
    if isinstance(weights, View):
        views["weights"] = weights
    else:
        constants = (("weights", weights), *constants)
    n, y, x = (row.extent for row in rows)
    return Draft("conv", n, extents.g, extents.k, extents.c, Window(y, y), Window(x, x), views, constants)


@dataclass(frozen=True, slots=True)
class _Extents:
    """A product as NumPy's matmul sees it: (*batch, m, c) times (*batch, c, k) of one rank."""

    first: tuple[int, ...]
    second: tuple[int, ...]

    @property
    def g(self) -> int:
        return prod(self.second[:-2])

    @property
    def k(self) -> int:
        return self.second[-1]

    @property
    def c(self) -> int:
        return self.first[-1]

    @property
    def groups(self) -> tuple[int, ...]:
        """The batch axes along which the second factor varies; all other axes but the last are rows."""
        return tuple(i for i, extent in enumerate(self.second[:-2]) if extent > 1)


def _extents(graph: Graph, node: Node) -> _Extents:
    a, b = operators.shape(graph, node, 0), operators.shape(graph, node, 1)
    a = a[::-1] if node.integer("transA") else a
    b = b[::-1] if node.integer("transB") else b
    # A vector is one row on the left, one column on the right.
    a, b = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
    rank = max(len(a), len(b))
    return _Extents((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b)


def _map(node: Node, extents: _Extents, role: Role, layout: Layout) -> Layout:
    """The first factor or the result with axes (rows, groups, planes)."""
    if role == "input":
        shape = extents.first
        layout = layout.transpose((1, 0)) if node.integer("transA") else layout
    else:
        shape = (*extents.first[:-1], extents.k)
    last = len(shape) - 1
    return _padded(layout, shape).merge(([i for i in range(last) if i not in extents.groups], extents.groups, (last,)))


def _padded(layout: Layout, shape: Sequence[int]) -> Layout:
    """With axes of extent 1 added, which any layout allows."""
    out = layout.reshape(shape)
    assert out is not None, f"{layout.shape} and {tuple(shape)} differ in more than axes of extent 1"
    return out


def _weights_view(node: Node, extents: _Extents, layout: Layout) -> View | None:
    """A computed second factor as weights (g, k, r, q, c)."""
    layout = _padded(layout.transpose((1, 0)) if node.integer("transB") else layout, extents.second)
    last = len(extents.second) - 1
    axes = layout.merge((extents.groups, (last,), (), (), (last - 1,)))
    subs = [(axes.shape[a], stride) for a in range(5) if (stride := axes.stride(a)) is not None]
    return view_of(layout, subs) if len(subs) == 5 else None


def _constant_weights(node: Node, extents: _Extents, first: Layout) -> tuple[Constant, Layout]:
    """Weights whose c runs as the first factor's columns lie in DRAM; the first factor with its columns so."""
    flat = first.axes[2]
    order = tuple(sorted(range(len(flat)), key=lambda i: -flat[i][1]))
    scale = node.number("alpha", 1.0)
    shape = (extents.g, extents.k, 1, 1, extents.c)
    make = ProductWeights(shape, node.integer("transB") == 1, scale, tuple(extent for extent, _ in flat), order)
    name = node.inputs[1] if scale == 1.0 else f"{node.inputs[1]}:folded"
    columns = Layout(first.tensor, first.offset, (*first.axes[:2], tuple(flat[i] for i in order)))
    return Constant(name, (node.inputs[1],), shape, make), columns


def _rows(maps: Sequence[Layout]) -> Loops | None:
    """The fewest loops that walk the rows of all maps together, as those of n, y, x."""
    axes = refine([Layout("", 0, (m.axes[0],)) for m in maps])
    return spread(collapse(in_order(axes[0]), 1), len(maps)) if axes is not None else None


def _is_usable(layout: Layout) -> bool:
    """Whether groups and contiguous planes are one axis each."""
    return layout.stride(1) is not None and layout.stride(2) in (0, 1)


def _view(layout: Layout, rows: Sequence[tuple[int, int]]) -> View:
    """(n, y, x, g, planes), the rows given."""
    subs = [(layout.shape[a], stride) for a in (1, 2) if (stride := layout.stride(a)) is not None]
    return view_of(layout, (*rows, *subs))
