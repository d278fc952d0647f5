"""What the operations mean, on arrays of words: the same functions serve tiles on chip and whole tensors.

Arrays have the roles' axes. Rows and columns are gathered through tap tables ``[output, tap] -> position``, in
which padding is the position after the last one, so that padding is never among the words held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import extents
from dnnc_runtime.frame import taps, touched
from dnnc_runtime.numbers import Numbers, Tally, Words
from dnnc_runtime.program import Kernel, Pool, Role, Window
from dnnc_runtime.regions import Integers, listed
from dnnc_runtime.tensor import Axis, Region, coordinates, extent, runs

GATHER_BYTES = 1 << 24
"""Convolutions gather at most about this much at a time."""

Operands = Mapping[Role, Words]


def visit(kernel: Kernel, numbers: Numbers, operands: Operands, region: Region) -> NDArray[Any]:
    """Products of input and weights summed over taps and channels: ``[n, y, x, g, k]``, exact, strip by strip."""
    held = touched(kernel.y, region[1]), touched(kernel.x, region[2])
    x, right = operands["input"], weigh(numbers, operands["weights"])
    rows, row = coordinates(region[1]), extent(region[2]) * x.shape[0] * x.shape[3] * right.shape[1]
    step = max(1, GATHER_BYTES // max(1, row * numbers.exact.itemsize))
    strips: list[Words] = []
    for i in range(0, len(rows), step):
        strip = (region[0], runs(rows[i : i + step]), *region[2:])
        strips.append(multiply(gather(kernel, numbers, x, strip, held), right, strip))
    return strips[0] if len(strips) == 1 else np.concatenate(strips, axis=1)


def gather(kernel: Kernel, numbers: Numbers, x: Words, region: Region, held: tuple[Axis, Axis]) -> NDArray[Any]:
    """The taps of every output of a region, zeros for padding: ``[g, n * y * x, r * q * c]``, exact.

    Args:
        x: the input at the rows and columns ``held``.
    """
    n, height, width, g, c = x.shape
    rows, columns = taps(kernel.y, region[1], held[0]), taps(kernel.x, region[2], held[1])
    points, window = n * len(rows) * len(columns), rows.shape[1] * columns.shape[1]
    taken = x
    if window > 1 or not _straight(rows, height) or not _straight(columns, width):
        taken = _take(x.reshape(n, height * width, g * c), rows, columns, height, width)
    grouped: Words = taken.reshape(points, window, g, c).transpose(2, 0, 1, 3)
    return grouped.reshape(g, points, window * c).astype(numbers.exact, copy=False)


def _take(flat: Words, rows: Integers, columns: Integers, height: int, width: int) -> Words:
    """``[n, y * x * r * q, channels]`` from ``[n, height * width, channels]``."""
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    padding = (y == height) | (x == width)
    where: Integers = y * width + x
    if padding.any():
        flat = np.concatenate([flat, np.zeros((flat.shape[0], 1, flat.shape[2]), flat.dtype)], axis=1)
        where[padding] = height * width
    taken: Words = flat.take(where.reshape(-1), axis=1)
    return taken


def _straight(table: Integers, size: int) -> bool:
    """Whether a table of one tap reads all positions in order."""
    return len(table) == size and bool((table[:, 0] == np.arange(size)).all())


def weigh(numbers: Numbers, w: Words) -> NDArray[Any]:
    """Weights as what gathered taps are multiplied with: ``[g, r * q * c, k]``, exact."""
    g, k = w.shape[:2]
    right: Words = w.reshape(g, k, prod(w.shape[2:])).transpose(0, 2, 1)
    return right.astype(numbers.exact, copy=False)


def multiply(left: Words, right: Words, region: Region) -> NDArray[Any]:
    """Gathered taps times weights, ``[n, y, x, g, k]``."""
    products: Words = np.matmul(left, right)
    return products.transpose(1, 0, 2).reshape(extents(region))


def _window_taps(window: Window, outputs: Axis) -> Integers:
    """The tap table of outputs over exactly the inputs that they touch."""
    return taps(window, outputs, touched(window, outputs))


def finish(kernel: Kernel, numbers: Numbers, sums: Words, operands: Operands, tally: Tally) -> Words:
    """Sums, bias and residual rounded to words once, then activated."""
    addends = [operands[role] for role in _ADDENDS if role in operands]
    return activate(kernel, numbers, numbers.finish(sums, addends, tally), operands, tally)


_ADDENDS: tuple[Role, ...] = ("bias", "residual")


def activate(kernel: Kernel, numbers: Numbers, words: Words, operands: Operands, tally: Tally) -> Words:
    """The kernel's activation, if it has one."""
    if kernel.activation is None:
        return words
    return numbers.activate(words, kernel.activation, operands.get("slope"), tally)


