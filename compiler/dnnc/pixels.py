"""Layers whose outputs each look at their own pixel alone: rows and columns become one axis of pixels.

A 1x1 convolution is a matrix product with one row for each pixel. As one axis, pixels are cut into runs of any length,
and units take equal shares of them instead of whole rows.
"""

from __future__ import annotations

from dataclasses import replace

from dnnc.axis import pointwise
from dnnc.layer import Layer, Operand, Shape, dense_axes
from dnnc_runtime.program import Window
from dnnc_runtime.tensor import View

MAPS = ("input", "second", "residual", "output")
"""Operands with rows and columns, axes 1 and 2 of (n, y, x, g, channel)."""


def merge_pixels(layer: Layer) -> Layer:
    """The layer with one axis of pixels, or as it is where a window, a pool or a layout keeps rows apart."""
    shape = layer.shape
    if shape.x.out == 1 or shape.pool or not (pointwise(shape.y) and pointwise(shape.x)):
        return layer
    if layer.kernel.operation == "pool" or not _second_merges(shape):
        return layer
    if not all(_merges(operand.view) for operand in layer.operands if operand.role in MAPS):
        return layer
    pixels = shape.y.out * shape.x.out
    y, x = Window(pixels, pixels), Window(1, 1)
    operands = tuple(_merged(operand) if operand.role in MAPS else operand for operand in layer.operands)
    views: dict[str, View] = {operand.role: operand.view for operand in operands}
    dense = tuple((role, dense_axes(views[role]) if role in MAPS else merged) for role, merged in shape.dense)
    second = shape.second and (shape.second[0], shape.second[1], False, shape.second[3])
    merged = replace(shape, y=y, x=x, dense=dense, second=second)
    return replace(layer, shape=merged, kernel=replace(layer.kernel, y=y, x=x), operands=operands)


def _second_merges(shape: Shape) -> bool:
    """Whether a second operand has both rows and columns, or neither."""
    return shape.second is None or shape.second[1] == shape.second[2]


def _merges(view: View) -> bool:
    rows, columns = view.shape[1:3]
    return rows == 1 or columns == 1 or view.strides[1] == columns * view.strides[2]


def _merged(operand: Operand) -> Operand:
    view = operand.view
    n, rows, columns, *channels = view.shape
    of_n, of_row, of_column, *of_channels = view.strides
    step = of_row if columns == 1 else of_column
    merged = View(view.tensor, view.offset, (n, rows * columns, 1, *channels), (of_n, step, 0, *of_channels))
    return replace(operand, view=merged)
