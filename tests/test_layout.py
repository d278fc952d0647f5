"""Laws of layouts: whatever is done to them, they find the same elements as NumPy does."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnnc.layout import Layout, collapse, dense, join, pieces, refine

shapes = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4).map(tuple)
Words = NDArray[np.int64]


def words(layout: Layout) -> Words:
    """The DRAM word of every element, as an array of the layout's shape."""
    view = layout.placement("v").view
    address = np.full(view.shape, view.offset)
    for axis, (extent, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        steps = np.arange(extent) * stride
        address = address + steps.reshape([-1 if a == axis else 1 for a in range(len(view.shape))])
    return address.reshape(layout.shape)


@st.composite
def layouts(draw: st.DrawFn, extents: tuple[int, ...] | None = None) -> Layout:
    """A dense tensor in any order of its axes, transposed and reshaped at random."""
    shape = draw(shapes) if extents is None else draw(st.permutations(extents)).copy()
    layout = dense("t", shape, draw(st.permutations(range(len(shape)))))
    layout = layout.transpose(draw(st.permutations(range(len(shape)))))
    return layout.reshape(extents or draw(factorings(prod(shape)))) or layout


@st.composite
def factorings(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """Extents whose product is a total."""
    out: list[int] = []
    while total > 1 and len(out) < 4:
        out.append(draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0])))
        total //= out[-1]
    return (*out, total)


@given(shapes, st.data())
def test_a_dense_layout_fills_its_tensor_in_the_order_given(shape: tuple[int, ...], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    expected = np.arange(prod(shape)).reshape([shape[a] for a in order]).transpose(np.argsort(order))
    np.testing.assert_array_equal(words(dense("t", shape, order)), expected)


@given(layouts(), st.data())
def test_transpose_is_numpys(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(layout.shape))))
    np.testing.assert_array_equal(words(layout.transpose(order)), words(layout).transpose(order))


@given(layouts(), st.data())
def test_reshape_is_numpys_wherever_it_is_possible(layout: Layout, data: st.DataObject) -> None:
    shape = data.draw(factorings(prod(layout.shape)))
    found = layout.reshape(shape)
    if found is not None:
        np.testing.assert_array_equal(words(found), words(layout).reshape(shape))
        assert found.reshape(layout.shape) == layout


@given(shapes, st.data())
def test_a_row_major_tensor_takes_any_shape(shape: tuple[int, ...], data: st.DataObject) -> None:
    to = data.draw(factorings(prod(shape)))
    found = dense("t", shape).reshape(to)
    assert found is not None
    np.testing.assert_array_equal(words(found), np.arange(prod(shape)).reshape(to))


@given(layouts(), st.data())
def test_part_is_a_slice(layout: Layout, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(layout.shape) - 1))
    extent = data.draw(st.integers(1, layout.shape[axis]))
    start = data.draw(st.integers(0, layout.shape[axis] - extent))
    found = layout.part(axis, start, extent)
    if found is not None:
        np.testing.assert_array_equal(words(found), words(layout).take(range(start, start + extent), axis))
    assert found is not None or layout.stride(axis) is None


@given(layouts(), st.data())
def test_broadcast_is_numpys(layout: Layout, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.sampled_from([1, 3])) if e == 1 else e for e in layout.shape)
    shape = (*data.draw(st.lists(st.integers(1, 3), max_size=2)), *shape)
    np.testing.assert_array_equal(words(layout.broadcast(shape)), np.broadcast_to(words(layout), shape))


@given(layouts(), st.data())
def test_merged_axes_are_a_transposed_reshape(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(layout.shape))))
    cut = data.draw(st.integers(0, len(order)))
    groups = (order[:cut], order[cut:])
    extents = [prod(layout.shape[a] for a in group) for group in groups]
    np.testing.assert_array_equal(words(layout.merge(groups)), words(layout).transpose(order).reshape(extents))


@given(layouts(), st.data())
def test_layouts_are_equal_exactly_if_they_name_the_same_words(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(layout.shape))))
    other = layout.transpose(order)
    same = other.shape == layout.shape and bool((words(other) == words(layout)).all())
    assert (other == layout) == same


@given(shapes, st.data())
def test_parts_join_to_the_whole_in_order_only(shape: tuple[int, ...], data: st.DataObject) -> None:
    whole = dense("t", shape, data.draw(st.permutations(range(len(shape)))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    extents = data.draw(factorings_of_sum(shape[axis]))
    sizes = [dense("p", (*shape[:axis], extent, *shape[axis + 1 :])) for extent in extents]
    parts = [part for part in pieces(whole, axis, sizes) if part is not None]
    assert len(parts) == len(extents)
    assert join(parts, axis) == whole
    assert len(parts) == 1 or join(parts[::-1], axis) is None


@st.composite
def factorings_of_sum(draw: st.DrawFn, total: int) -> list[int]:
    """Extents whose sum is a total."""
    out: list[int] = []
    while sum(out) < total:
        out.append(draw(st.integers(1, total - sum(out))))
    return out


@given(shapes, st.data())
def test_refined_loops_walk_all_layouts_together(shape: tuple[int, ...], data: st.DataObject) -> None:
    both = [data.draw(layouts(shape)) for _ in range(2)]
    both = [layout for layout in both if layout.shape == shape]
    axes = refine(both) if both else None
    if axes is None:
        return
    loops = [loop for axis in axes for loop in axis]
    for limit in (len(loops), 1):
        few = collapse(loops, limit)
        assert prod(loop.extent for loop in few) == prod(shape)
        for i, layout in enumerate(both):
            address = np.array(layout.offset)
            for loop in few:
                address = address[..., None] + np.arange(loop.extent) * loop.strides[i]
            np.testing.assert_array_equal(address.reshape(shape), words(layout))


def test_a_channels_last_map_flattens_without_a_copy() -> None:
    # Words of (channel, row, column) = channel + 3 * column + 12 * row; flattened they run channel by channel.
    flat = dense("maps", (1, 3, 2, 4), (0, 2, 3, 1)).reshape((1, 24))
    assert flat is not None
    assert flat.axes == ((), ((3, 1), (8, 3)))
    assert flat.stride(1) is None


def test_a_cut_across_a_strided_axis_needs_a_copy() -> None:
    assert dense("maps", (1, 3, 2, 5), (0, 2, 3, 1)).reshape((6, 5)) is not None
    assert dense("maps", (1, 3, 5), (0, 2, 1)).reshape((1, 5, 3)) is None
