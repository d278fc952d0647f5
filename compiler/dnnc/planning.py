"""Plans every layer of a lowered graph: equal layers once, from the cache where it knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from dnnc.capacity import described, ways
from dnnc.emit import emit_layer
from dnnc.layer import HostLayer, Layer, Lowered, Shape
from dnnc.plan import LayerPlan, Plan
from dnnc.schedule import Schedule
from dnnc.search import (
    Figures,
    NoSchedule,
    Objective,
    Result,
    Timed,
    figures,
    hurried,
    lower_bound,
    macs,
    optimize,
    valid_macs,
)
from dnnc.space import Limits, Space
from dnnc.traffic import compulsory
from dnnc_runtime.errors import CapacityFault, UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.timeline import timeline

Progress = Callable[[int, int, str], None]
"""Told layers done, layers in all, and the name of the layer at hand."""


class Store(Protocol):
    """Where results are kept from one run to the next."""

    def get(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective) -> Result | None:
        """A known result."""
        ...

    def put(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective, result: Result) -> None:
        """Keep a result."""
        ...

    def close(self) -> None:
        """Say what was wrong with what was kept."""
        ...


class Rules(Protocol):
    """What a user asks of a layer's schedule."""

    def for_layer(self, name: str, machine: Machine, shape: Shape) -> Limits:
        """The limits of a layer's space."""
        ...

    def describe(self, layer_name: str) -> str:
        """Names what applies to a layer."""
        ...


@dataclass
class Planner:
    """Finds schedules, and remembers them by shape and limits."""

    machine: Machine
    objective: Objective
    rules: Rules | None = None
    store: Store | None = None
    time_limit: float = 60.0
    progress: Progress | None = None
    interrupted: bool = False
    _known: dict[tuple[Shape, Limits], Result] = field(default_factory=dict[tuple[Shape, Limits], Result])

    def plan(self, lowered: Lowered) -> Plan:
        """A plan of all layers.

        Raises:
            UsageFault: the constraints leave a layer no legal schedule.
            CapacityFault: a layer fits the memories in no way.
        """
        count = len(lowered.layers)
        planned: list[LayerPlan | HostLayer] = []
        for done, layer in enumerate(lowered.layers):
            if self.progress:
                self.progress(done, count, layer.name)
            planned.append(layer if isinstance(layer, HostLayer) else self._planned(layer))
        return Plan(self.machine, self.objective, tuple(planned))

    def _planned(self, layer: Layer) -> LayerPlan:
        """One layer's plan, even where Ctrl-C comes between its search and its figures."""
        try:
            return self.layer(layer)
        except KeyboardInterrupt:
            self.interrupted = True
            return self.layer(layer)

    def layer(self, layer: Layer) -> LayerPlan:
        """One layer's plan."""
        limits = self._limits(layer)
        try:
            result = self._result(layer, limits)
        except NoSchedule:
            raise self._refusal(layer, limits) from None
        return layer_plan(layer, self.machine, result)

    def alike(self, layer: Layer, lowered: Lowered) -> list[str]:
        """The layers of equal shape and limits, which either all have a schedule or none of them."""
        limits = self._limits(layer)
        equal = (other for other in lowered.layers if isinstance(other, Layer) and other.shape == layer.shape)
        return [other.name for other in equal if self._limits(other) == limits]

    def worth_splitting(self, plan: Plan) -> list[frozenset[tuple[str, str]]]:
        """What might be better undone, the same fusion of equal layers together: what pays for one pays for all."""
        keys = {layer.name: (layer.layer.shape, self._limits(layer.layer)) for layer in plan.on_array}
        together: dict[tuple[Shape, Limits, str], list[tuple[str, str]]] = {}
        for name, kind in worth_splitting(plan):
            together.setdefault((*keys[name], kind), []).append((name, kind))
        return [frozenset(pairs) for pairs in together.values()]

    def _limits(self, layer: Layer) -> Limits:
        return self.rules.for_layer(layer.name, self.machine, layer.shape) if self.rules else Limits()

    def _result(self, layer: Layer, limits: Limits) -> Result:
        key = layer.shape, limits
        if key not in self._known:
            self._known[key] = self._found(layer.shape, limits, self._timed(layer))
        return self._known[key]

    def _found(self, shape: Shape, limits: Limits, timed: Timed | None = None) -> Result:
        if self.store and (kept := self.store.get(shape, self.machine, limits, self.objective)):
            return kept
        if self.interrupted:
            return hurried(shape, self.machine, limits)
        try:
            result = optimize(shape, self.machine, limits, self.objective, self.time_limit, timed)
        except KeyboardInterrupt:
            self.interrupted = True
            return hurried(shape, self.machine, limits)
        self.interrupted |= result.proof.method == "none"
        if self.store and result.proof.status == "optimal":
            self.store.put(shape, self.machine, limits, self.objective, result)
        return result

    def _timed(self, layer: Layer) -> Timed:
        """Times schedules of a layer by itself, each once."""
        known: dict[Schedule, float] = {}

        def timed(schedule: Schedule) -> float:
            if schedule not in known:
                known[schedule] = timeline(emit_layer(layer, schedule, self.machine)).cycles
            return known[schedule]

        return timed

    def _refusal(self, layer: Layer, limits: Limits) -> UsageFault | CapacityFault:
        enough = ways(Space(layer.shape, self.machine, limits))
        asked = self.rules.describe(layer.name) if self.rules else ""
        if not enough and not asked:
            modes = ", ".join(mode.name for mode in self.machine.modes)
            return UsageFault(
                f"layer {layer.name!r} ({layer.operator}, {layer.shape.g} groups): no mode of {self.machine.name} can "
                f"run it ({modes}); describe a mode for it in the machine's file, such as one that spreads g"
            )
        if not enough:
            return UsageFault(
                f"layer {layer.name!r} ({layer.operator}): no schedule of {self.machine.name} is legal under {asked}; "
                "relax the constraints"
            )
        under = f" under {asked}" if asked else ""
        return CapacityFault(
            f"layer {layer.name!r} ({layer.operator}) does not fit {self.machine.name}{under}: {described(enough)}"
        )


def layer_plan(layer: Layer, machine: Machine, result: Result) -> LayerPlan:
    """A layer with everything that its schedule implies."""
    return LayerPlan(layer, result.schedule, *_implied(layer.shape, machine, result.schedule), result.proof)


@lru_cache(maxsize=1024)
def _implied(shape: Shape, machine: Machine, schedule: Schedule) -> tuple[Figures, int, int, int, int]:
    """A layer's figures, compulsory bytes, lower bound, multiply-accumulates and operations: equal for equal layers."""
    return (
        figures(shape, machine, schedule),
        compulsory(shape, machine),
        lower_bound(shape, machine),
        macs(shape),
        2 * valid_macs(shape),
    )


def worth_splitting(plan: Plan) -> Iterable[tuple[str, str]]:
    """(layer, kind of fusion) pairs that might be better undone.

    Undone, the tensor between the two layers is written and read, on top of what is compulsory for both; where a
    fused layer moves no more than that, the bound says that it stays fused.
    """
    for layer in plan.on_array:
        shape, word = layer.layer.shape, plan.machine.word_bytes
        between = 2 * shape.n * shape.y.out * shape.x.out * shape.g * shape.k * word
        if layer.figures.dram_bytes <= layer.compulsory_bytes + between:
            continue
        if shape.pool:
            yield layer.name, f"{shape.pool.kind}_pool"
        if shape.residual:
            yield layer.name, "residual"
