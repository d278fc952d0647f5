"""Numbers: a program executed, against onnxruntime in float32 and against the untiled reference in fixed point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dnnc.agreement import Agreement, compare
from dnnc.graph import Graph
from dnnc.layer import HostLayer
from dnnc.onnx_import import original, single_node_model, with_outputs
from dnnc.plan import LayerPlan, Plan
from dnnc_runtime.counters import Counters
from dnnc_runtime.dram import finite
from dnnc_runtime.executor import execute
from dnnc_runtime.numbers import Fixed, Float32
from dnnc_runtime.program import Host, HostRun, Program
from dnnc_runtime.reference import refer

Values = Mapping[str, NDArray[Any]]
System = Literal["float32", "fixed"]

TOLERANCE = 1e-4
"""Largest difference in float32 that rounding explains, relative to the tensor's largest magnitude."""


@dataclass(frozen=True, slots=True)
class LayerNumbers:
    """One layer's largest difference, relative to the tensor's largest magnitude, and what did not fit its words."""

    name: str
    error: float
    saturations: int
    overflows: int


@dataclass(frozen=True, slots=True)
class Verification:
    """A run's numbers beside the reference's.

    Attributes:
        layers: every layer whose result the reference has too, in execution order.
        agree: every error is within the tolerance (float32: 1e-4; fixed point: none).
        first_divergence: the first layer that is not.
        counted: the bytes that moved while the program was executed, equal to the predicted ones.
    """

    layers: tuple[LayerNumbers, ...]
    agree: bool
    first_divergence: str | None
    counted: Agreement


def with_host(program: Program, graph: Graph) -> Program:
    """The program with onnxruntime as its host."""
    return replace(program, host=_host(graph))


def verify(graph: Graph, plan: Plan, program: Program, inputs: Values, system: System) -> Verification:
    """Execute a compiled model, and compare the numbers and the bytes of every layer.

    Args:
        graph: of the model, with its source.
        plan, program: of the graph.
        inputs: values of all inputs by name, taken as float32.
        system: "float32", compared with onnxruntime; or "fixed", the machine's, compared with the untiled reference.

    Raises:
        UsageFault: an input is absent, of another shape, or holds anything but finite real numbers.
        DisagreementFault: the program is not consistent with itself, or moves other bytes than predicted.
    """
    program, counters = with_host(program, graph), Counters(program)
    numbers = Fixed.of(plan.machine) if system == "fixed" else Float32()
    found = execute(program, inputs, numbers=numbers, listeners=[counters], keep_values=True)
    counted = compare(plan, program, counters)
    if system == "fixed":
        wanted: Values = refer(program, inputs, numbers=numbers, keep_values=True).values
    else:
        wanted = _by_onnxruntime(graph, inputs, list(found.values))
    layers: list[LayerNumbers] = []
    for layer in plan.layers:
        names = layer.outputs if isinstance(layer, HostLayer) else (_output(layer),)
        for name in names:
            if name in found.values and name in wanted:
                error = difference(found.values[name], wanted[name])
                counts = found.saturations.get(layer.name, 0), found.overflows.get(layer.name, 0)
                layers.append(LayerNumbers(layer.name, error, *counts))
    most = TOLERANCE if system == "float32" else 0.0
    first = next((layer.name for layer in layers if not layer.error <= most), None)
    return Verification(tuple(layers), first is None, first, counted)


def _output(plan: LayerPlan) -> str:
    output = plan.layer.operand("output")
    return output.value if output else ""


def difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference, relative to the largest magnitude wanted; infinite where shapes or NaNs differ."""
    if found.shape != wanted.shape:
        return float("inf")
    if not found.size or np.array_equal(found, wanted):
        return 0.0
    apart = np.subtract(found, wanted, dtype=np.float64)
    worst, scale = (max(float(values.max()), -float(values.min())) for values in (apart, wanted))
    if np.isnan(worst):
        return float("inf")
    return worst / scale if scale else worst


# onnxruntime's classes carry no annotations.
ort: Any = onnxruntime


def _options() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _by_onnxruntime(graph: Graph, inputs: Values, names: list[str]) -> Values:
    """The values of a graph's original model, by name, where it has them."""
    model = with_outputs(original(graph), names)
    options = _options()
    path = graph.source.path if graph.source else None
    if path:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted: list[str] = [output.name for output in session.get_outputs()]
    fed = {i.name: finite(i.name, inputs[i.name]) for i in session.get_inputs() if i.name in inputs}
    return dict(zip(wanted, session.run(wanted, fed), strict=True))


def _host(graph: Graph) -> HostRun:
    """Runs single nodes through onnxruntime, with a session for each that is kept."""
    sessions: dict[str, Any] = {}

    def run(host: Host, values: Values) -> Values:
        if host.node not in sessions:
            model = single_node_model(graph, graph.node(host.node))
            sessions[host.node] = ort.InferenceSession(
                model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
        session = sessions[host.node]
        names: list[str] = [output.name for output in session.get_outputs()]
        kinds: dict[str, str] = {i.name: graph.value(i.name).dtype for i in session.get_inputs()}
        fed = {name: np.asarray(values[name]).astype(kind) for name, kind in kinds.items()}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run
