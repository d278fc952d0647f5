"""plan_network() and compile(): the stages in order, one hook between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnc.plan import LayerPlan, Plan
from dnnc.search import Goal, Objective
from dnnc.segments import SCOPES, Scope
from dnnc_runtime.errors import CapacityFault, ModelFault, UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.machine import load as load_machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dnnc.agreement import Agreement
    from dnnc.constraints import Constraints
    from dnnc.graph import Graph
    from dnnc.layer import HostLayer, Lowered
    from dnnc.numeric import System, Values, Verification
    from dnnc.planning import Planner, Progress
    from dnnc.realize import Realized
    from dnnc_runtime.program import Program
    from dnnc_runtime.timeline import Timing

Hook = Callable[[str, object], None]
"""Told the name and the result of every stage: import, simplify, lower, plan, together, program, agreement."""

Denied = frozenset[tuple[str, str]]
"""(layer, kind) pairs of fusions that the search has undone."""


@dataclass(frozen=True)
class Planned:
    """A planned model: its graph, every layer's schedule and proof, and how layers run together; no program.

    Attributes:
        realized: what is on chip in every section, and where; None if every layer runs by itself.
        unfused: the fusions that the search has undone.
        interrupted: whether the search was cut short.
    """

    graph: Graph
    lowered: Lowered
    plan: Plan
    realized: Realized | None = field(compare=False, repr=False)
    constraints: Constraints | None
    input_shapes: Mapping[str, tuple[int, ...]]
    unfused: Denied
    interrupted: bool

    @property
    def machine(self) -> Machine:
        """The machine that it is planned for."""
        return self.plan.machine

    @property
    def layers(self) -> tuple[LayerPlan | HostLayer, ...]:
        """Every layer in execution order."""
        return self.plan.layers

    @property
    def traffic(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        """DRAM payload bytes (read, written) by layer name and role."""
        return {layer.name: layer.traffic for layer in self.plan.on_array}

    def _repr_html_(self) -> str:
        from dnnc.report import html_table

        return html_table(self.plan)


@dataclass(frozen=True)
class Compilation(Planned):
    """A compiled model: what was planned, and its program, walked and in agreement."""

    program: Program
    counted: Agreement

    @cached_property
    def timing(self) -> Timing:
        """When everything in the program happens."""
        from dnnc_runtime.timeline import timeline

        return timeline(self.program)

    def save(self, path: str | Path) -> None:
        """Write the artifact.

        Raises:
            UsageFault: the path cannot be written.
        """
        from dnnc import artifact

        artifact.save(self, path)

    def _repr_html_(self) -> str:
        from dnnc.report import html_table

        return html_table(self.plan, self.timing)


def compile(
    model: Any,
    target: str | Path | Machine = "snowflake",
    *,
    objective: Goal | Objective = "traffic",
    constraints: str | Path | Constraints | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    cache: str | Path | None = None,
    host: bool = True,
    plan: Scope = "fused",
    time_limit: float = 60.0,
    hook: Hook | None = None,
    progress: Progress | None = None,
) -> Compilation:
    """Compile an ONNX model: the plan of its layers with the fewest DRAM bytes, proven, and a program that moves them.

    Args:
        model: path of an ONNX file, or a ModelProto.
        target: name of a shipped machine, path of a machine file, or a machine.
        objective: "traffic" (fewest bytes), "latency" (fewest cycles) or "balanced".
        constraints: path of a constraints file, or constraints.
        input_shapes: shapes of inputs whose dimensions the model leaves open.
        cache: directory of results of earlier runs; none if not given.
        host: whether nodes that the array does not run may run on the host.
        plan: "layerwise" (every layer from DRAM to DRAM), "resident" (tensors stay on chip from layer to layer) or
            "fused" (groups of layers run by strips of rows, too).
        time_limit: deterministic seconds of the solver for one layer, and of the search for all together.
        hook: told every stage and its result.
        progress: told every layer before it is planned.

    Raises:
        UsageFault, ModelFault, CapacityFault: see their exit statuses; the message says what to do.
        DisagreementFault: a defect of dnnc: nothing is returned whose bytes do not agree.
    """
    from dnnc.agreement import agree
    from dnnc.emit import emit
    from dnnc.length import warn_if_long

    tell: Hook = hook or _nobody
    found = plan_network(
        model,
        target,
        objective=objective,
        constraints=constraints,
        input_shapes=input_shapes,
        cache=cache,
        host=host,
        plan=plan,
        time_limit=time_limit,
        hook=hook,
        progress=progress,
    )
    warn_if_long(found.plan, found.realized)
    program = emit(found.lowered, found.plan.schedules, found.machine, found.realized)
    tell("program", program)
    counted = agree(found.plan, program)
    tell("agreement", counted)
    return Compilation(
        found.graph,
        found.lowered,
        found.plan,
        found.realized,
        found.constraints,
        found.input_shapes,
        found.unfused,
        found.interrupted,
        program,
        counted,
    )


def plan_network(
    model: Any,
    target: str | Path | Machine = "snowflake",
    *,
    objective: Goal | Objective = "traffic",
    constraints: str | Path | Constraints | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    cache: str | Path | None = None,
    host: bool = True,
    plan: Scope = "fused",
    time_limit: float = 60.0,
    hook: Hook | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Plan an ONNX model as :func:`compile` does, and prove the plan, without a program.

    A program of millions of tiles takes minutes and gigabytes, where its plan and the proof may take seconds. Nothing
    is counted then, and there is no timeline: bytes are those predicted, cycles those of the closed form. Under
    "latency" and "balanced" the search itself emits programs, to time them.

    Args:
        model, target, objective, constraints, input_shapes, cache, host, plan, time_limit, hook, progress: see
            :func:`compile`.

    Raises:
        UsageFault, ModelFault, CapacityFault: see their exit statuses; the message says what to do.
    """
    from dnnc.onnx_import import load as load_model
    from dnnc.simplify import simplify
    from dnnc.together import Together

    tell: Hook = hook or _nobody
    if plan not in SCOPES:
        raise UsageFault(f"plan {plan!r} is unknown; expected one of {', '.join(SCOPES)}")
    machine = target if isinstance(target, Machine) else load_machine(target)
    rules = _constraints(constraints)
    graph = load_model(model, input_shapes)
    tell("import", graph)
    graph = simplify(graph)
    tell("simplify", graph)
    planner = _planner(machine, objective, rules, cache, time_limit, progress)
    lowered, layers, unfused = _plan(graph, machine, rules, planner, host, tell)
    if planner.store:
        planner.store.close()
    tell("plan", layers)
    fixed = fixed_layers(lowered, machine, rules)
    together = Together(lowered, layers, fixed, time_limit, planner.interrupted)
    whole, made = together.find("layerwise" if planner.interrupted else plan, partial(_cycles, lowered))
    tell("together", whole)
    shapes = dict(input_shapes or {})
    return Planned(graph, lowered, whole, made, rules, shapes, unfused, together.interrupted)


