"""Drafts of layers: extents and operand views, and how views come from layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from dnnc import operators
from dnnc.constants import Constant, PerPlane
from dnnc.fuse import Group
from dnnc.graph import Graph
from dnnc.layout import Layout, Loop, Sub, collapse, refine
from dnnc_runtime.program import Role, Window
from dnnc_runtime.tensor import View

Operation = Literal["conv", "pool", "add", "sub", "mul", "scale", "identity"]
Layouts = Mapping[Role, Layout]
Loops = tuple[Loop, Loop, Loop]
"""Loops for n, y and x."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A layer's extents, its operands' views and its constants; names and fused work come later."""

    operation: Operation
    n: int
    g: int
    k: int
    c: int
    y: Window
    x: Window
    views: Mapping[Role, View]
    constants: tuple[tuple[Role, Constant], ...] = ()
    second: tuple[bool, bool, bool, bool] | None = None
    fill: float = 0.0


def maps_views(layouts: Layouts, groups: int = 1) -> dict[Role, View] | None:
    """(n, y, x, g, channel) of feature maps (image, channel, [row,] column); None unless channels are contiguous."""
    found: dict[Role, View] = {}
    for role, layout in layouts.items():
        view = _maps_view(layout, groups)
        if view is None:
            return None
        found[role] = view
    return found


def _maps_view(layout: Layout, groups: int) -> View | None:
    strides = [s for a in range(len(layout.axes)) if (s := layout.stride(a)) is not None]
    if len(strides) < len(layout.axes) or strides[1] > 1:
        return None
    n, channels, *space = layout.shape
    image, channel, *spatial = strides
    planes = channels // groups
    rows = [1] * (2 - len(space))
    shape = (n, *rows, *space, groups, planes)
    inner = (planes * channel if groups > 1 else 0, channel if planes > 1 else 0)
    return View(layout.tensor, layout.offset, shape, (image, *(0 for _ in rows), *spatial, *inner))


def walk(layouts: Sequence[Layout], channel: int | None = None) -> tuple[Loops, Loop] | None:
    """Loops for (n, y, x) and for the planes that walk layouts of one shape together, as the last of them lies.

    Args:
        layouts: the output's last.
        channel: the axis that must be the planes; else they are the output's innermost loop.

    Returns:
        None where the layouts take more than four loops.
    """
    axes = refine(layouts)
    if axes is None:
        return None
    planes = () if channel is None else axes[channel]
    rest = in_order(loop for a, axis in enumerate(axes) if a != channel for loop in axis)
    if channel is None:
        rest, planes = rest[:-1], rest[-1:]
    outer = spread(collapse(rest, 3), len(layouts))
    if outer is None or len(planes) > 1:
        return None
    return outer, planes[0] if planes else Loop(1, (0,) * len(layouts))


def in_order(loops: Iterable[Loop]) -> tuple[Loop, ...]:
    """Loops from outermost to innermost as the last layout lies."""
    return tuple(sorted(loops, key=lambda loop: -loop.strides[-1]))


def spread(loops: Sequence[Loop], layouts: int) -> Loops | None:
    """At most three loops as those of n, y, x, in this order: one is y, two are y and x; None if there are more."""
    none = Loop(1, (0,) * layouts)
    if len(loops) > 3:
        return None
    n, y, x = {0: (none, none, none), 1: (none, *loops, none), 2: (none, *loops), 3: loops}[len(loops)]
    return n, y, x


def view_of(layout: Layout, axes: Iterable[Sub]) -> View:
    """A view of a layout by (extent, stride); what repeats one word (stride 0, a broadcast) it has once."""
    once = [(extent if stride else 1, stride) for extent, stride in axes]
    return View(layout.tensor, layout.offset, tuple(e for e, _ in once), tuple(s for _, s in once))


def per_plane(graph: Graph, value: str, g: int, k: int, scale: float = 1.0) -> Constant:
    """A constant that is one number, or one for each output plane, as a parameter (g, k)."""
    changed = scale != 1.0 or prod(graph.value(value).shape) != g * k
    return Constant(f"{value}:folded" if changed else value, (value,), (g, k), PerPlane((g, k), scale))


def biases(graph: Graph, group: Group, g: int, k: int) -> tuple[tuple[Role, Constant], ...]:
    """The bias of a convolution or product, if it has one."""
    node = group.main
    if not operators.present(node, 2):
        return ()
    return (("bias", per_plane(graph, node.inputs[2], g, k, node.number("beta", 1.0))),)