def vector(kernel: Kernel, numbers: Numbers, operands: Operands, region: Region, tally: Tally) -> Words:
    """A vector operation and its activation: ``[n, y, x, g, k]`` words at the region's rows and columns."""
    words = VECTOR[kernel.operation](kernel, numbers, operands, region, tally)
    return activate(kernel, numbers, words, operands, tally)


def _pool(kernel: Kernel, numbers: Numbers, operands: Operands, region: Region, tally: Tally) -> Words:
    assert kernel.pool is not None
    held = touched(kernel.pool.y, region[1]), touched(kernel.pool.x, region[2])
    return pool(kernel.pool, numbers, operands["input"], (region[1], region[2]), held)


def pool(pool: Pool, numbers: Numbers, words: Words, outputs: tuple[Axis, Axis], held: tuple[Axis, Axis]) -> Words:
    """Whole windows over the rows and columns held: ``[n, pooled y, pooled x, g, k]`` words."""
    return close_pool(pool, numbers, combine(pool, numbers, words, outputs, held), *outputs)


def combine(pool: Pool, numbers: Numbers, words: Words, outputs: tuple[Axis, Axis], held: tuple[Axis, Axis]) -> Words:
    """Maxima or sums of the rows and columns held, for windows that may reach over them."""
    across = _combine(pool, numbers, words, taps(pool.x, outputs[1], held[1]), 2)
    return _combine(pool, numbers, across, taps(pool.y, outputs[0], held[0]), 1)


def include(pool: Pool, words: Words, at: tuple[NDArray[Any], ...], more: Words) -> None:
    """Combine some windows of ``words`` with what they have seen elsewhere."""
    words[at] = np.maximum(words[at], more) if pool.kind == "max" else words[at] + more


def _combine(pool: Pool, numbers: Numbers, words: Words, table: Integers, axis: int) -> Words:
    """Along one spatial axis, over the taps of a table; padding takes no part."""
    shape = list(words.shape)
    shape[axis] = 1
    if pool.kind == "max":
        lowest = -np.inf if words.dtype.kind == "f" else np.iinfo(words.dtype).min
        padded = np.concatenate([words, np.full(shape, lowest, words.dtype)], axis)
        best = padded.take(table[:, 0], axis)
        for tap in range(1, table.shape[1]):
            np.maximum(best, padded.take(table[:, tap], axis), out=best)
        return best
    padded = np.concatenate([words, np.zeros(shape, words.dtype)], axis)
    total = numbers.widen(padded.take(table[:, 0], axis))
    for tap in range(1, table.shape[1]):
        total += padded.take(table[:, tap], axis)
    return total


def close_pool(pool: Pool, numbers: Numbers, gathered: Words, rows: Axis, columns: Axis) -> Words:
    """Finished windows as words: maxima as they are, sums over their counts."""
    if pool.kind == "max":
        return gathered
    counts = _counts(pool, pool.y, rows)[:, None] * _counts(pool, pool.x, columns)[None, :]
    return numbers.average(gathered, counts[:, :, None, None])


def _counts(pool: Pool, window: Window, outputs: Axis) -> Integers:
    """How many taps of each window an average counts along one axis."""
    points = listed(outputs)[:, None] * window.stride + np.arange(window.kernel) * window.dilation - window.pad
    valid = (
        points < window.size + window.pad_after if pool.count_include_pad else (points >= 0) & (points < window.size)
    )
    counts: Integers = valid.sum(axis=1, dtype=np.int64)
    return counts


def _identity(kernel: Kernel, numbers: Numbers, operands: Operands, region: Region, tally: Tally) -> Words:
    # Operands may be words of a memory that is written before the result is.
    words = operands["input"].copy()
    fill = numbers.quantise(np.full(1, kernel.fill), Tally())
    for axis, window in ((1, kernel.y), (2, kernel.x)):
        table = _window_taps(window, region[axis])[:, 0]
        if not _straight(table[:, None], words.shape[axis]):
            shape = list(words.shape)
            shape[axis] = 1
            words = np.concatenate([words, np.full(shape, fill, words.dtype)], axis).take(table, axis)
    return words


VECTOR: dict[str, Callable[[Kernel, Numbers, Operands, Region, Tally], Words]] = {
    "pool": _pool,
    "add": lambda kernel, numbers, a, region, tally: numbers.add(a["input"], a["second"], tally),
    "sub": lambda kernel, numbers, a, region, tally: numbers.subtract(a["input"], a["second"], tally),
    "mul": lambda kernel, numbers, a, region, tally: numbers.multiply(a["input"], a["second"], (), tally),
    "scale": lambda kernel, numbers, a, region, tally: numbers.multiply(a["input"], a["scale"], (a["bias"],), tally),
    "identity": _identity,
}
"""Vector operation -> its definition."""