def _cycles(lowered: Lowered, plan: Plan, made: Realized | None) -> float:
    """How long a plan takes."""
    from dnnc.emit import emit
    from dnnc_runtime.timeline import timeline

    return timeline(emit(lowered, plan.schedules, plan.machine, made)).cycles


def fixed_layers(lowered: Lowered, machine: Machine, rules: Constraints | None) -> frozenset[str]:
    """The layers whose schedules a user has asked something of."""
    from dnnc.layer import HostLayer
    from dnnc.space import Limits

    if rules is None:
        return frozenset()
    layers = (layer for layer in lowered.layers if not isinstance(layer, HostLayer))
    asked = (layer.name for layer in layers if rules.for_layer(layer.name, machine, layer.shape) != Limits())
    return frozenset(asked)


def _nobody(stage: str, result: object) -> None:
    """Where there is no hook."""


def _constraints(constraints: str | Path | Constraints | None) -> Constraints | None:
    if constraints is None or not isinstance(constraints, str | Path):
        return constraints
    from dnnc.constraints import load

    return load(constraints)


def _planner(
    machine: Machine,
    objective: Goal | Objective,
    rules: Constraints | None,
    cache: str | Path | None,
    time_limit: float,
    progress: Progress | None,
) -> Planner:
    from dnnc.planning import Planner

    goal = objective if isinstance(objective, Objective) else Objective(objective)
    if cache is None:
        return Planner(machine, goal, rules, None, time_limit, progress)
    from dnnc.cache import Cache

    return Planner(machine, goal, rules, Cache(Path(cache)), time_limit, progress)


