"""Layers under their own loop nests with operands on chip: what is predicted is counted, the numbers are right; laws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnnc.agreement import agree
from dnnc.chip import Chip
from dnnc.emit import emit
from dnnc.layer import HostLayer
from dnnc.nests import Nests, operands, output_of
from dnnc.pipeline import Compilation, compile, verify
from dnnc.realize import Realized, realize
from dnnc.segments import Alone, Best, Network, Segment
from dnnc.steps import Steps, steps_of
from dnnc.together import alone_of, with_network
from dnnc_runtime import machine
from dnnc_runtime.errors import CapacityFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Load, Role, Store
from graphs import Builder, networks

SLOW = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Planned:
    """A network planned layer by layer, to be planned otherwise."""

    made: Compilation

    @cached_property
    def steps(self) -> Steps:
        """Its layers as steps."""
        return steps_of(self.made.lowered)

    @cached_property
    def chip(self) -> Chip:
        """Its machine."""
        return Chip(self.made.machine)

    @cached_property
    def nests(self) -> Nests:
        """The schedules of its layers with operands on chip."""
        return Nests(self.steps, self.chip)

    def block(self, m: int) -> int:
        """Lines of a map that a unit has."""
        return -(-self.steps.maps[m].lines // self.chip.units)

    def rows(self, maps: set[int]) -> int:
        """Bytes of the rows of some maps in one unit."""
        return sum(self.block(m) * self.steps.maps[m].words for m in maps) * self.chip.machine.word_bytes

    def lines(self, maps: set[int]) -> tuple[tuple[int, int], ...]:
        """All lines of some maps."""
        return tuple((m, self.block(m)) for m in sorted(maps))

    def segment(self, position: int, held: set[int], leaves: bool) -> Alone | None:
        """A layer that runs with maps on chip, and leaves its own there or not; None if there is no room."""
        may = operands(self.steps, self.chip, position)
        roles: set[Role] = {r for r, maps in may.items() if {*maps} <= held}
        out, after = output_of(self.steps, position), {m for m in held if self.steps.wanted(m, position + 1)}
        if leaves:
            roles, after = roles | {"output"}, after | {out}
        found = self.nests.settled(position, roles, self.chip.bytes - self.rows(held | after))
        if found is None:
            return None
        return Alone(position, found.schedule, self.lines(held), self.lines(after))

    def realized(self, segments: list[Segment]) -> Realized | None:
        """A plan made concrete, if everything has a place."""
        found = realize(self.steps, self.chip, segments, alone_of(self.made.plan))
        return found if isinstance(found, Realized) else None

    def compiled(self, found: Realized) -> Compilation:
        """The whole plan, for which the bytes of the walked program are compared with those predicted."""
        moved = self.made.plan.totals.dram_bytes
        plan = with_network(self.made.plan, Network("fused", found.segments, {"fused": Best(moved, moved)}), found)
        program = emit(self.made.lowered, plan.schedules, plan.machine, found)
        return replace(self.made, plan=plan, program=program, counted=agree(plan, program))


def planned(model: onnx.ModelProto, target: Machine) -> Planned:
    """A network, planned layer by layer."""
    try:
        return Planned(compile(model, target, plan="layerwise"))
    except CapacityFault:
        assume(False)
        raise


@st.composite
def targets(draw: st.DrawFn) -> Machine:
    """A machine with little memory: of one unit, or of four that share rows."""
    made = machine.load(draw(st.sampled_from(["two-buffer", "two-buffer", "snowflake"])))
    maps, weights = draw(st.sampled_from([512, 1024, 2048, 8192])), draw(st.sampled_from([256, 1024, 8192]))
    fuses = made.fuses | draw(st.sampled_from([set[str](), {"max_pool", "average_pool"}]))
    return replace(made, fuses=fuses).with_memory("maps", maps).with_memory("weights", weights)


def segments(random: Random, of: Planned) -> Iterator[Segment]:
    """A plan: by chance maps are on chip while a layer runs, and it leaves its own there."""
    held: set[int] = set()
    for position in range(len(of.steps.at)):
        may = operands(of.steps, of.chip, position)
        held = {m for m in held if of.steps.wanted(m, position) and random.randrange(8)}
        mine = {m for role, maps in may.items() if role != "output" for m in maps}
        if not mine & held and not random.randrange(3):
            yield Alone(position)
            continue
        out = may.get("output", ())
        leaves = bool(out) and bool(of.steps.wanted(out[0], position + 1)) and bool(random.randrange(4))
        found = of.segment(position, held, leaves) or of.segment(position, held, False) or Alone(position)
        held = {m for m, _ in found.leaving}
        yield found


def feeds(model: onnx.ModelProto, seed: int) -> dict[str, NDArray[np.float64]]:
    """Random inputs of a model."""
    random = np.random.default_rng(seed)
    return {
        i.name: random.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input
    }


@SLOW
@given(networks(), targets(), st.randoms(use_true_random=False))
def test_counted_bytes_and_numbers(model: onnx.ModelProto, target: Machine, random: Random) -> None:
    of = planned(model, target)
    found = of.realized(list(segments(random, of)))
    assume(found is not None)
    assert found is not None
    made = of.compiled(found)
    inputs = feeds(model, 0)
    assert verify(made, inputs, "float32").agree
    assert verify(made, inputs, "fixed").agree
