"""How long a plan takes in the timeline, what that is spent on, and how good it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from math import ceil
from operator import add
from typing import Any

from dnnc.axis import footprint_cut
from dnnc.cycles import ClosedForm
from dnnc.layer import Shape
from dnnc.plan import LayerPlan, Plan
from dnnc.schedule import Dim, Schedule, deals
from dnnc.space import locate
from dnnc.traffic import compulsory
from dnnc_runtime.machine import Machine
from dnnc_runtime.time_shares import Shares, Time
from dnnc_runtime.timeline import Timing

CLOSE = 0.02
"""How far the closed form may be from the timeline before a report says so."""


@dataclass(frozen=True, slots=True)
class Performance:
    """The time of a layer, or of a network.

    Attributes:
        machine: that it runs on.
        cycles: in the timeline; shares: what they are spent on.
        closed_form: cycles of the closed form.
        floor: a bound that no schedule of the layer beats; where it runs with others, of what it computes alone.
        ops: operations on valid taps, two for each multiply-accumulate.
        dram_bytes: payload.
    """

    machine: Machine
    cycles: float
    shares: Shares
    closed_form: int
    floor: int
    ops: int
    dram_bytes: int

    def __add__(self, other: Performance) -> Performance:
        return Performance(
            self.machine,
            self.cycles + other.cycles,
            self.shares + other.shares,
            self.closed_form + other.closed_form,
            self.floor + other.floor,
            self.ops + other.ops,
            self.dram_bytes + other.dram_bytes,
        )

    @property
    def seconds(self) -> float:
        """Time."""
        return self.cycles / self.machine.clock_hz

    @property
    def ops_per_second(self) -> float:
        """Valid operations in a second."""
        return self.ops / self.seconds if self.cycles else 0.0

    @property
    def bytes_per_second(self) -> float:
        """DRAM payload in a second."""
        return self.dram_bytes / self.seconds if self.cycles else 0.0

    @property
    def efficiency(self) -> float:
        """Time that the valid operations take at the machine's peak, over the time."""
        return self.ops / (2 * self.machine.macs_per_cycle) / self.cycles if self.cycles else 0.0

    @property
    def off(self) -> float:
        """By how much the closed form is off: (closed form - timeline) / timeline."""
        return self.closed_form / self.cycles - 1 if self.cycles else 0.0


def section_times(plan: Plan, timing: Timing) -> Iterator[tuple[str, Time]]:
    """The layer and the time of every section.

    The host takes no time. Where its section waits for stores, that is time of the layer before.
    """
    on_host = {layer.name for layer in plan.on_host}
    before = ""
    for section, time in zip(timing.sections, timing.times, strict=True):
        name = plan.layer_of(section)
        if name in on_host:
            if time.cycles and before:
                yield before, Time(time.start, time.cycles, 0.0, 0.0, Shares(last_store=time.cycles))
            yield name, Time(time.start + time.cycles, 0.0, 0.0, 0.0, Shares())
        else:
            before = name
            yield name, time


def layer_times(plan: Plan, timing: Timing) -> Mapping[str, tuple[Time, ...]]:
    """The times of every layer's sections, by its name: one by itself, many by strips."""
    found: dict[str, list[Time]] = {}
    for name, time in section_times(plan, timing):
        found.setdefault(name, []).append(time)
    return {name: tuple(times) for name, times in found.items()}


def sum_of(times: Sequence[Time]) -> Time:
    """Some sections as if they were one, which starts with the first."""
    shares = reduce(add, (time.shares for time in times), Shares())
    cycles, busy, channel = (sum(getattr(time, what) for time in times) for what in ("cycles", "busy", "channel"))
    return Time(times[0].start, cycles, busy, channel, shares)


def layer_performance(plan: LayerPlan, machine: Machine, times: Sequence[Time]) -> Performance:
    """The time of one layer of the array, given those of its sections."""
    time = sum_of(times)
    return _performance(plan, machine, time.cycles, time.shares)


def _performance(plan: LayerPlan, machine: Machine, cycles: float, shares: Shares) -> Performance:
    figures, floor = plan.figures, floor_cycles(plan.layer.shape, machine, moving=plan.alone is None)
    return Performance(machine, cycles, shares, figures.cycles, floor, plan.valid_ops, figures.dram_bytes)


def performances(plan: Plan, timing: Timing) -> dict[str, Performance]:
    """The time of every layer of the array, by name."""
    times = layer_times(plan, timing)
    return {layer.name: layer_performance(layer, plan.machine, times[layer.name]) for layer in plan.on_array}


def closed_forms(plan: Plan) -> dict[str, Performance]:
    """The time of every layer of the array in closed form, by name; what it is spent on, a timeline alone would say."""
    return {layer.name: _performance(layer, plan.machine, layer.figures.cycles, Shares()) for layer in plan.on_array}


def total(plan: Plan, layers: Iterable[Performance]) -> Performance:
    """All layers one after the other."""
    machine = plan.machine
    found = reduce(add, layers, Performance(machine, 0.0, Shares(), 0, 0, 0, 0))
    return replace(found, floor=plan_floor(plan)) if plan.network else found


def plan_floor(plan: Plan) -> int:
    """Cycles that no plan beats whose layers run together: of the array, or of the fewest bytes on the channel."""
    machine, network = plan.machine, plan.network
    on_array = (layer.layer.shape for layer in plan.on_array if layer.layer.shape.kind == "array")
    computing = sum(floor_cycles(shape, machine, moving=False) for shape in on_array)
    moved = network.bound if network else plan.totals.compulsory_bytes
    return max(computing, ceil(moved * machine.clock_hz / machine.dram.bytes_per_second))


def frames_per_second(plan: Plan, all_layers: Performance) -> float:
    """Images in a second: those of one run, as its first layer has them, over the time."""
    images = plan.on_array[0].layer.shape.n if plan.on_array else 1
    return images / all_layers.seconds if all_layers.cycles else 0.0


def floor_cycles(shape: Shape, machine: Machine, moving: bool = True) -> int:
    """Cycles that no schedule beats: of the array with everything in one tile, or of compulsory traffic.

    Args:
        moving: whether compulsory traffic counts, which it does unless other layers keep it on chip.
    """
    least: list[int] = []
    whole = replace(shape, pool=None)
    for deal in deals(shape, machine):
        y, x = footprint_cut(shape.y, deal.rows, shape.y.size), footprint_cut(shape.x, 1, shape.x.size)
        order: tuple[Dim, ...] = ("y",) if shape.n > 1 else ()
        model, tiles = locate(whole, machine, Schedule(deal.mode, y, x, shape.k, shape.c, shape.g, order))
        form = ClosedForm(model)
        transfer = int(form.transfer(compulsory(shape, machine))) if moving else 0
        least.append(max(int(form.compute(tiles)), transfer))
    return min(least)


def performance_data(of: Performance) -> dict[str, Any]:
    """A time as plain data."""
    return {
        "cycles": of.cycles,
        "closed_form_cycles": of.closed_form,
        "floor_cycles": of.floor,
        "ms": 1e3 * of.seconds,
        "gops_per_s": of.ops_per_second / 1e9,
        "dram_gb_per_s": of.bytes_per_second / 1e9,
        "efficiency": of.efficiency,
        "bound": of.shares.bound,
        "shares": asdict(of.shares),
    }