def _plan(
    graph: Graph, machine: Machine, rules: Constraints | None, planner: Planner, host: bool, tell: Hook
) -> tuple[Lowered, Plan, Denied]:
    """The plan, and the fusions undone because two layers do better than one, or one does not fit."""
    denied: Denied = frozenset()
    lowered = lower_with(graph, machine, rules, denied)
    if rules:
        rules.check([layer.name for layer in lowered.layers], machine)
    if not host:
        refuse_host(lowered)
    tell("lower", lowered)
    while True:
        try:
            plan = planner.plan(lowered)
            break
        except (CapacityFault, UsageFault):
            more = _undo_for_room(lowered, planner, denied)
            if not more:
                raise
            denied |= more
            lowered = lower_with(graph, machine, rules, denied)
    for pairs in planner.worth_splitting(plan):
        split = lower_with(graph, machine, rules, denied | pairs)
        try:
            other = planner.plan(split)
        except (CapacityFault, UsageFault):
            continue
        if _figure(other) < _figure(plan):
            lowered, plan, denied = split, other, denied | pairs
    return lowered, plan, denied


def _figure(plan: Plan) -> tuple[int, int]:
    totals = plan.totals
    if plan.objective.goal == "latency":
        return totals.cycles, totals.dram_bytes
    return totals.dram_bytes, totals.cycles


def _undo_for_room(lowered: Lowered, planner: Planner, denied: Denied) -> Denied:
    """The first fusion of the first layer that does not fit, or that no schedule can run, and of all layers like it."""
    from dnnc.layer import HostLayer

    for layer in lowered.layers:
        if isinstance(layer, HostLayer):
            continue
        try:
            planner.layer(layer)
        except (CapacityFault, UsageFault):
            kinds = [f"{layer.shape.pool.kind}_pool"] if layer.shape.pool else []
            kinds += ["residual"] if layer.shape.residual else []
            first = [kind for kind in kinds if (layer.name, kind) not in denied][:1]
            return frozenset((name, kind) for kind in first for name in planner.alike(layer, lowered))
    return frozenset()


def lower_with(graph: Graph, machine: Machine, rules: Constraints | None, denied: Denied) -> Lowered:
    """The layers of a graph, with the fusions that the user and the search leave."""
    from dnnc.lower import lower

    def fused(layer: str, kind: str) -> bool:
        return (layer, kind) not in denied and (rules is None or rules.allows_fusion(layer, kind))

    return lower(graph, machine, fused)


def refuse_host(lowered: Lowered) -> None:
    """Refuse every node that the array does not run, all at once.

    Raises:
        ModelFault: there is one.
    """
    from dnnc.layer import HostLayer

    nodes = [layer for layer in lowered.layers if isinstance(layer, HostLayer)]
    if nodes:
        listing = "; ".join(f"{layer.name!r} ({layer.operator}): {layer.reason}" for layer in nodes)
        raise ModelFault(f"{len(nodes)} node(s) need the host, which is not allowed: {listing}")


def execute(program: Program | Compilation, inputs: Values, numbers: System = "float32") -> Mapping[str, NDArray[Any]]:
    """The outputs of a program, executed in memories of its machine's size.

    Args:
        program: of a compilation (or a compilation, whose host nodes then run through onnxruntime).
        inputs: values of all inputs by name.
        numbers: "float32", or "fixed" for the machine's fixed point.

    Raises:
        UsageFault: an input is absent or of another shape.
        DisagreementFault: the program is not consistent with itself.
    """
    from dnnc_runtime.executor import execute as run
    from dnnc_runtime.numbers import Fixed, Float32

    if isinstance(program, Compilation):
        from dnnc.numeric import with_host

        program = with_host(program.program, program.graph)
    system = Fixed.of(program.machine) if numbers == "fixed" else Float32()
    return run(program, inputs, numbers=system).outputs


def verify(compilation: Compilation, inputs: Values, numbers: System = "float32") -> Verification:
    """Execute a compiled model and compare every layer; see :func:`dnnc.numeric.verify`."""
    from dnnc.numeric import verify as check

    return check(compilation.graph, compilation.plan, compilation.program, inputs, numbers)


def load(path: str | Path) -> Compilation:
    """Load an artifact, and verify it.

    Raises:
        UsageFault: it is damaged, tampered with or of a newer version.
    """
    from dnnc import artifact

    return artifact.load(path)
