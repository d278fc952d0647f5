"""How values lie in DRAM: every logical axis is a product of strided sub-axes.

With them a Reshape, Transpose, Flatten, Squeeze, Unsqueeze or slice of a tensor is another look at the same words.
Where two looks at one value must be walked together (a copy, an elementwise layer), :func:`refine` gives the loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from operator import mul

from dnnc_runtime.program import Placement
from dnnc_runtime.tensor import View

Sub = tuple[int, int]
"""A sub-axis: its extent and its stride in words. Stride 0 repeats one word (a broadcast)."""

Axis = tuple[Sub, ...]
"""A logical axis: sub-axes, outermost first. In normal form none has extent 1 and no two neighbours merge."""


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop over several layouts at once: its extent, and what one step adds to the address in each of them."""

    extent: int
    strides: tuple[int, ...]

    def merges(self, inner: Loop) -> bool:
        """Whether this loop around the inner one is one longer loop in every layout."""
        return all(a == b * inner.extent for a, b in zip(self.strides, inner.strides, strict=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a value lies in a DRAM tensor: word = offset + the sum of coordinate * stride over all sub-axes.

    Axes are kept in normal form, so two layouts are equal exactly if they put every element at the same word.
    """

    tensor: str
    offset: int
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(_normal(axis) for axis in self.axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the logical axes."""
        return tuple(prod(extent for extent, _ in axis) for axis in self.axes)

    def transpose(self, order: Sequence[int]) -> Layout:
        """The same words with axis ``order[i]`` as axis i."""
        return Layout(self.tensor, self.offset, tuple(self.axes[a] for a in order))

    def reshape(self, shape: Sequence[int]) -> Layout | None:
        """The same words in the same logical order under other extents; None where no sub-axes say so."""
        subs = _normal(tuple(sub for axis in self.axes for sub in axis))
        axes: list[Axis] = []
        for extent in reversed(shape):
            taken = _take(subs, extent)
            if taken is None:
                return None
            subs, axis = taken
            axes.append(axis)
        return Layout(self.tensor, self.offset, tuple(reversed(axes)))

    def merge(self, groups: Sequence[Sequence[int]]) -> Layout:
        """One axis for each group of axes (outermost first); every axis is in one group."""
        axes = (tuple(sub for a in group for sub in self.axes[a]) for group in groups)
        return Layout(self.tensor, self.offset, tuple(axes))

    def part(self, axis: int, start: int, extent: int) -> Layout | None:
        """The words whose coordinate on an axis is in [start, start + extent); None where sub-axes cannot say so."""
        if extent == self.shape[axis]:
            return self
        (_, stride), *inner = self.axes[axis]
        words = prod(size for size, _ in inner)
        if start % words or extent % words:
            return None
        cut = ((extent // words, stride), *inner)
        offset = self.offset + start // words * stride
        return Layout(self.tensor, offset, (*self.axes[:axis], cut, *self.axes[axis + 1 :]))

    def broadcast(self, shape: Sequence[int]) -> Layout:
        """Repeated to a shape by NumPy's rules: missing axes are outermost, axes of extent 1 stretch."""
        own: list[Axis] = [()] * (len(shape) - len(self.axes)) + list(self.axes)
        axes = (axis or ((extent, 0),) for axis, extent in zip(own, shape, strict=True))
        return Layout(self.tensor, self.offset, tuple(axes))

    def stride(self, axis: int) -> int | None:
        """Words between neighbours on an axis; 0 if it has extent 1, None if no one number says it."""
        subs = self.axes[axis]
        return 0 if not subs else subs[0][1] if len(subs) == 1 else None

    def placement(self, name: str) -> Placement:
        """Where a program finds the value: its sub-axes in logical order, to be reshaped to its shape."""
        subs = [sub for axis in self.axes for sub in axis]
        view = View(self.tensor, self.offset, tuple(e for e, _ in subs), tuple(s for _, s in subs))
        return Placement(name, self.shape, view)


def dense(tensor: str, shape: Sequence[int], order: Sequence[int] | None = None) -> Layout:
    """A whole tensor without gaps; ``order`` lists its axes from outermost to innermost (default: row-major)."""
    order = range(len(shape)) if order is None else order
    axes: list[Axis] = [()] * len(shape)
    stride = 1
    for a in reversed(order):
        axes[a] = ((shape[a], stride),)
        stride *= shape[a]
    return Layout(tensor, 0, tuple(axes))


def join(parts: Sequence[Layout], axis: int) -> Layout | None:
    """The layout whose consecutive parts along an axis are these; None where they do not lie in one row."""
    first = parts[0]
    if len(parts) == 1:
        return first
    stride, rest = divmod(parts[1].offset - first.offset, first.shape[axis])
    if rest or stride < 1:
        return None
    total = sum(part.shape[axis] for part in parts)
    whole = Layout(first.tensor, first.offset, (*first.axes[:axis], ((total, stride),), *first.axes[axis + 1 :]))
    return whole if all(a == b for a, b in zip(parts, pieces(whole, axis, parts), strict=True)) else None


def pieces(whole: Layout, axis: int, parts: Sequence[Layout]) -> tuple[Layout | None, ...]:
    """Where parts of these extents lie in a whole that is their concatenation along an axis."""
    extents = [part.shape[axis] for part in parts]
    starts = accumulate(extents[:-1], initial=0)
    return tuple(whole.part(axis, start, extent) for start, extent in zip(starts, extents, strict=True))


def refine(layouts: Sequence[Layout]) -> tuple[tuple[Loop, ...], ...] | None:
    """For every logical axis, the fewest loops (outermost first) that walk all layouts of one shape together.

    Returns:
        None where the layouts cut an axis at places that no common sub-axes have.
    """
    axes = [_refine_axis([layout.axes[a] for layout in layouts]) for a in range(len(layouts[0].axes))]
    return tuple(axis for axis in axes if axis is not None) if None not in axes else None


def collapse(loops: Sequence[Loop], limit: int) -> tuple[Loop, ...]:
    """Merges neighbouring loops where every layout allows it, outermost first, until at most ``limit`` are left."""
    out = list(loops)
    i = 0
    while len(out) > limit and i + 1 < len(out):
        if out[i].merges(out[i + 1]):
            out[i : i + 2] = [Loop(out[i].extent * out[i + 1].extent, out[i + 1].strides)]
        else:
            i += 1
    return tuple(out)


def _normal(axis: Axis) -> Axis:
    """Without sub-axes of extent 1, and with neighbours merged where one stride says both."""
    out: list[Sub] = []
    for extent, stride in axis:
        if extent == 1:
            continue
        if out and out[-1][1] == extent * stride:
            out[-1] = (out[-1][0] * extent, stride)
        else:
            out.append((extent, stride))
    return tuple(out)


def _take(subs: Axis, extent: int) -> tuple[Axis, Axis] | None:
    """Splits off the innermost sub-axes that make an axis of an extent: (what is left, the axis)."""
    left, axis = list(subs), list[Sub]()
    while extent > 1:
        size, stride = left.pop()
        if extent % size == 0:
            axis.insert(0, (size, stride))
            extent //= size
        elif size % extent == 0:
            axis.insert(0, (extent, stride))
            left.append((size // extent, stride * extent))
            extent = 1
        else:
            return None
    return tuple(left), tuple(axis)


def _inner(axis: Axis) -> list[int]:
    """For every sub-axis the words that one step of it passes over: the product of the extents inside it."""
    extents = [extent for extent, _ in axis]
    return list(accumulate(reversed(extents[1:]), mul, initial=1))[::-1] if axis else []


def _refine_axis(axes: list[Axis]) -> tuple[Loop, ...] | None:
    """The loops of one logical axis: cut wherever any layout is cut."""
    extent = prod(size for size, _ in axes[0])
    cuts = sorted({1, extent, *(c for axis in axes for c in _inner(axis))})
    if any(outer % inner for inner, outer in pairwise(cuts)):
        return None
    loops = [Loop(outer // inner, tuple(_step(axis, inner) for axis in axes)) for inner, outer in pairwise(cuts)]
    return tuple(reversed(loops))


def _step(axis: Axis, words: int) -> int:
    """What ``words`` steps of a logical axis add to the address; no sub-axis boundary lies strictly inside them."""
    inner = next((i, sub) for i, sub in zip(_inner(axis), axis, strict=True) if i <= words)
    return inner[1][1] * (words // inner[0])
