"""A plan as plain data, for JSON: every figure under the name that the command line documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from dnnc.axis import Cut
from dnnc.layer import HostLayer, Shape
from dnnc.performance import frames_per_second, performance_data, performances, total
from dnnc.plan import LayerPlan, Plan
from dnnc.realize import Realized
from dnnc.schedule import Schedule
from dnnc.search import Proof
from dnnc.segments import Strips
from dnnc_runtime.machine import Machine
from dnnc_runtime.timeline import Timing

Data = dict[str, Any]
"""What ``json.dumps`` takes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive layers that run together by strips.

    Attributes:
        number: from 1, in execution order; ``segment``: its number among all segments.
        strips: how it runs.
        layers: their names.
    """

    number: int
    segment: int
    strips: Strips
    layers: tuple[str, ...]

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """For every strip its (first, stop) rows of the last layer's output."""
        return tuple(pairwise((0, *self.strips.bounds)))

    @property
    def columns(self) -> tuple[tuple[int, int], ...]:
        """For every block of columns its (first, stop) of the last layer's output; empty if there is one block."""
        return tuple(pairwise((0, *self.strips.columns))) if self.strips.columns else ()

    @property
    def turns(self) -> int:
        """Strips of all blocks of columns."""
        return len(self.rows) * max(1, len(self.columns))


def groups(plan: Plan) -> tuple[Group, ...]:
    """The groups of a plan in execution order."""
    segments = plan.network.segments if plan.network else ()
    by_strips = ((i, segment) for i, segment in enumerate(segments) if isinstance(segment, Strips))
    return tuple(
        Group(number, i, strips, tuple(plan.layers[position].name for position in strips.positions))
        for number, (i, strips) in enumerate(by_strips, 1)
    )


def plan_data(plan: Plan, made: Realized | None = None) -> Data:
    """Status, totals, layers and host nodes of a plan. Bytes are DRAM payload unless named otherwise.

    Args:
        made: the plan made concrete, for what is on chip between groups.
    """
    return {
        "status": plan.status,
        "objective": str(plan.objective),
        "target": {"name": plan.machine.name, "digest": plan.machine.digest},
        "totals": asdict(plan.totals),
        "network": network_data(plan, made),
        "layers": [layer_data(layer) for layer in plan.on_array],
        "host": [host_data(layer) for layer in plan.on_host],
    }


def compiled_data(plan: Plan, timing: Timing | None, made: Realized | None = None) -> Data:
    """The same with the time of every layer and of all of them; None where there is no timeline."""
    data, times = plan_data(plan, made), performances(plan, timing) if timing else {}
    of = total(plan, times.values())
    time = {**performance_data(of), "frames_per_s": frames_per_second(plan, of)} if timing else None
    by_layer = {name: performance_data(each) for name, each in times.items()}
    layers = [{**layer, "time": by_layer.get(layer["name"])} for layer in data["layers"]]
    return {**data, "totals": {**data["totals"], "time": time}, "layers": layers}


def network_data(plan: Plan, made: Realized | None = None) -> Data | None:
    """How layers run together; None if every one runs by itself."""
    network = plan.network
    if network is None:
        return None
    found = groups(plan)
    data: Data = {
        "scope": network.scope,
        "best": {scope: best._asdict() for scope, best in network.best.items()},
        "layer_by_layer_cycles": layerwise_cycles(plan),
        "groups": [
            {
                "number": group.number,
                "layers": group.layers,
                "strips": [list(rows) for rows in group.rows],
                "blocks": [list(columns) for columns in group.columns],
            }
            for group in found
        ],
    }
    if made:
        for entry, group in zip(data["groups"], found, strict=True):
            entry["entering"] = _rows(made, made.lives.staying[group.segment])
            entry["leaving"] = _rows(made, made.lives.staying[group.segment + 1])
            entry["by_tiles"] = [made.steps.maps[m].value for m in group.strips.handed]
            entry["loaded_again"] = [made.steps.maps[m].value for m in group.strips.spilled]
        size = made.chip.machine.memory(made.chip.memory).bytes
        data["memory"] = {"name": made.chip.memory, "bytes": size, "peak_bytes": max(made.used, default=0)}
    return data


def _rows(made: Realized, on_chip: Mapping[int, int]) -> list[Data]:
    """What is on chip before or after a group: value by value the rows of how many."""
    found = ((made.steps.maps[m], mask) for m, mask in sorted(on_chip.items()))
    return [{"value": m.value, "rows": mask.bit_count(), "of": m.lines} for m, mask in found]


def layerwise_cycles(plan: Plan) -> int:
    """Cycles of the closed form of every layer under its own schedule."""
    return sum(layer.by_itself.cycles for layer in plan.on_array)


