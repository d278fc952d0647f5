"""Everything about one layer: its loop nest, memory use, bytes against their bounds, proof, and the runners-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from dnnc.front import Front
from dnnc.layer import Layer
from dnnc.nest_text import Transfer, nest_lines
from dnnc.performance import Performance, performance_data
from dnnc.plan import LayerPlan
from dnnc.report import capacity, factor, percent, plural, proof_sentence, shares_lines, window_text
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


def _time(seen: Inspection) -> Iterator[str]:
    """In the timeline, beside the closed form and the least that it could be."""
    of = seen.time
    yield (
        f"  {of.cycles:,.0f} cycles = {1e3 * of.seconds:,.3f} ms: {of.ops_per_second / 1e9:,.1f} Gop/s, efficiency"
        f" {100 * of.efficiency:.1f} %, DRAM {of.bytes_per_second / 1e9:.2f} GB/s"
    )
    yield f"  bound by {of.shares.bound}"
    yield from (f"  {line}" for line in shares_lines(of))
    yield f"  closed form {of.closed_form:,} cycles ({100 * of.off:+.2f} %); no schedule takes fewer than {of.floor:,}"


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
    spread = next(mode.spread for mode in machine.modes if mode.name == schedule.mode)
    units = ", ".join(f"{d} over {level.name}" for d, level in zip(spread, machine.levels, strict=True))
    buffers = dict(zip(("input", "weights", "output"), schedule.buffers, strict=True))
    if layer.shape.kind == "vector":
        del buffers["weights"]
    double = ", ".join(role for role, held in buffers.items() if held == 2)
    facts = {
        "nodes": ", ".join(layer.nodes) or "none: a copy",
        "extents": _extents(layer),
        "rows": window_text(layer.shape.y),
        "columns": window_text(layer.shape.x),
        "fused": ", ".join(plan.fused).replace("_", " "),
        "mode": f"{schedule.mode} ({units})",
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
    """The instructions as text, of one layer or of all; without the machine and the tensors."""
    sections = tuple(s for s in program.sections if layer in (None, s.name))
    lines = str(replace(program, tensors=(), values=(), inputs=(), outputs=(), sections=sections)).splitlines()
    return lines[next((i for i, line in enumerate(lines) if line.startswith("section ")), len(lines)) :]
