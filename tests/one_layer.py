"""One layer by itself: its program, the bytes predicted and counted, and random operands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dnnc.emit import emit
from dnnc.layer import Layer, Lowered
from dnnc.schedule import Schedule
from dnnc_runtime import Counters, walk
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Placement, Program, Tensor
from strategies import constants

Bytes = dict[str, tuple[int, int]]
"""(read, written) by the role under which a report lists it."""

ROLES = {"bias": "bias", "scale": "bias", "slope": "bias", "second": "other"}
"""Where parameters and second operands are listed."""


def lowered(layer: Layer) -> Lowered:
    """The layer as a graph: every operand a tensor and, unless constant, a value of its own."""
    known = constants(layer)
    values = tuple(Placement(o.value, o.view.shape, o.view) for o in layer.operands if o.role not in known)
    inputs = tuple(value.name for value in values if value.name != "output")
    tensors = tuple(
        Tensor(o.value, max(1, o.view.shape[0] * o.view.strides[0]), o.role in known) for o in layer.operands
    )
    return Lowered((layer,), tensors, values, inputs, ("output",), {})


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
    data = {
        o.role: rng.normal(0, scale, o.view.shape).astype(np.float32) for o in layer.operands if o.role != "output"
    }
    known = constants(layer)
    inputs = {o.value: data[o.role] for o in layer.operands if o.role in data and o.role not in known}
    return inputs, {role: lambda v=data[role]: v for role in known}


Loaders = dict[str, Callable[[], NDArray[np.float32]]]