def layer_data(plan: LayerPlan) -> Data:
    """One layer: what it is, its schedule, what that moves, holds and takes, and the proof."""
    layer, figures = plan.layer, plan.figures
    return {
        "name": plan.name,
        "operator": layer.operator,
        "nodes": layer.nodes,
        "dims": dims(layer.shape),
        "window": {"y": asdict(layer.shape.y), "x": asdict(layer.shape.x)},
        "pool": asdict(layer.shape.pool) if layer.shape.pool else None,
        **_schedule(plan.schedule, layer.shape),
        "dataflow": plan.dataflow,
        "strips": plan.strips,
        "fused": plan.fused,
        "traffic": {role: {"read": read, "write": write} for role, (read, write) in plan.traffic.items()},
        "dram_bytes": figures.dram_bytes,
        "bus_bytes": figures.bus_bytes,
        "compulsory_bytes": plan.compulsory_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "macs": plan.macs,
        "valid_ops": plan.valid_ops,
        "cycles": figures.cycles,
        "compute_cycles": figures.compute_cycles,
        "memory": dict(figures.memory),
        "residents": dict(figures.residents),
        "by_itself": _by_itself(plan) if plan.alone else None,
        "proof": _proof(plan.proof),
    }


def _by_itself(plan: LayerPlan) -> Data:
    """What a layer that runs by strips moves, holds and takes under its own schedule."""
    own = plan.by_itself
    return {
        "dram_bytes": own.dram_bytes,
        "bus_bytes": own.bus_bytes,
        "cycles": own.cycles,
        "compute_cycles": own.compute_cycles,
        "memory": dict(own.memory),
    }


def dims(shape: Shape) -> dict[str, int]:
    """Extents: images n, groups g, output and input channels per group k and c, output rows and columns y and x
    (before a fused pool), kernel rows and columns r and q."""
    return {
        "n": shape.n,
        "g": shape.g,
        "k": shape.k,
        "c": shape.c,
        "y": shape.y.out,
        "x": shape.x.out,
        "r": shape.y.kernel,
        "q": shape.x.kernel,
    }


def tile_sizes(schedule: Schedule) -> dict[str, int]:
    """Size of the largest tile along every loop."""
    return {
        "y": schedule.y.largest,
        "x": schedule.x.largest,
        "k": schedule.k,
        "c": schedule.c,
        "g": schedule.g,
    }


def _schedule(schedule: Schedule, shape: Shape) -> Data:
    buffers = dict(zip(("input", "weights", "output"), schedule.buffers, strict=True))
    return {
        "mode": schedule.mode,
        "order": schedule.order,
        "tiles": tile_sizes(schedule),
        "tile_counts": schedule.trips(shape),
        "cuts": {"y": _cut(schedule.y), "x": _cut(schedule.x)},
        "residency": {
            "buffers": buffers,
            "pin": asdict(schedule.pin) if schedule.pin else None,
            "parameters": "with each k tile" if schedule.follow else "for the layer",
        },
        "halo": {
            "tiles": "keep" if schedule.keep else "reload",
            "units": "move" if schedule.move else "reload",
        },
    }


def _cut(cut: Cut) -> Data:
    """Tile lengths by unit and step."""
    lengths = [[stop - first for first, stop in block] for block in cut.tiles]
    return {"style": cut.style, "size": cut.size, "tiles": lengths}


def _proof(proof: Proof) -> Data:
    bound_bytes = proof.bound if proof.quantity == "bytes" else None
    return {**asdict(proof), "bound_bytes": bound_bytes, "gap": proof.gap}


def host_data(layer: HostLayer) -> Data:
    """One node that the array does not run, and why."""
    return {
        "name": layer.name,
        "operator": layer.operator,
        "nodes": layer.nodes,
        "reason": layer.reason,
        "read_bytes": layer.read_bytes,
        "write_bytes": layer.write_bytes,
    }


def machine_data(machine: Machine) -> Data:
    """Every figure of a machine, and what follows from them."""
    names = [level.name for level in machine.levels]
    return {
        "name": machine.name,
        "description": machine.description,
        "digest": machine.digest,
        "clock_hz": machine.clock_hz,
        "macs_per_cycle": machine.macs_per_cycle,
        "word_bits": machine.word_bits,
        "fraction_bits": machine.fraction_bits,
        "accumulator_bits": machine.accumulator_bits,
        "channel_granularity": machine.channel_granularity,
        "pool_comparisons_per_cycle": machine.pool_comparisons_per_cycle,
        "units_can_send": machine.units_can_send,
        "words_sent_per_cycle": machine.words_sent_per_cycle,
        "levels": [asdict(level) for level in machine.levels],
        "memories": [
            {"name": m.name, "level": names[m.level], "bytes": m.bytes, "instances": machine.instances(m)}
            for m in machine.memories
        ],
        "roles": dict(machine.roles),
        "modes": [{"name": m.name, "spread": dict(zip(names, m.spread, strict=True))} for m in machine.modes],
        "fuses": sorted(machine.fuses),
        "dram": asdict(machine.dram),
    }
