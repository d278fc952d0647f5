"""What a page shows of a network: its plan beside its timeline, layer by layer, and all of it as plain data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import count
from typing import NamedTuple

from dnnc.layer import HostLayer
from dnnc.performance import Performance, layer_times, performance_data, performances, section_times, sum_of, total
from dnnc.plan import LayerPlan, Plan
from dnnc.realize import Realized
from dnnc.report import runs
from dnnc.report_page.fronts import LayerFront
from dnnc.summary import Data, groups, host_data, network_data
from dnnc_runtime.machine import Machine
from dnnc_runtime.time_shares import Time
from dnnc_runtime.timeline import Timing


@dataclass(frozen=True, slots=True)
class Line:
    """A layer of the array: its plan, when it runs, and how good that is.

    Attributes:
        time: of all its sections; it starts with the first.
        mode, loops: as it runs: its tile loops, or its strips.
    """

    plan: LayerPlan
    time: Time
    performance: Performance
    mode: str
    loops: str

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.plan.name

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.performance.seconds


class Span(NamedTuple):
    """Time from one tick to another in which a layer runs."""

    line: Line | HostLayer
    start: int
    end: int


class Block(NamedTuple):
    """Time from one tick to another in which a group of layers runs, or a layer by itself."""

    name: str
    lines: tuple[Line, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Network:
    """A compiled network under the name that a page gives it.

    Attributes:
        name: what people read.
        made: the plan made concrete, where layers run together.
        fronts: of its distinct layers, None where nobody asked for them.
        slug: the name for files and ids.
    """

    name: str
    plan: Plan
    timing: Timing
    fronts: tuple[LayerFront, ...] | None = None
    slug: str = "network"
    made: Realized | None = None

    @property
    def machine(self) -> Machine:
        """The machine that it is compiled for."""
        return self.plan.machine

    @cached_property
    def lines(self) -> tuple[Line | HostLayer, ...]:
        """Layers in execution order; what the host runs is not timed."""
        found, times = performances(self.plan, self.timing), layer_times(self.plan, self.timing)
        how = runs(self.plan, self.made)
        return tuple(
            layer
            if isinstance(layer, HostLayer)
            else Line(layer, sum_of(times[layer.name]), found[layer.name], *how[layer.name])
            for layer in self.plan.layers
        )

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """All sections, one after the other; those of one layer that follow each other as one."""
        by_name = {line.name: line for line in self.lines}
        out: list[Span] = []
        for name, time in section_times(self.plan, self.timing):
            start, end = (round(at * self.timing.ticks_per_cycle) for at in (time.start, time.start + time.cycles))
            line = by_name[name]
            if out and out[-1].line is line:
                out[-1] = Span(line, out[-1].start, end)
            else:
                out.append(Span(line, start, end))
        return tuple(out)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The groups of the plan, and the layers of the array that run by themselves."""
        names = {name: f"group {group.number}" for group in groups(self.plan) for name in group.layers}
        out: list[Block] = []
        for line, start, end in self.spans:
            if isinstance(line, HostLayer):
                continue
            name = names.get(line.name, line.name)
            if out and out[-1].name == name:
                lines = out[-1].lines if line in out[-1].lines else (*out[-1].lines, line)
                out[-1] = Block(name, lines, out[-1].start, end)
            else:
                out.append(Block(name, (line,), start, end))
        return tuple(out)

    @property
    def layers(self) -> tuple[Line, ...]:
        """The layers of the array."""
        return tuple(line for line in self.lines if isinstance(line, Line))

    @property
    def performance(self) -> Performance:
        """Of all layers of the array, one after the other."""
        return total(self.plan, (line.performance for line in self.layers))

    def seconds(self, cycles: float) -> float:
        """Seconds of so many cycles."""
        return cycles / self.machine.clock_hz

    def milliseconds(self, ticks: float) -> float:
        """Milliseconds of so many ticks of the timeline."""
        return 1e3 * self.seconds(ticks / self.timing.ticks_per_cycle)


def peak(machine: Machine) -> float:
    """Operations per second of all multiply-accumulate units, two operations in each."""
    return 2 * machine.macs_per_cycle * machine.clock_hz


def intensity(of: Performance) -> float:
    """Operations for each byte of DRAM payload."""
    return of.ops / of.dram_bytes if of.dram_bytes else 0.0


def named(networks: Sequence[Network]) -> tuple[Network, ...]:
    """Networks under names and slugs that differ: of one name, by their machines, then by what was minimised."""
    names = [network.name for network in networks]
    for more in _MORE:
        alike = {name for name, times in Counter(names).items() if times > 1}
        names = [name + more(n) if name in alike else name for name, n in zip(names, networks, strict=True)]
    names = _numbered(names, " ({})")
    slugs = _numbered([re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "network" for name in names], "-{}")
    return tuple(replace(n, name=name, slug=slug) for n, name, slug in zip(networks, names, slugs, strict=True))


_MORE: tuple[Callable[[Network], str], ...] = (
    lambda network: f" on {network.machine.name}",
    lambda network: f", {network.plan.objective}",
)


def _numbered(names: Sequence[str], form: str) -> list[str]:
    """Names that differ, if need be by a number behind them."""
    taken: list[str] = []
    for name in names:
        numbers = (name if i == 1 else name + form.format(i) for i in count(1))
        taken.append(next(each for each in numbers if each not in taken and (each == name or each not in names)))
    return taken


# -- plain data ------------------------------------------------------------------------------------------------------


def figures_data(network: Network) -> Data:
    """The figures that the page draws, under the names that ``--json`` has for them."""
    plan, machine, timing = network.plan, network.machine, network.timing
    return {
        "name": network.name,
        "status": plan.status,
        "objective": str(plan.objective),
        "target": {
            "name": machine.name,
            "digest": machine.digest,
            "clock_hz": machine.clock_hz,
            "ops_per_second": peak(machine),
            "dram_bytes_per_second": machine.dram.bytes_per_second,
        },
        "totals": {**asdict(plan.totals), "time": performance_data(network.performance)},
        "network": network_data(plan, network.made),
        "layers": [_layer_data(line) for line in network.layers],
        "host": [host_data(layer) for layer in plan.on_host],
        "memories": {
            memory.name: {"bytes": memory.bytes, "largest_bytes": timing.occupancy[memory.name].largest}
            for memory in machine.memories
        },
        "fronts": None if network.fronts is None else [asdict(front) for front in network.fronts],
    }


def _layer_data(line: Line) -> Data:
    plan, figures = line.plan, line.plan.figures
    return {
        "name": plan.name,
        "operator": plan.layer.operator,
        "traffic": {role: {"read": read, "write": write} for role, (read, write) in plan.traffic.items()},
        "dram_bytes": figures.dram_bytes,
        "bus_bytes": figures.bus_bytes,
        "compulsory_bytes": plan.compulsory_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "macs": plan.macs,
        "valid_ops": plan.valid_ops,
        "cycles": figures.cycles,
        "time": performance_data(line.performance),
        "start_cycle": line.time.start,
    }
