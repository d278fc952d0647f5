"""The bytes that the closed form predicts are those that a program moves, and those of the rules taken literally."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, permutations, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dnnc.axis import Cut
from dnnc.enumerate import best
from dnnc.layer import Layer, Shape
from dnnc.schedule import DIMS, Dim, Schedule
from dnnc.search import figures
from dnnc.space import Limits, Space
from dnnc.traffic import compulsory
from dnnc_runtime import machine as machines_file
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window
from literal import Span, Walk, spread_of, supported, touched, units_of
from one_layer import Bytes, counted, program
from strategies import Case, Problem, arrays, cases, layers, machines, problems, schedules, sharing_cases

TWO_BUFFER = machines_file.load("two-buffer")
MANY = 500
"""Schedules that are too many to be walked literally."""


def moved(figures: Mapping[str, tuple[int, int]]) -> Bytes:
    """The roles that move anything."""
    return {role: (read, written) for role, (read, written) in figures.items() if read or written}


def total(figures: Mapping[str, tuple[int, int]]) -> int:
    return sum(read + written for read, written in figures.values())


# -- prediction = count ----------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(cases())
def test_predicted_bytes_are_counted_in_memories_filled_to_the_last_word(case: Case) -> None:
    payload, _ = counted(program(case.layer, case.machine, case.schedule))
    assert payload == moved(figures(case.layer.shape, case.machine, case.schedule).traffic)


@settings(max_examples=80)
@given(sharing_cases())
def test_predicted_bytes_are_counted_with_rows_moved_and_tiles_pinned(case: Case) -> None:
    payload, _ = counted(program(case.layer, case.machine, case.schedule))
    assert payload == moved(figures(case.layer.shape, case.machine, case.schedule).traffic)


# -- prediction = the rules, literally -------------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.one_of(cases(), sharing_cases()))
def test_bytes_and_memory_are_those_of_the_rules_taken_literally(case: Case) -> None:
    shape, schedule = case.layer.shape, replace(case.schedule, move=False, pin=None, buffers=(1, 1, 1))
    assume(supported(shape, case.machine, schedule))
    predicted, literal = figures(shape, case.machine, schedule), Walk(shape, case.machine, schedule)
    assert moved(predicted.traffic) == moved(literal.traffic())
    assert dict(predicted.memory) == literal.memory()


def every(shape: Shape, machine: Machine) -> Iterator[Schedule]:
    """Every schedule of the space but pins, moves and double buffers; halos are kept."""
    for mode in machine.modes:
        spread = spread_of(shape, machine, mode.name)
        units = {d: units_of(machine, spread, d) for d in ("y", "k", "g")}
        granules = ((shape.k, units["k"]), (shape.c, machine.channel_granularity), (shape.g, units["g"]))
        sizes = [_multiples(total, granule) for total, granule in granules]
        columns = _cuts(shape.x, 1)[: 1 if shape.pool else None]
        for y, x in product(_cuts(shape.y, units["y"]), columns):
            for k, c, g in product(*sizes):
                yield from _orders(shape, Schedule(mode.name, y, x, k, c, g, ()))


def _orders(shape: Shape, tiles: Schedule) -> Iterator[Schedule]:
    """Every order of the loops that these tiles make active, with parameters that stay or follow."""
    active: list[Dim] = [d for d in DIMS if tiles.trips(shape)[d] > 1]
    for order in permutations(active):
        for follow in (False, True) if shape.parameters else (False,):
            yield replace(tiles, order=order, follow=follow)


def _multiples(total: int, granule: int) -> list[int]:
    """All tile sizes: multiples of what is spread, and the whole."""
    return [*range(granule, total, granule), total]


def _cuts(window: Window, units: int) -> list[Cut]:
    """The cuts of an axis: for every number of tiles the smallest footprint that needs no more."""
    each = -(-window.out // units)
    blocks = [(min(u * each, window.out), min((u + 1) * each, window.out)) for u in range(units)]
    found: dict[int, Cut] = {}
    for size in range(window.size, -1, -1):
        tiles = tuple(tuple(_greedy(window, block, size)) for block in blocks)
        if all(len(touched(window, tile)) <= size for block in tiles for tile in block):
            cut = Cut("footprint", size, tiles)
            found[max(map(len, tiles))] = cut
    return list(found.values())


def _greedy(window: Window, block: Span, size: int) -> Iterator[Span]:
    """From the start, the longest runs of outputs that touch no more input than ``size``."""
    first, end = block
    while first < end:
        stops = [s for s in range(first + 1, end + 1) if len(touched(window, (first, s))) <= size]
        stop = max(stops, default=first + 1)
        yield first, stop
        first = stop


@settings(max_examples=50)
@given(problems(4, 5, ("combined", "cooperative", "groups inside")))
def test_no_schedule_at_all_moves_fewer_bytes_than_the_optimum(problem: Problem) -> None:
    """Every cut, every multiple of a granule and every order, walked literally."""
    (layer, machine), fewest = problem, None
    shape = layer.shape
    schedules_in_all = list(islice(every(shape, machine), MANY))
    assume(len(schedules_in_all) < MANY)
    for schedule in schedules_in_all:
        assume(supported(shape, machine, schedule))
        walk = Walk(shape, machine, schedule)
        if all(used <= machine.memory(name).bytes for name, used in walk.memory().items()):
            found = total(walk.traffic())
            fewest = found if fewest is None else min(fewest, found)
    optimum = best(Space(shape, machine, Limits(pin=False, move=False)))
    assert (optimum.bytes if optimum else None) == fewest


# -- laws ------------------------------------------------------------------------------------------------------------


@given(st.one_of(cases(), sharing_cases()))
def test_nothing_moves_less_than_every_touched_element_once(case: Case) -> None:
    shape, machine = case.layer.shape, case.machine
    assert figures(shape, machine, case.schedule).dram_bytes >= compulsory(shape, machine)


@given(layers(), machines())
def test_one_tile_of_everything_is_compulsory(layer: Layer, machine: Machine) -> None:
    """Without y spread over units, whose halos are read for each."""
    shape = replace(layer.shape, n=1)
    found = best(
        Space(shape, machine, Limits(modes=("cooperative", "planes", "groups"), counts=tuple((d, 1) for d in DIMS)))
    )
    if found:
        assert found.bytes == compulsory(shape, machine)
        assert not found.schedule.order


@given(layers(), machines(), st.data())
def test_what_changes_no_transfer_changes_no_byte(layer: Layer, machine: Machine, data: st.DataObject) -> None:
    """Double buffers hold more; rows sent between units are not loaded; neither adds a byte."""
    schedule = data.draw(schedules(layer.shape, machine))
    traffic = figures(layer.shape, machine, schedule)
    buffered = figures(layer.shape, machine, replace(schedule, buffers=(2, 2, 2)))
    assert buffered.traffic == traffic.traffic
    assert all(buffered.memory[name] >= used for name, used in traffic.memory.items())
    loaded = figures(layer.shape, machine, replace(schedule, move=False))
    assert loaded.traffic["input"][0] >= traffic.traffic["input"][0]
    again = figures(layer.shape, machine, replace(schedule, keep=False))
    kept = figures(layer.shape, machine, replace(schedule, keep=True))
    assert again.dram_bytes >= kept.dram_bytes


@given(arrays(6, 5), st.data())
def test_groups_are_disjoint(layer: Layer, data: st.DataObject) -> None:
    """Group by group, a layer moves what its groups move by themselves."""
    one = replace(layer.shape, g=1, parameters=0)
    schedule = data.draw(schedules(one, TWO_BUFFER))
    all_of_them: Shape = replace(one, g=3)
    around = replace(schedule, order=("g", *schedule.order))
    alone, together = figures(one, TWO_BUFFER, schedule), figures(all_of_them, TWO_BUFFER, around)
    assert moved(together.traffic) == {role: (3 * r, 3 * w) for role, (r, w) in moved(alone.traffic).items()}


# -- worked by hand: 4 rows of 4 pixels, 3x3, pad 1; 2 channels to 2 planes; words of 2 bytes ------------------------

PAD = Window(4, 4, 3, 1, 1, 1, 1)
SMALL = Shape("array", 1, 1, 2, 2, PAD, PAD)

# Two row tiles: rows 0-1 touch 0-2, rows 2-3 touch 1-3. A row of the input is 4 x 2 x 2 = 16 B, a row of one output
# plane 8 B, one kernel 3 x 3 x 2 x 2 = 36 B (72 B for both).
HAND: list[tuple[str, tuple[int, int, int], dict[str, object], dict[str, tuple[int, int]]]] = [
    ("maps outer: kernels once for each of two row tiles, halo kept", (2, 1, 2), {"order": ("y", "k")},
     {"input": (64, 0), "weights": (144, 0), "output": (0, 64)}),
    ("the same with the halo loaded again", (2, 1, 2), {"order": ("y", "k"), "keep": False},
     {"input": (96, 0), "weights": (144, 0), "output": (0, 64)}),
    ("kernels outer: maps once for each of two kernels, all rows kept inside a pass", (2, 1, 2), {"order": ("k", "y")},
     {"input": (128, 0), "weights": (72, 0), "output": (0, 64)}),
    ("channels innermost: sums stay, maps and kernels of each channel come tile by tile, no halo", (2, 2, 1),
     {"order": ("y", "c")}, {"input": (96, 0), "weights": (144, 0), "output": (0, 64)}),
    ("channels outside rows: sums of 4 B leave once and return once", (2, 2, 1), {"order": ("c", "y")},
     {"input": (64, 0), "weights": (72, 0), "output": (0, 64), "partial_sums": (128, 128)}),
]  # fmt: skip


@pytest.mark.parametrize(("size", "rest", "bytes"), [h[1:] for h in HAND], ids=[h[0] for h in HAND])
def test_loop_orders_by_hand(
    size: tuple[int, int, int], rest: dict[str, object], bytes: dict[str, tuple[int, int]]
) -> None:
    y, k, c = size
    space = Space(SMALL, TWO_BUFFER)
    table = space.tables(space.deals[0])
    cut = next(cut for cut in table["y"].cuts if cut.steps == y)  # type: ignore[union-attr]
    whole = next(cut for cut in table["x"].cuts if cut.steps == 1)  # type: ignore[union-attr]
    schedule = Schedule("single", cut, whole, k, c, 1, **rest)  # type: ignore[arg-type]
    assert moved(figures(SMALL, TWO_BUFFER, schedule).traffic) == bytes
