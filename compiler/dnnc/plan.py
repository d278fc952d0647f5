"""The whole graph: a proven schedule for each layer, how they run together, and what it adds up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from dnnc.layer import HALF, HostLayer, Layer
from dnnc.schedule import Schedule, dataflow
from dnnc.search import Figures, Objective, Proof
from dnnc.segments import Network
from dnnc_runtime.machine import Machine

TRAFFIC_ROLES = ("input", "weights", "bias", "residual", "output", "partial_sums", "other")
"""How DRAM bytes are told apart; bias stands for all parameter vectors, other for second operands."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer of the array with its schedule, figures and proof.

    Attributes:
        schedule: of the layer by itself, with its proof; where it runs by strips with others, or with operands on chip,
            this is not used.
        figures: what it moves, holds and takes in the plan.
        compulsory_bytes, lower_bound_bytes: of the layer by itself.
        strips: in how many strips it runs with others, of all blocks of columns; 0 where it runs by itself.
        alone: its figures by itself, from DRAM to DRAM, where it does not run so.
    """

    layer: Layer
    schedule: Schedule
    figures: Figures
    compulsory_bytes: int
    lower_bound_bytes: int
    macs: int
    valid_ops: int
    proof: Proof
    strips: int = 0
    alone: Figures | None = None

    @property
    def by_itself(self) -> Figures:
        """The figures of its own schedule."""
        return self.alone or self.figures

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


@dataclass(frozen=True)
class Plan:
    """Every layer in execution order, on the array or on the host; ``network``: how they run together."""

    machine: Machine
    objective: Objective
    layers: tuple[LayerPlan | HostLayer, ...]
    network: Network | None = None

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
        """ "optimal" if every layer's schedule is proven so, and that they run together so, else "feasible"."""
        whole = self.network is None or self.network.bound == self.network.bytes
        proven = whole and all(layer.proof.status == "optimal" for layer in self.on_array)
        return "optimal" if proven else "feasible"

    def layer_of(self, section: str) -> str:
        """The layer that a section of the program is part of: layers with a fused pool may run in two halves."""
        return section.removesuffix(HALF) if section not in self.names else section

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all layers."""
        return frozenset(layer.name for layer in self.layers)

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
