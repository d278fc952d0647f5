"""What is stored of a compilation, as values; and what a stored proof must say before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnnc.documents import Damaged
from dnnc.layer import HostLayer
from dnnc.network_records import NetworkRecord
from dnnc.plan import LayerPlan, Totals
from dnnc.schedule_records import ScheduleRecord, record
from dnnc.search import NEAR, Figures, Objective, Proof, lower_bound
from dnnc.space import Space

FORMAT = 4
"""Version of the artifact's format."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model: its file relative to the artifact's folder (None for one given as an object), and its digest."""

    path: str | None
    sha256: str
    opset: int
    input_shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """The machine: its TOML text, and the digest of what it can do."""

    name: str
    digest: str
    text: str


@dataclass(frozen=True, slots=True)
class ConstraintsRecord:
    """The constraints: the name of their file, and its text."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer of the array; the fields mean what those of :class:`dnnc.plan.LayerPlan` and its layer do."""

    name: str
    operator: str
    nodes: tuple[str, ...]
    schedule: ScheduleRecord
    proof: Proof
    figures: Figures
    strips: int
    alone: Figures | None
    compulsory_bytes: int
    lower_bound_bytes: int
    macs: int
    valid_ops: int


@dataclass(frozen=True, slots=True)
class Document:
    """Everything in an artifact but its seal."""

    format: int
    dnnc: str
    cost_model: str
    model: ModelRecord
    machine: MachineRecord
    objective: Objective
    constraints: ConstraintsRecord | None
    status: str
    interrupted: bool
    totals: Totals
    network: NetworkRecord | None
    unfused: tuple[tuple[str, str], ...]
    layers: tuple[LayerRecord, ...]
    host_layers: tuple[HostLayer, ...]
    graph: str


def layer_record(plan: LayerPlan) -> LayerRecord:
    """A planned layer as it is stored."""
    return LayerRecord(
        plan.layer.name,
        plan.layer.operator,
        plan.layer.nodes,
        record(plan.schedule),
        plan.proof,
        plan.figures,
        plan.strips,
        plan.alone,
        plan.compulsory_bytes,
        plan.lower_bound_bytes,
        plan.macs,
        plan.valid_ops,
    )


def check_proof(proof: Proof, of: Figures, space: Space) -> None:
    """A proof speaks of the figures of its schedule. Raises Damaged if it does not."""
    value = of.dram_bytes if proof.quantity == "bytes" else of.cycles
    bound = lower_bound(space.shape, space.machine)
    # The timeline may have settled on a schedule near the one with the best figure.
    settled = proof.method == "enumeration"
    if proof.value > value or (proof.value < value and not settled):
        raise Damaged(f"the proof is about {proof.value:,} {proof.quantity}, the schedule has {value:,}")
    if proof.quantity == "cycles" and value > proof.value * NEAR and proof.status == "optimal":
        raise Damaged(f"the schedule takes {value:,} cycles, which is not near the fewest of {proof.value:,}")
    if proof.bound > proof.value or (proof.status == "optimal" and proof.bound < proof.value):
        raise Damaged(f"the bound of {proof.bound:,} {proof.quantity} proves nothing of {proof.value:,}")
    if proof.method == "lower bound" and (proof.quantity != "bytes" or value > bound):
        raise Damaged(f"{value:,} {proof.quantity} do not meet the lower bound of {bound:,} bytes")
