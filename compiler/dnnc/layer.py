"""Layers: what the search needs to know of an operator, and what the program needs to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.program import Kernel, Placement, Pool, Role, Tensor, Window
from dnnc_runtime.tensor import View

HALF = ":pool"
"""Behind the name of a layer with a fused pool that runs in two halves, the half that pools."""


@dataclass(frozen=True, slots=True)
class Shape:
    """All that decides a layer's schedule: equal shapes have equal optima.

    ``array`` layers multiply and accumulate: planes are k of c per group, the input is indexed by g, c.
    ``vector`` layers (pools, elementwise, copies) have g = c = 1 and an input indexed by k.

    Attributes:
        n, g, k, c: images, groups, output and input channels per group.
        y, x: windows from input to (convolution) output rows and columns.
        parameters: words per output plane of bias, scale and slope vectors together.
        residual: a second tensor of the convolution output's shape is added before the activation.
        second: vector layers with two inputs: which of (n, y, x, k) the second one has (else it broadcasts).
        pool: the pool fused behind; its windows read the convolution's rows and columns.
        dense: for each DRAM feature map (input, second, residual, output) how many of the view's axes merge into one
            contiguous run when taken whole, counted from the last of (n, y, x, g, channel).
        packed: weights are constants, stored in the order they are loaded.
        on_chip: operands that are rows of feature maps on chip, sorted: no schedule moves them or has to hold them.
    """

    kind: Literal["array", "vector"]
    n: int
    g: int
    k: int
    c: int
    y: Window
    x: Window
    parameters: int = 0
    residual: bool = False
    second: tuple[bool, bool, bool, bool] | None = None
    pool: Pool | None = None
    dense: tuple[tuple[str, int], ...] = ()
    packed: bool = True
    on_chip: tuple[Role, ...] = ()

    @property
    def out_rows(self) -> int:
        """Rows of the stored output (pooled where a pool is fused)."""
        return self.pool.y.out if self.pool else self.y.out

    @property
    def out_columns(self) -> int:
        """Columns of the stored output (pooled where a pool is fused)."""
        return self.pool.x.out if self.pool else self.x.out


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of a layer: the ONNX value (or derived constant) that it is, and where it lies in DRAM."""

    role: Role
    value: str
    view: View


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer on the array: the nodes it covers, its shape, its meaning and its operands."""

    name: str
    operator: str
    nodes: tuple[str, ...]
    shape: Shape
    kernel: Kernel
    operands: tuple[Operand, ...]

    def operand(self, role: Role) -> Operand | None:
        """The operand of a role, if the layer has it."""
        return next((o for o in self.operands if o.role == role), None)


@dataclass(frozen=True, slots=True)
class HostLayer:
    """A node that the machine's array does not run; its tensors' bytes are reported apart."""

    name: str
    operator: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reason: str
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph's layers in execution order, and what lies in DRAM before, between and after them.

    ``by_rows`` are the same layers with rows and columns apart, where ``layers`` have made one axis of pixels of them.
    """

    layers: tuple[Layer | HostLayer, ...]
    by_rows: tuple[Layer | HostLayer, ...]
    tensors: tuple[Tensor, ...]
    placements: tuple[Placement, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Callable[[], NDArray[np.float32]]]


def dense_axes(view: View) -> int:
    """How many axes of a view, counted from the last, merge into one contiguous run when taken whole."""
    length, merged = 1, 0
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size > 1 and stride != length:
            break
        length *= size
        merged += 1
    return merged
