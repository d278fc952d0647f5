"""One layer by itself: its program, the bytes predicted and counted, and random operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from dnnc.emit import emit
from dnnc.layer import Layer, Lowered, Operand, Shape, dense_axes
from dnnc.schedule import Schedule
from dnnc_runtime import Counters, walk
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kernel, Placement, Program, Role, Tensor
from dnnc_runtime.tensor import View

Bytes = dict[str, tuple[int, int]]
"""(read, written) by the role under which a report lists it."""

ROLES = {"bias": "bias", "scale": "bias", "slope": "bias", "second": "other"}
"""Where parameters and second operands are listed."""


PARAMETERS: tuple[Role, ...] = ("bias", "scale", "slope")
MAPS: tuple[Role, ...] = ("input", "second", "residual", "output")


def located(shape: Shape, kernel: Kernel, operands: tuple[Operand, ...]) -> Layer:
    """The layer whose shape says how its operands lie."""
    dense = tuple((o.role, dense_axes(o.view)) for o in operands if o.role in MAPS or not constant(o.role, shape))
    return Layer("layer", kernel.operation, ("layer",), replace(shape, dense=dense), kernel, operands)


def constant(role: Role, shape: Shape) -> bool:
    """Whether an operand is known at compile time."""
    return role in PARAMETERS or (role == "weights" and shape.packed)


def constants(layer: Layer) -> tuple[Role, ...]:
    """The operands known at compile time."""
    return tuple(o.role for o in layer.operands if constant(o.role, layer.shape))


def extents(s: Shape) -> dict[Role, tuple[int, ...]]:
    """Extents of every operand that a layer of this shape may have."""
    has = s.second or (False, False, False, False)
    n, y, x, k = (e if mine else 1 for e, mine in zip((s.n, s.y.out, s.x.out, s.k), has, strict=True))
    return {
        "input": (s.n, s.y.size, s.x.size, s.g, s.c if s.kind == "array" else s.k),
        "weights": (s.g, s.k, s.y.kernel, s.x.kernel, s.c),
        "residual": (s.n, s.y.out, s.x.out, s.g, s.k),
        "second": (n, y, x, 1, k),
        "output": (s.n, s.out_rows, s.out_columns, s.g, s.k),
        "bias": (s.g, s.k), "scale": (s.g, s.k), "slope": (s.g, s.k),
    }  # fmt: skip


def strided(tensor: str, shape: tuple[int, ...], gap: int = 0) -> View:
    """A view with room for one more on axis ``-gap`` (none on axis 0): every axis outside it has a gap."""
    room = [size + (a == len(shape) - gap) for a, size in enumerate(shape)]
    strides = tuple(prod(room[a + 1 :]) * (2 if gap == 1 and len(shape) == 5 else 1) for a in range(len(shape)))
    return View(tensor, 0, shape, strides)


def lowered(layer: Layer) -> Lowered:
    """The layer as a graph: every operand a tensor and, unless constant, a value of its own."""
    known = constants(layer)
    values = tuple(Placement(o.value, o.view.shape, o.view) for o in layer.operands if o.role not in known)
    inputs = tuple(value.name for value in values if value.name != "output")
    tensors = tuple(
        Tensor(o.value, max(1, o.view.shape[0] * o.view.strides[0]), o.role in known) for o in layer.operands
    )
    return Lowered((layer,), (layer,), tensors, values, inputs, ("output",), {})


def program(layer: Layer, machine: Machine, schedule: Schedule) -> Program:
    """The program of the layer alone."""
    return emit(lowered(layer), {layer.name: schedule}, machine)


def counted(made: Program) -> tuple[Bytes, Bytes]:
    """(payload, bus) bytes that a walk of the program counts."""
    counters = Counters(made)
    walk(made, [counters])
    payload: dict[str, list[int]] = {}
    bus: dict[str, list[int]] = {}
    for (_, role, way), moved in counters.traffic.items():
        name, at = ROLES.get(role, role), 0 if way == "read" else 1
        payload.setdefault(name, [0, 0])[at] += moved.payload
        bus.setdefault(name, [0, 0])[at] += moved.bus
    return _pairs(payload), _pairs(bus)


def _pairs(table: dict[str, list[int]]) -> Bytes:
    return {role: (read, written) for role, (read, written) in table.items() if read or written}


def feeds(layer: Layer, seed: int, scale: float = 1.0) -> tuple[dict[str, NDArray[np.float32]], Loaders]:
    """Random inputs of the layer by value, and loaders of its constants."""
    rng = np.random.default_rng(seed)
    data: dict[Role, NDArray[np.float32]] = {
        o.role: rng.normal(0, scale, o.view.shape).astype(np.float32) for o in layer.operands if o.role != "output"
    }
    known = constants(layer)
    return {role: values for role, values in data.items() if role not in known}, {
        r: partial(data.__getitem__, r) for r in known
    }


Loaders = dict[str, Callable[[], NDArray[np.float32]]]
