"""Bytes on the bus are those of a program's transfers in bursts; cycles are those of every tile's slowest unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import ceil, prod

from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.layer import Layer, Shape
from dnnc.schedule import Schedule
from dnnc.search import figures, macs, valid_macs
from dnnc.tables import valid_taps
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window
from literal import Walk
from one_layer import Bytes, counted, program
from strategies import Case, arrays, cases, machines, schedules, sharing_cases, windows


def moved(figures: Mapping[str, tuple[int, int]]) -> Bytes:
    """The roles that move anything."""
    return {role: (read, written) for role, (read, written) in figures.items() if read or written}


@settings(max_examples=80)
@given(st.one_of(cases(), sharing_cases()))
def test_predicted_bus_bytes_are_counted(case: Case) -> None:
    _, bus = counted(program(case.layer, case.machine, case.schedule))
    assert bus == moved(figures(case.layer.shape, case.machine, case.schedule).bus)


@given(st.one_of(cases(), sharing_cases()))
def test_the_bus_carries_whole_bursts_and_never_less_than_the_payload(case: Case) -> None:
    found = figures(case.layer.shape, case.machine, case.schedule)
    for role, pair in found.traffic.items():
        for payload, bus in zip(pair, found.bus[role], strict=True):
            assert bus >= payload
            assert bus % case.machine.dram.burst_bytes == 0


# -- cycles ----------------------------------------------------------------------------------------------------------


def taps(window: Window, output: int) -> int:
    """Taps of an output that lie in the input."""
    points = (output * window.stride + t * window.dilation - window.pad for t in range(window.kernel))
    return sum(0 <= p < window.size for p in points)


def units(shape: Shape, machine: Machine, schedule: Schedule, dim: str) -> int:
    """Units that spread a dimension."""
    mode = next(m for m in machine.modes if m.name == schedule.mode)
    return prod(level.count for level, d in zip(machine.levels, mode.spread, strict=True) if d == dim)


def passes(shape: Shape, machine: Machine, schedule: Schedule, groups: int, planes: int) -> int:
    """How often the units that share planes go through their rows for a tile of groups x planes."""
    of_k, of_g = units(shape, machine, schedule, "k"), units(shape, machine, schedule, "g")
    if shape.g > 1 and shape.k < of_k and of_g == 1:
        return ceil(groups * planes / of_k)
    return ceil(groups / of_g) * ceil(planes / of_k)


def array_cycles(shape: Shape, machine: Machine, schedule: Schedule) -> int:
    """By tile: valid row taps of the slowest unit x traces (valid columns x channels, in whole grains) x passes."""
    walk, lanes, grain = (
        Walk(shape, machine, schedule),
        units(shape, machine, schedule, "c"),
        machine.channel_granularity,
    )
    cycles = 0
    for tile in walk.visits():
        rows = max(sum(taps(shape.y, o) for o in range(*block)) for block in walk.rows(tile))
        channels = len(walk.planes("c", tile))
        columns = range(*walk.columns(tile))
        traces = sum(ceil(ceil(taps(shape.x, o) * channels / grain) * grain / lanes) for o in columns)
        cycles += (
            rows * traces * passes(shape, machine, schedule, len(walk.planes("g", tile)), len(walk.planes("k", tile)))
        )
    return cycles


@st.composite
def multiplying(draw: st.DrawFn) -> Case:
    """Cases of array layers."""
    layer, machine = draw(arrays()), draw(machines())
    return Case(layer, machine, draw(schedules(layer.shape, machine)))


@given(multiplying())
def test_array_cycles_are_those_of_every_tiles_slowest_unit(case: Case) -> None:
    shape, machine = case.layer.shape, case.machine
    assert figures(shape, machine, case.schedule).compute_cycles == array_cycles(shape, machine, case.schedule)


@given(multiplying())
def test_the_array_multiplies_at_most_once_a_cycle_and_unit(case: Case) -> None:
    cycles = figures(case.layer.shape, case.machine, case.schedule).compute_cycles
    assert cycles * case.machine.macs_per_cycle >= valid_macs(case.layer.shape)


@given(st.one_of(cases(), sharing_cases()))
def test_single_buffers_add_their_transfers_and_double_ones_hide_them(case: Case) -> None:
    shape, machine, schedule = case.layer.shape, case.machine, case.schedule
    single = figures(shape, machine, replace(schedule, buffers=(1, 1, 1)))
    per_byte = machine.clock_hz / machine.dram.bytes_per_second
    in_turn = single.compute_cycles + ceil(round(single.bus_bytes * per_byte, 6))
    early = schedule.pin is not None or (shape.residual and "c" in schedule.order)
    if not early and not shape.pool:
        assert single.cycles == in_turn
    elif not early:
        assert single.cycles >= in_turn
    double = figures(shape, machine, replace(schedule, buffers=(2, 2, 2)))
    assert double.cycles >= max(double.compute_cycles, int(sum(map(sum, hidden(double.bus))) * per_byte))


@given(st.one_of(cases(), sharing_cases()), st.tuples(*[st.sampled_from((1, 2))] * 3))
def test_more_buffers_are_never_slower(case: Case, fewer: tuple[int, int, int]) -> None:
    more = [
        (a, b, c) for a, b, c in product((1, 2), repeat=3) if all(m >= f for m, f in zip((a, b, c), fewer, strict=True))
    ]
    times = [
        figures(case.layer.shape, case.machine, replace(case.schedule, buffers=buffers)).cycles for buffers in more
    ]
    assert max(times) == times[more.index(fewer)]


def hidden(bus: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
    return [pair for role, pair in bus.items() if role in ("input", "weights", "output")]


@given(windows(14))
def test_taps_in_the_padding_are_not_multiplied(window: Window) -> None:
    assert valid_taps(window) == tuple(taps(window, o) for o in range(window.out))


@given(arrays())
def test_multiplications_on_valid_taps_and_on_all(layer: Layer) -> None:
    s = layer.shape
    valid = sum(taps(s.y, y) * taps(s.x, x) for y in range(s.y.out) for x in range(s.x.out))
    assert valid_macs(s) == s.n * s.g * s.k * s.c * valid
    assert macs(s) == s.n * s.g * s.k * s.c * s.y.out * s.x.out * s.y.kernel * s.x.kernel
