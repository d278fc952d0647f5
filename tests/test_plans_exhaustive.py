"""Every plan of small random networks, executed: none moves fewer bytes than the one that the search finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice

import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dnnc.chip import Chip
from dnnc.cuts import Cuts, Meter
from dnnc.emit import emit
from dnnc.grouping import Grouping, grouped, handable, spillable
from dnnc.orders import mask_of
from dnnc.pipeline import Compilation, compile
from dnnc.realize import Realized, realize
from dnnc.segments import Alone, Segment, Strips
from dnnc.steps import Steps, steps_of
from dnnc.together import alone_of
from dnnc_runtime import Counters, machine, walk
from dnnc_runtime.errors import CapacityFault
from graphs import networks

pytestmark = pytest.mark.slow

MOST = 2500
"""Plans of a network at most: networks that have more are passed over."""

RUN = 40
"""Plans of a network that are executed: those that move least."""


def plans(steps: Steps, chip: Chip, done: int, held: Mapping[int, int]) -> Iterator[tuple[Segment, ...]]:
    """All plans from a moment on, a mask of layers that are done, given how many rows of every map are on chip."""
    left = [position for position in range(len(steps.at)) if not done >> position & 1]
    if not left:
        yield ()
        return
    for positions in _ready(steps, done, left):
        stop = done | mask_of(positions)
        if len(positions) == 1:
            for rest in plans(steps, chip, stop, {}):
                yield Alone(*positions), *rest
        plain = grouped(steps, chip, positions)
        for made in _ways(steps, chip, plain, held) if plain else ():
            yield from _by_strips(steps, chip, stop, held, made)


def _ways(steps: Steps, chip: Chip, plain: Grouping, held: Mapping[int, int]) -> Iterator[Grouping]:
    """A group, and the same with one of its maps spilled, or handed over tile by tile."""
    there = [m for m, each in held.items() if each]
    for spilled, handed in ((), ()), *(((m,), ()) for m in spillable(plain)), *(((), (m,)) for m in handable(plain)):
        made = grouped(steps, chip, plain.positions, (), spilled, handed, there)
        assert made is not None
        yield made


def _by_strips(
    steps: Steps, chip: Chip, stop: int, held: Mapping[int, int], made: Grouping
) -> Iterator[tuple[Segment, ...]]:
    """All plans that begin with a group."""
    spilled = tuple(made.maps[i] for i in made.group.spilled)
    wanted = [m for m in made.later if steps.wanted(m, stop) and not steps.maps[m].why and m not in spilled]
    blocks = {m: -(-steps.maps[m].lines // chip.units) for m in wanted}
    entering = {m: each for m, each in held.items() if each}
    stays = {m: each for m, each in entering.items() if steps.wanted(m, stop)}
    for bounds in Cuts(made.group, Meter()).strips:
        for leaving in _each(blocks | stays):
            lines = tuple(sorted(entering.items())), tuple(sorted(leaving.items()))
            segment = Strips(made.positions, bounds, *lines, (), spilled, made.handed)
            for rest in plans(steps, chip, stop, leaving):
                yield segment, *rest


def _ready(steps: Steps, done: int, left: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every set of layers that may run next, in the model's order: more than the search looks at."""
    for size in range(1, len(left) + 1):
        for positions in combinations(left, size):
            now = done
            for position in positions:
                if steps.needs[position] & ~now:
                    break
                now |= 1 << position
            else:
                yield positions


def _each(most: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """Every choice of as many rows of every map, or fewer; none of a map is not listed."""
    if not most:
        yield {}
        return
    (m, each), *others = most.items()
    for rest in _each(dict(others)):
        yield rest
        for rows in range(1, each + 1):
            yield {m: rows, **rest}


def counted(made: Compilation, found: Realized) -> int:
    """The bytes that a plan moves when its program is walked."""
    program = emit(made.lowered, made.plan.schedules, made.machine, found)
    counters = Counters(program)
    walk(program, [counters])
    return counters.total().payload


def predicted(made: Compilation, found: Realized) -> int:
    """The bytes that a plan moves."""
    shares = found.figures()
    alone = alone_of(made.plan)
    return sum(shares[i].dram_bytes if i in shares else own for i, (own, _) in enumerate(alone))


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(networks(most=4, largest=4), st.sampled_from([256, 512, 1024]), st.sampled_from([256, 1024]))
def test_no_plan_moves_fewer_bytes(model: onnx.ModelProto, maps: int, weights: int) -> None:
    target = machine.load("two-buffer").with_memory("maps", maps).with_memory("weights", weights)
    try:
        made = compile(model, target)
    except CapacityFault:
        assume(False)
        raise
    steps, chip = steps_of(made.lowered), Chip(target)
    every = list(islice(plans(steps, chip, 0, {}), MOST + 1))
    assume(len(every) <= MOST)
    tried = (realize(steps, chip, segments, alone_of(made.plan)) for segments in every)
    moved = sorted(
        ((predicted(made, f), i, f) for i, f in enumerate(tried) if isinstance(f, Realized)), key=lambda t: t[:2]
    )
    for expected, _, found in moved[:RUN]:
        assert counted(made, found) == expected >= made.plan.totals.dram_bytes
    # The plans listed have strips of whole rows alone.
    assert made.plan.totals.dram_bytes <= moved[0][0]
