"""Everything about one layer: its loop nest, memory use, bytes against their bounds, proof, and the runners-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from dnnc.front import Front
from dnnc.layer import HALF, Layer
from dnnc.nest_text import Transfer, nest_lines
from dnnc.network_text import strips_data, strips_grid
from dnnc.performance import Performance, performance_data
from dnnc.plan import LayerPlan
from dnnc.report import (
    capacity,
    factor,
    loops,
    modes,
    percent,
    plural,
    proof_sentence,
    shares_lines,
    window_text,
)
from dnnc.residency import Residency
from dnnc.search import DATAFLOWS, RunnerUp
from dnnc.summary import Data, layer_data
from dnnc.traffic import MEMORY_ROLE
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Program


@dataclass(frozen=True, slots=True)
class Inspection:
    """What there is to see of a layer: its plan, what is moved at each loop, its time, and what else it could be."""

    plan: LayerPlan
    machine: Machine
    moved: Sequence[Transfer]
    time: Performance
    runners: Sequence[RunnerUp]
    front: Front | None


def layer_text(seen: Inspection) -> Iterator[str]:
    """A layer for reading, line by line."""
    plan, machine = seen.plan, seen.machine
    parts: tuple[Iterable[str], ...] = (
        _head(plan, machine),
        ("", "loop nest (DRAM payload bytes)", *(f"  {line}" for line in nest_lines(plan, seen.moved))),
        ("", "memory, the fullest instance of each", *_memory(plan, machine)),
        ("", "bytes", *_bytes(plan, machine)),
        ("", "time", *_time(seen)),
        ("", f"proof: {proof_sentence(plan.proof)}", *_runners(plan, seen.runners)),
        ("", *_front(seen)),
    )
    for part in parts:
        yield from part


@dataclass(frozen=True, slots=True)
class StripInspection:
    """What there is to see of a layer that runs by strips with others: its plan, its sections, its time."""

    plan: LayerPlan
    of: Residency
    time: Performance


def strips_text(seen: StripInspection) -> Iterator[str]:
    """A layer of a group for reading, line by line."""
    plan, of = seen.plan, seen.of
    machine = of.plan.machine
    sections = strips_grid(of, plan).lines()
    own = loops(plan.schedule, plan.layer.shape)
    parts: tuple[Iterable[str], ...] = (
        _head_of_group(plan, of),
        ("", "rows, one section of the program after the other", *(f"  {line}" for line in sections)),
        ("", "bytes", *_bytes_both(plan, machine)),
        ("", "time", *_time_lines(seen.time, "no plan computes it in fewer than")),
        (f"  by itself {plan.by_itself.cycles:,} cycles in closed form",),
        ("", f"by itself: {own} in mode {plan.schedule.mode}; {proof_sentence(plan.proof)}"),
    )
    for part in parts:
        yield from part


def _head_of_group(plan: LayerPlan, of: Residency) -> Iterator[str]:
    group = of.group_of(plan.name)
    assert group is not None
    layer, machine = plan.layer, of.plan.machine
    yield f"{plan.name}: {layer.operator} on {machine.name}"
    mode = modes(of.made)[plan.name]
    others = f"{plural(len(group.layers), 'layer')}, {group.layers[0]} to {group.layers[-1]}"
    together = others if len(group.layers) > 1 else "this layer alone, for what stays on chip"
    used = plan.figures.memory[of.memory.name]
    facts = {
        **_what(plan, of.by_rows(plan.name)),
        "mode": f"{mode} ({_spread(mode, machine)})",
        "group": f"{group.number}: {together}; {plural(len(group.rows), 'strip')}",
        "kernels": of.layer_kernels(plan.name),
        "memory": f"{of.memory.name}: {used:,} B of {of.memory.bytes:,} B at most while it runs, by all that is there",
    }
    yield from (f"  {name:<9} {fact}" for name, fact in facts.items() if fact)


def _what(plan: LayerPlan, layer: Layer) -> dict[str, str]:
    """Nodes, extents and windows of a layer, as it is run."""
    return {
        "nodes": ", ".join(layer.nodes) or "none: a copy",
        "extents": _extents(layer),
        "rows": window_text(layer.shape.y),
        "columns": window_text(layer.shape.x),
        "fused": ", ".join(plan.fused).replace("_", " "),
    }


def _spread(mode: str, machine: Machine) -> str:
    spread = next(made.spread for made in machine.modes if made.name == mode)
    return ", ".join(f"{d} over {level.name}" for d, level in zip(spread, machine.levels, strict=True))


def _bytes_both(plan: LayerPlan, machine: Machine) -> Iterator[str]:
    """By tensor what the layer moves in the plan, and what it would by itself."""
    mine, own = plan.figures, plan.by_itself
    yield f"  {'':<14} {'read':>13}   {'written':>13}     {'by itself: read':>16}   {'written':>13}"
    for role, (read, written) in plan.traffic.items():
        alone = own.traffic.get(role, (0, 0))
        if read or written or any(alone):
            name = role.replace("_", " ")
            yield f"  {name:<14} {read:>13,} B {written:>13,} B   {alone[0]:>16,} B {alone[1]:>13,} B"
    times = factor(mine.dram_bytes, own.dram_bytes)
    yield f"  {'total':<14} {mine.dram_bytes:>13,} B: {times} x as much as by itself ({own.dram_bytes:,} B)"
    yield (
        f"  {'on the bus':<14} {mine.bus_bytes:>13,} B in bursts of {machine.dram.burst_bytes} B;"
        f" {own.bus_bytes:,} B by itself"
    )


def strips_inspection(seen: StripInspection) -> Data:
    """The same for machines: the record of `compile --json` with the layer's group and sections."""
    group = seen.of.group_of(seen.plan.name)
    assert group is not None
    return {
        **layer_data(seen.plan),
        "mode_in_group": modes(seen.of.made)[seen.plan.name],
        "group": group.number,
        "time": performance_data(seen.time),
        "sections": strips_data(seen.of, seen.plan),
    }


