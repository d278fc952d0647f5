"""The machine and its programs: described, verified and executed with numpy and the standard library alone."""

from __future__ import annotations

from dnnc_runtime.counters import Bytes, Counters
from dnnc_runtime.dram import Result
from dnnc_runtime.executor import execute
from dnnc_runtime.numbers import Fixed, Float32, Numbers
from dnnc_runtime.program import Constants, HostRun, Program
from dnnc_runtime.reference import refer
from dnnc_runtime.walk import Listener, walk

__all__ = [
    "Bytes",
    "Constants",
    "Counters",
    "Fixed",
    "Float32",
    "HostRun",
    "Listener",
    "Numbers",
    "Program",
    "Result",
    "execute",
    "refer",
    "walk",
]
