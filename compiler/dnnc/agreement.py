"""Walks the program and compares what it moves with what was predicted, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnnc.plan import Plan
from dnnc_runtime.counters import Counters
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.program import Program
from dnnc_runtime.walk import walk

CATEGORY = {"scale": "bias", "slope": "bias", "second": "other"}
"""Roles of a program that reports count under another name."""

Key = tuple[str, str, str]
"""(layer, role, "read" or "write")."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Payload and bus bytes counted by walking the program, equal to the prediction for every key."""

    payload: Mapping[Key, int]
    bus: Mapping[Key, int]
    instructions: int

    @property
    def tensors(self) -> int:
        """Tensors whose bytes were compared."""
        return len({(layer, role) for layer, role, _ in self.payload})


def agree(plan: Plan, program: Program) -> Agreement:
    """Walks a program with all its structural checks and compares its bytes with the plan's.

    Raises:
        DisagreementFault: a check fails, or a layer's tensor moves other bytes than predicted.
    """
    counters = Counters(program)
    walk(program, [counters])
    return compare(plan, program, counters)


def compare(plan: Plan, program: Program, counters: Counters) -> Agreement:
    """Compares what was counted while a program was walked or executed with the plan's bytes.

    Raises:
        DisagreementFault: a layer's tensor moved other bytes than predicted.
    """
    payload: dict[Key, int] = {}
    bus: dict[Key, int] = {}
    for (layer, role, way), moved in counters.traffic.items():
        key = plan.layer_of(layer), CATEGORY.get(role, role), way
        payload[key] = payload.get(key, 0) + moved.payload
        bus[key] = bus.get(key, 0) + moved.bus
    _compare(plan, payload, bus)
    return Agreement(payload, bus, sum(len(section.instructions) for section in program.sections))


NOT_COUNTED = Agreement({}, {}, 0)
"""Of a program that was neither walked nor executed yet."""


def _compare(plan: Plan, payload: dict[Key, int], bus: dict[Key, int]) -> None:
    for what, counted, of in (("payload", payload, "traffic"), ("bus", bus, "bus")):
        predicted: dict[Key, int] = {}
        for layer in plan.on_array:
            figures: Mapping[str, tuple[int, int]] = getattr(layer.figures, of)
            for role, (read, written) in figures.items():
                predicted[layer.name, role, "read"] = read
                predicted[layer.name, role, "write"] = written
        for key in sorted({*counted, *predicted}):
            if counted.get(key, 0) != predicted.get(key, 0):
                layer_name, role, way = key
                raise DisagreementFault(
                    f"layer {layer_name!r}: {way} of {role}: counted {counted.get(key, 0):,} {what} bytes, predicted "
                    f"{predicted.get(key, 0):,}; this is a defect of dnnc, please report the model"
                )
