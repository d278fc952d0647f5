"""Compiles ONNX models to accelerator schedules that provably move the fewest DRAM bytes, and runs the proof.

    compilation = dnnc.compile("resnet50.onnx", target="snowflake")
    compilation.plan.totals.dram_bytes
    compilation.save("resnet50.dnnc")

Names are imported when first used: ``import dnnc`` loads no other library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnnc.pipeline import Compilation, Planned, compile, execute, load, plan_network, verify
    from dnnc.search import Objective
    from dnnc_runtime.errors import CapacityFault, DisagreementFault, Fault, ModelFault, UsageFault
    from dnnc_runtime.machine import Machine
    from dnnc_runtime.machine import load as load_machine
    from dnnc_runtime.program import Program

__version__ = "0.1.0"

__all__ = [
    "CapacityFault",
    "Compilation",
    "DisagreementFault",
    "Fault",
    "Machine",
    "ModelFault",
    "Objective",
    "Planned",
    "Program",
    "UsageFault",
    "__version__",
    "compile",
    "execute",
    "load",
    "load_machine",
    "plan_network",
    "verify",
]

_HOMES = {
    "dnnc.pipeline": ("Compilation", "Planned", "compile", "execute", "load", "plan_network", "verify"),
    "dnnc.search": ("Objective",),
    "dnnc_runtime.errors": ("CapacityFault", "DisagreementFault", "Fault", "ModelFault", "UsageFault"),
    "dnnc_runtime.machine": ("Machine",),
    "dnnc_runtime.program": ("Program",),
}
_LAZY = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "load_machine": ("dnnc_runtime.machine", "load")
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