def _time(seen: Inspection) -> Iterator[str]:
    """In the timeline, beside the closed form and the least that it could be."""
    return _time_lines(seen.time, "no schedule takes fewer than")


def _time_lines(of: Performance, bound: str) -> Iterator[str]:
    if not of.cycles:
        yield f"  no time of its own: it runs while other layers do; {bound} {of.floor:,} cycles"
        return
    yield (
        f"  {of.cycles:,.0f} cycles = {1e3 * of.seconds:,.3f} ms: {of.ops_per_second / 1e9:,.1f} Gop/s, efficiency"
        f" {100 * of.efficiency:.1f} %, DRAM {of.bytes_per_second / 1e9:.2f} GB/s"
    )
    yield f"  bound by {of.shares.bound}"
    yield from (f"  {line}" for line in shares_lines(of))
    yield f"  closed form {of.closed_form:,} cycles ({100 * of.off:+.2f} %); {bound} {of.floor:,}"


def _front(seen: Inspection) -> Iterator[str]:
    """What nothing else beats in bytes and cycles, and what each end of it costs."""
    if seen.front is None:
        return
    points, figures = seen.front.points, seen.plan.figures
    yield "front: nothing beats these in bytes and in cycles of the closed form, in steps of one percent"
    for point in points:
        mine = (point.bytes, point.cycles) == (figures.dram_bytes, figures.cycles)
        order = " ".join(
            f"{d}:{n}" for d in point.schedule.order if (n := point.schedule.trips(seen.plan.layer.shape)[d])
        )
        yield (
            f"  {point.bytes:>13,} B {point.cycles:>13,} cycles {point.tiles:>7,} tiles  {point.schedule.mode}"
            f" {order or 'one tile'}{'  (chosen)' if mine else ''}"
        )
    first, last = points[0], points[-1]
    if len(points) > 1:
        yield (
            f"  the fewest bytes take {factor(first.cycles, last.cycles)} x the cycles of the last, which moves"
            f" {factor(last.bytes, first.bytes)} x their bytes"
        )


