"""The whole graph, layer by layer: a proven schedule for each, and what it adds up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnnc.layer import HostLayer, Layer
from dnnc.schedule import Schedule, dataflow
from dnnc.search import Figures, Objective, Proof
from dnnc_runtime.machine import Machine

TRAFFIC_ROLES = ("input", "weights", "bias", "residual", "output", "partial_sums", "other")
"""How DRAM bytes are told apart; bias stands for all parameter vectors, other for second operands."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer of the array with its schedule, figures and proof."""

    layer: Layer
    schedule: Schedule
    figures: Figures
    compulsory_bytes: int
    lower_bound_bytes: int
    macs: int
    valid_ops: int
    proof: Proof

    @property
    def name(self) -> str:
        """The layer's name: that of its main ONNX node."""
        return self.layer.name

    @property
    def dataflow(self) -> tuple[str, ...]:
        """Dataflow names that the loop order earns."""
        return dataflow(self.schedule.order)

    @property
    def traffic(self) -> dict[str, tuple[int, int]]:
        """Payload bytes (read, written) by role, all roles."""
        return {role: self.figures.traffic.get(role, (0, 0)) for role in TRAFFIC_ROLES}

    @property
    def fused(self) -> tuple[str, ...]:
        """Store-side operations fused into the layer."""
        kernel, shape = self.layer.kernel, self.layer.shape
        names: list[str] = []
        if self.layer.operand("bias"):
            names.append("bias")
        if shape.residual:
            names.append("residual")
        if kernel.activation and kernel.operation != "identity":
            names.append(kernel.activation.name)
        if shape.pool:
            names.append(f"{shape.pool.kind}_pool")
        return tuple(names)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a plan's layers, in bytes, multiply-accumulates and operations on valid taps."""

    dram_bytes: int
    dram_read_bytes: int
    dram_write_bytes: int
    bus_bytes: int
    compulsory_bytes: int
    lower_bound_bytes: int
    host_bytes: int
    macs: int
    valid_ops: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Every layer in execution order, on the array or on the host."""

    machine: Machine
    objective: Objective
    layers: tuple[LayerPlan | HostLayer, ...]

    @property
    def on_array(self) -> tuple[LayerPlan, ...]:
        """The layers of the array."""
        return tuple(layer for layer in self.layers if isinstance(layer, LayerPlan))

    @property
    def on_host(self) -> tuple[HostLayer, ...]:
        """The layers of the host."""
        return tuple(layer for layer in self.layers if isinstance(layer, HostLayer))

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """Schedules by layer name."""
        return {layer.name: layer.schedule for layer in self.on_array}

    @property
    def status(self) -> str:
        """ "optimal" if every layer's schedule is proven so, else "feasible"."""
        return "optimal" if all(layer.proof.status == "optimal" for layer in self.on_array) else "feasible"

    @property
    def totals(self) -> Totals:
        """Sums over all layers; what host layers move stands apart."""
        layers = self.on_array
        return Totals(
            dram_bytes=sum(layer.figures.dram_bytes for layer in layers),
            dram_read_bytes=sum(r for layer in layers for r, _ in layer.figures.traffic.values()),
            dram_write_bytes=sum(w for layer in layers for _, w in layer.figures.traffic.values()),
            bus_bytes=sum(layer.figures.bus_bytes for layer in layers),
            compulsory_bytes=sum(layer.compulsory_bytes for layer in layers),
            lower_bound_bytes=sum(layer.lower_bound_bytes for layer in layers),
            host_bytes=sum(layer.read_bytes + layer.write_bytes for layer in self.on_host),
            macs=sum(layer.macs for layer in layers),
            valid_ops=sum(layer.valid_ops for layer in layers),
            cycles=sum(layer.figures.cycles for layer in layers),
        )