def _head(plan: LayerPlan, machine: Machine) -> Iterator[str]:
    layer, schedule = plan.layer, plan.schedule
    yield f"{plan.name}: {layer.operator} on {machine.name}"
    buffers = dict(zip(("input", "weights", "output"), schedule.buffers, strict=True))
    if layer.shape.kind == "vector":
        del buffers["weights"]
    double = ", ".join(role for role, held in buffers.items() if held == 2)
    facts = {
        **_what(plan, layer),
        "mode": f"{schedule.mode} ({_spread(schedule.mode, machine)})",
        "dataflow": ", ".join(plan.dataflow) or "none is stationary",
        "doubled": f"{double} (the next tile is on its way while this one is in use)" if double else "",
        "halo": "rows of two units are loaded once and moved over" if schedule.move else "",
    }
    yield from (f"  {name:<9} {fact}" for name, fact in facts.items() if fact)


def _extents(layer: Layer) -> str:
    s = layer.shape
    parts = [plural(s.n, "image")] if s.n > 1 else []
    parts += [f"{plural(s.g, 'group')} of"] if s.g > 1 else []
    parts += [f"{plural(s.k, 'plane')} of {s.y.out}x{s.x.out} outputs"]
    parts += [f"from {plural(s.c, 'channel')}"] if s.kind == "array" else []
    return " ".join(parts)


def _memory(plan: LayerPlan, machine: Machine) -> Iterator[str]:
    for memory in machine.memories:
        used = plan.figures.memory[memory.name]
        whole = f"{memory.bytes:,} B ({capacity(memory.bytes)})"
        yield f"  {memory.name:<16} {used:>11,} B of {whole}, {percent(used, memory.bytes)}"
        for role, size in plan.figures.residents.items():
            if size and machine.memory_of(MEMORY_ROLE[role]).name == memory.name:
                yield f"    {_resident(role):<14} {size:>11,} B"


def _resident(role: str) -> str:
    return {"pending": "pool windows", "second": "second operand"}.get(role, role)


def _bytes(plan: LayerPlan, machine: Machine) -> Iterator[str]:
    figures = plan.figures
    yield f"  {'':<14} {'read':>13}   {'written':>13}"
    for role, (read, written) in plan.traffic.items():
        if read or written:
            yield f"  {role.replace('_', ' '):<14} {read:>13,} B {written:>13,} B"
    dram = figures.dram_bytes
    yield (
        f"  {'total':<14} {dram:>13,} B: {factor(dram, plan.compulsory_bytes)} x compulsory"
        f" ({plan.compulsory_bytes:,} B), {factor(dram, plan.lower_bound_bytes)} x lower bound"
        f" ({plan.lower_bound_bytes:,} B)"
    )
    yield f"  {'on the bus':<14} {figures.bus_bytes:>13,} B in bursts of {machine.dram.burst_bytes} B"


def _runners(plan: LayerPlan, runners: Sequence[RunnerUp]) -> Iterator[str]:
    for runner in runners:
        factors = factor(runner.bytes, plan.figures.dram_bytes), factor(runner.cycles, plan.figures.cycles)
        yield (
            f"runner-up: {runner.dataflow} would move {runner.bytes:,} B ({factors[0]} x as many)"
            f" in {runner.cycles:,} cycles ({factors[1]} x)"
        )
    if set(plan.dataflow) == set(DATAFLOWS):
        yield "runner-up: none, every operand is stationary"
    elif not runners:
        yield "runner-up: none, no other dataflow has a legal schedule"


def layer_inspection(seen: Inspection) -> Data:
    """A layer for machines: the record of `compile --json` with its transfers, runners-up and front."""
    points = seen.front.points if seen.front else ()
    return {
        **layer_data(seen.plan),
        "time": performance_data(seen.time),
        "transfers": [asdict(transfer) for transfer in seen.moved],
        "runner_ups": [asdict(runner) for runner in seen.runners],
        "front": [{"dram_bytes": p.bytes, "cycles": p.cycles, "tiles": p.tiles} for p in points],
    }


def program_lines(program: Program, layer: str | None = None) -> list[str]:
    """The instructions as text, of all sections of one layer or of all; without the machine and the tensors."""
    names = {layer, f"{layer}{HALF}"}
    sections = tuple(s for s in program.sections if layer is None or s.name in names)
    lines = str(replace(program, tensors=(), values=(), inputs=(), outputs=(), sections=sections)).splitlines()
    return lines[next((i for i, line in enumerate(lines) if line.startswith("section ")), len(lines)) :]
