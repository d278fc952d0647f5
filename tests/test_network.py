"""The search for a whole network's plan: it finds what plain enumeration finds, and the laws of such plans hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import combinations, product
from operator import or_
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnnc import cuts as in_strips
from dnnc.axis import touched_by_any
from dnnc.chip import Chip
from dnnc.cuts import Cuts, Meter
from dnnc.demand import Demand
from dnnc.grouping import Grouping, grouped, handable, spillable
from dnnc.groups import Groups
from dnnc.layer import Layer, Shape
from dnnc.network import Found, Search
from dnnc.options import Options
from dnnc.peaks import Peaks
from dnnc.segments import Scope
from dnnc.steps import FeatureMap, Geometry, Read, Step, Steps
from dnnc.strip_run import run
from dnnc.strips import kept, walk
from dnnc.weights import weights_bytes
from dnnc_runtime import machine
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Kernel, Window

pytestmark = pytest.mark.slow

SCOPES: tuple[Scope, ...] = ("layerwise", "resident", "fused")
WORD = 2


@dataclass
class Net:
    """A network in the making: of maps with as many rows as columns, and of steps."""

    maps: list[FeatureMap] = field(default_factory=list[FeatureMap])
    steps: list[Step] = field(default_factory=list[Step])

    def given(self, rows: int, channels: int) -> int:
        return self._map(rows, channels, None)

    def conv(self, reads: Sequence[int], channels: int, kernel: int, stride: int) -> int:
        """A convolution over one or several maps side by side."""
        size = self.maps[reads[0]].geometry.rows
        window = Window(size, (size - 1) // stride + 1, kernel, stride, 1, kernel // 2)
        shape = Shape("array", 1, 1, channels, sum(self.maps[m].channels for m in reads), window, window)
        return self._step(shape, Kernel("conv", window, window), Read("input", tuple(reads), window, window, False))

    def add(self, a: int, b: int) -> int:
        size = self.maps[a].geometry.rows
        window = Window(size, size)
        shape = Shape("vector", 1, 1, self.maps[a].channels, 1, window, window, second=(True, True, True, True))
        reads = (Read("input", (a,), window, window, True), Read("second", (b,), window, window, True))
        return self._step(shape, Kernel("add", window, window), *reads)

    def _step(self, shape: Shape, kernel: Kernel, *reads: Read) -> int:
        out = self._map(shape.y.out, shape.k, len(self.steps))
        layer = Layer(f"layer{len(self.steps)}", "", (), shape, kernel, ())
        self.steps.append(Step(len(self.steps), layer, reads, out))
        return out

    def _map(self, rows: int, channels: int, source: int | None) -> int:
        name = f"map{len(self.maps)}"
        self.maps.append(FeatureMap(name, name, 0, channels, Geometry(1, rows, rows, channels), source))
        return len(self.maps) - 1

    def done(self) -> Steps:
        """All of it: what nobody reads is an output."""
        read = {m for step in self.steps for r in step.reads for m in r.maps}
        maps = (m if i in read else replace(m, must_store="it is an output") for i, m in enumerate(self.maps))
        reads = tuple(tuple(m for r in step.reads for m in r.maps) for step in self.steps)
        return Steps(
            tuple(self.steps), tuple(maps), tuple((i,) for i in range(len(self.steps))), reads, needs_of(self.steps), ()
        )


def needs_of(steps: Sequence[Step]) -> tuple[int, ...]:
    """For every step those that compute what it reads."""
    source = {step.map: 1 << step.position for step in steps}
    return tuple(reduce(or_, (source.get(m, 0) for r in step.reads for m in r.maps), 0) for step in steps)


class Case(NamedTuple):
    """A network, what its layers move by themselves, and a machine."""

    steps: Steps
    alone: tuple[tuple[int, int], ...]
    machine: Machine

    def found(self, scope: Scope, limit: int = 4_000_000) -> Found:
        return Search(self.steps, Chip(self.machine), self.alone, scope, limit).find()


@st.composite
def cases(draw: st.DrawFn, most: int, largest: int, targets: Sequence[str] = ("two-buffer",)) -> Case:
    """Layers that read one, two or three of the maps before them: chains, diamonds, residual and dense blocks."""
    net = Net()
    alive = [net.given(draw(st.integers(2, largest)), draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(2, most))):
        x = alive[draw(st.integers(max(0, len(alive) - 2), len(alive) - 1))]
        here = net.maps[x].geometry.rows
        alike = [m for m in alive if m != x and net.maps[m].geometry.rows == here]
        equal = [m for m in alike if net.maps[m].channels == net.maps[x].channels]
        what = draw(st.sampled_from(["conv", "conv", "add", "concat"]))
        if what == "add" and equal:
            alive.append(net.add(x, draw(st.sampled_from(equal))))
        else:
            more = draw(st.lists(st.sampled_from(alike), max_size=2, unique=True)) if what == "concat" and alike else []
            stride = draw(st.sampled_from([1, 1, 2])) if here > 2 else 1
            alive.append(net.conv([x, *more], draw(st.integers(1, 4)), draw(st.sampled_from([1, 3])), stride))
    steps = net.done()
    name = draw(st.sampled_from(targets))
    target = machine.load(name)
    units = target.levels[0].count
    largest_map = max(m.lines * m.words for m in steps.maps) * WORD
    target = target.with_memory("maps", max(64, largest_map * draw(st.integers(1, 12)) // (4 * units) // 2 * 2))
    target = target.with_memory("weights", draw(st.sampled_from([64, 128, 256, 1024])))
    again = draw(st.integers(0, 2))
    alone = tuple((by_itself(steps, p, again), draw(st.integers(0, 64))) for p in range(len(steps.steps)))
    return Case(steps, alone, target)


def by_itself(steps: Steps, position: int, again: int) -> int:
    """Bytes of a layer from DRAM to DRAM: every tensor once, and its kernels once more for every ``again``."""
    step = steps.steps[position]
    kernels = weights_bytes(step.layer.shape, machine.load("two-buffer"))
    out = steps.maps[step.map].lines * steps.maps[step.map].words * WORD
    total = out + kernels * (1 + again)
    for read in step.reads:
        for m in read.maps:
            columns = touched_by_any((read.columns,)).bit_count()
            total += steps.touched(position, m).bit_count() * columns * steps.maps[m].channels * WORD
    return total


# -- plain enumeration ------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """A map between two segments: rows on chip, and whether all of it is in DRAM, too."""

    each: int
    stored: bool


State = tuple[tuple[int, Rows], ...]


@dataclass(frozen=True)
class Plain:
    """All plans, taken literally: every order, every group, every cut, every number of rows that stays of every map;
    one unit. What is done is a mask of layers; ``parts``: maps of which a part may stay between two segments."""

    case: Case
    scope: Scope
    parts: int | None = None

    @property
    def steps(self) -> Steps:
        return self.case.steps

    def best(self) -> int:
        known: dict[tuple[int, State], int] = {}

        def least(done: int, state: State) -> int:
            if done == (1 << len(self.steps.steps)) - 1:
                return 0
            if (done, state) not in known:
                onward = (way for way in self._next(done, dict(state)) if self._may(way[2]))
                known[done, state] = min(cost + least(after, kept) for after, cost, kept in onward)
            return known[done, state]

        return least(0, ())

    def _next(self, done: int, state: dict[int, Rows]) -> Iterator[tuple[int, int, State]]:
        for layers in self._ready(done):
            if len(layers) == 1:
                yield self._alone(done, layers[0], state)
            for grouping in () if self.scope == "resident" and len(layers) > 1 else self._groupings(layers, state):
                after = done | sum(1 << layer for layer in layers)
                for cut in Cuts(grouping.group, Meter()).strips:
                    for cost, left in self._strips(grouping, after, cut, state):
                        yield after, cost, left

    def _may(self, state: State) -> bool:
        """Whether no more maps stay in part than are allowed to."""
        in_part = sum(0 < rows.each < self.steps.maps[m].lines for m, rows in state)
        return self.parts is None or in_part <= self.parts

    def _groupings(self, layers: tuple[int, ...], state: dict[int, Rows]) -> Iterator[Grouping]:
        """As it is, with one map that does not wait for the next strip, or with one that goes tile by tile."""
        chip = Chip(self.case.machine)
        plain = grouped(self.steps, chip, layers)
        if plain is None:
            return
        there = [m for m, rows in state.items() if rows.each]
        others = (*(((m,), ()) for m in spillable(plain)), *(((), (m,)) for m in handable(plain)))
        for spilled, handed in (((), ()), *others):
            made = grouped(self.steps, chip, layers, (), spilled, handed, there)
            assert made is not None
            yield made

    def _ready(self, done: int) -> Iterator[tuple[int, ...]]:
        """What may run together next: consecutive layers after all before them, or some of one stage."""
        count = len(self.steps.steps)
        left = [layer for layer in range(count) if not done >> layer & 1]
        for size in range(1, len(left) + 1):
            for layers in combinations(left, size):
                now, ready = done, True
                for layer in layers:
                    ready &= not self.steps.needs[layer] & ~now
                    now |= 1 << layer
                in_order = layers == tuple(range(done.bit_count(), done.bit_count() + size))
                if ready and (in_order or len({self._stage[layer] for layer in layers}) == 1):
                    yield layers

    @cached_property
    def _stage(self) -> list[int]:
        """By layer the number of layers in the stages before its own."""
        count = len(self.steps.steps)
        before: list[set[int]] = []
        for layer in range(count):
            direct = [other for other in range(layer) if self.steps.needs[layer] >> other & 1]
            before.append({*direct, *(far for other in direct for far in before[other])})
        ends = [p for p in range(count) if all(one in before[two] for one in range(p) for two in range(p, count))]
        return [max(end for end in ends if end <= layer) for layer in range(count)]

    def _bytes(self, m: int, lines: int) -> int:
        return lines.bit_count() * self.steps.maps[m].words * WORD

    def _lines(self, m: int, each: int) -> int:
        return kept(self.steps.maps[m].lines, 1, each)

    def _alone(self, done: int, position: int, state: dict[int, Rows]) -> tuple[int, int, State]:
        cost, room = self.case.alone[position]
        behind = done | 1 << position
        after: dict[int, Rows] = {}
        for m, (each, stored) in state.items():
            lines = self._lines(m, each)
            reads = m in self.steps.reads[position]
            cost += self._bytes(m, lines & self.steps.wanted(m, done)) if reads and not stored else 0
            after[m] = Rows(each, stored or reads)
            room += self._bytes(m, lines & self.steps.wanted(m, behind))
        if room > Chip(self.case.machine).bytes:
            for m, (each, stored) in after.items():
                cost += 0 if stored else self._bytes(m, self._lines(m, each) & self.steps.wanted(m, behind))
            after = {m: Rows(0, True) for m in after}
        after[self.steps.steps[position].map] = Rows(0, True)
        return behind, cost, self._state(after, behind)

    def _state(self, after: Mapping[int, Rows], done: int) -> State:
        return tuple(sorted((m, rows) for m, rows in after.items() if self.steps.wanted(m, done)))

    def _strips(
        self, grouping: Grouping, after: int, cut: tuple[int, ...], state: dict[int, Rows]
    ) -> Iterator[tuple[int, State]]:
        starts = [range(rows.each + 1) for rows in state.values()]
        for there in product(*starts):
            entering = dict(zip(state, there, strict=True))
            ends = [m for m in {*state, *grouping.maps} if self.steps.wanted(m, after)]
            for left in product(*(self._ends(grouping, after, m, state, entering) for m in ends)):
                cost = self._cost(grouping, after, cut, state, entering, dict(zip(ends, left, strict=True)))
                if cost is not None:
                    yield cost

    def _ends(
        self, grouping: Grouping, after: int, m: int, state: dict[int, Rows], entering: dict[int, int]
    ) -> Sequence[int]:
        """How many rows of a map may be on chip when the group ends."""
        if m not in grouping.maps:
            return [entering[m]]
        lines = self.steps.maps[m].lines
        if grouping.local[m] in grouping.group.spilled:
            return [0]
        if m in grouping.later:
            return range(lines + 1)
        if m in state and state[m].each:
            return range(entering[m] + 1)
        wide = touched_by_any(grouping.columns[m]).bit_count() == self.steps.maps[m].geometry.columns
        read = 0
        for position in grouping.positions:
            read |= self.steps.touched(position, m) if m in self.steps.reads[position] else 0
        return range(lines + 1) if wide and not self.steps.wanted(m, after) & ~read else [0]

    def _cost(
        self, grouping: Grouping, done: int, cut: tuple[int, ...], state: dict[int, Rows], entering: dict[int, int],
        leaving: dict[int, int],
    ) -> tuple[int, State] | None:  # fmt: skip
        """Bytes moved with so many rows on chip; None if they do not fit."""
        local, way = grouping.local, walk(grouping.group, cut)
        wanted = {m: self.steps.wanted(m, done) for m in {*state, *grouping.maps}}
        before = {
            local[m]: self._lines(m, each) & (way.needed.get(local[m], 0) | wanted[m])
            for m, each in entering.items() if m in local
        }  # fmt: skip
        behind = {local[m]: self._lines(m, each) & wanted[m] for m, each in leaving.items() if m in local}
        others = sum(self._bytes(m, self._lines(m, each) & wanted[m]) for m, each in entering.items() if m not in local)
        found = run(way, before, behind)
        if found.peak + others + grouping.holding.maps > Chip(self.case.machine).bytes:
            return None
        cost = sum(lines.bit_count() * grouping.line_bytes(grouping.maps[i], WORD) for i, lines in found.loaded.items())
        for i, lines in found.loaded.items():
            spilled = i in grouping.group.spilled and not self.steps.maps[grouping.maps[i]].must_store
            cost += self._bytes(grouping.maps[i], lines) if spilled else 0
        for grain, pinned, times in zip(grouping.grains, grouping.holding.pinned, way.sections, strict=True):
            cost += grain.once + grain.whole + (times - 1) * (grain.whole - pinned * grain.each)
        after: dict[int, Rows] = {m: Rows(0, True) for m in grouping.entering}
        for m, (each, stored) in state.items():
            gone = self._lines(m, each) & ~self._lines(m, entering[m]) & way.needed.get(local.get(m, -1), 0)
            gone |= self._lines(m, each) & ~self._lines(m, leaving.get(m, 0)) & wanted[m]
            cost += 0 if stored else self._bytes(m, gone)
            after[m] = Rows(leaving.get(m, 0), stored)
        for m in grouping.entering:
            after[m] = Rows(leaving.get(m, 0), after[m].stored)
        for m in grouping.later:
            stored = bool(self.steps.maps[m].must_store)
            lines = self._lines(m, self.steps.maps[m].lines)
            cost += self._bytes(m, lines if stored else wanted[m] & ~self._lines(m, leaving.get(m, 0)))
            after[m] = Rows(leaving.get(m, 0), stored)
        return cost, self._state(after, done)


# -- the laws ---------------------------------------------------------------------------------------------------------


def few(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


@few(15)
@given(cases(4, 3))
@pytest.mark.parametrize("scope", ["resident", "fused"])
def test_it_finds_what_plain_enumeration_finds(scope: Scope, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Plain enumeration knows strips of whole rows alone.
        patch.setattr(in_strips, "BLOCKS", ())
        found = case.found(scope)
    # Maps are dropped one after another: a plan in which two stay in part may move less, one in which one does may not.
    assert Plain(case, scope).best() <= found.bytes == found.bound <= Plain(case, scope, parts=1).best()
    assert case.found(scope).bytes <= found.bytes


@few(40)
@given(cases(8, 6, ("two-buffer", "snowflake")))
def test_more_freedom_never_costs_bytes(case: Case) -> None:
    found = [case.found(scope) for scope in SCOPES]
    assert found[0].bytes == sum(moved for moved, _ in case.alone)
    assert found[2].bytes <= found[1].bytes <= found[0].bytes
    assert all(plan.bound == plan.bytes for plan in found)


@few(40)
@given(cases(8, 6, ("two-buffer", "snowflake")), st.integers(1, 100))
def test_more_memory_never_costs_bytes(case: Case, percent: int) -> None:
    room = Chip(case.machine).bytes
    larger = case._replace(machine=case.machine.with_memory("maps", room + room * percent // 100 // 2 * 2))
    assert larger.found("fused").bytes <= case.found("fused").bytes


@few(40)
@given(cases(8, 6, ("two-buffer", "snowflake")), st.integers(0, 400))
def test_a_search_that_stops_has_a_plan_and_a_bound(case: Case, limit: int) -> None:
    stopped, best = case.found("fused", limit=limit), case.found("fused")
    assert stopped.bound <= best.bytes <= stopped.bytes
    done = 0
    for position in (position for segment in stopped.segments for position in segment.positions):
        assert not case.steps.needs[position] & ~done
        done |= 1 << position
    assert done == (1 << len(case.steps.steps)) - 1


@few(40)
@given(cases(8, 6, ("two-buffer", "snowflake")), st.randoms(use_true_random=False))
def test_numbers_of_maps_mean_nothing(case: Case, random: Random) -> None:
    numbers = list(range(len(case.steps.maps)))
    random.shuffle(numbers)
    other = case._replace(steps=renumbered(case.steps, numbers))
    assert other.found("fused").bytes == case.found("fused").bytes


def renumbered(steps: Steps, numbers: Sequence[int]) -> Steps:
    """The same with other numbers of maps."""

    def step(old: Step) -> Step:
        reads = tuple(replace(read, maps=tuple(numbers[m] for m in read.maps)) for read in old.reads)
        return replace(old, reads=reads, map=numbers[old.map])

    maps = sorted(range(len(numbers)), key=numbers.__getitem__)
    reads = tuple(tuple(numbers[m] for m in read) for read in steps.reads)
    return Steps(tuple(map(step, steps.steps)), tuple(steps.maps[m] for m in maps), steps.at, reads, steps.needs, ())


@given(cases(most=5, largest=12, targets=("two-buffer", "snowflake")))
def test_a_cut_that_is_passed_over_moves_and_takes_no_less_than_one_that_is_not(case: Case) -> None:
    groups = Groups(Demand(case.steps, Chip(case.machine)), case.alone, "fused", {}, None, {}, Meter())
    for moment in range(len(groups.demand.orders.moments) - 1):
        for member in groups.starting(moment):
            for known in (member.known, *(other.known for other in groups.tighter(member))):
                check_cuts(known)
                assert known.floor >= member.known.floor


@pytest.mark.parametrize("maps", range(192, 1025, 64))
def test_a_first_strip_that_is_too_short_takes_more_kernels(maps: int) -> None:
    # Three convolutions of 3x3 over 8 rows of 2 channels, kernels of 72 bytes, each loaded for every section. Strips
    # that end at rows 1, 5 and 8 end at rows 2, 6 and 8 of the layer before and at 3, 7 and 8 of the first: 9 sections.
    # Those that end at rows 3, 6 and 8 end at 4, 7 and 8, and at 5 and 8: 8 sections. The output is 256 bytes.
    net = Net()
    x = net.given(8, 2)
    for _ in range(3):
        x = net.conv([x], 2, 3, 1)
    target = machine.load("two-buffer").with_memory("weights", 64).with_memory("maps", maps)
    alone = tuple((1 << 20, 0) for _ in range(3))
    groups = Groups(Demand(net.done(), Chip(target)), alone, "fused", {}, None, {}, Meter())
    for member in groups.starting(0):
        check_cuts(member.known)
        if len(member.grouping.positions) == 3:
            moved = {rows: member.known.kernels(level) for level, rows in enumerate(member.known.cuts.strips)}
            assert (moved[1, 5, 8], moved[3, 6, 8]) == (256 + 9 * 72, 256 + 8 * 72)


def check_cuts(known: Options) -> None:
    """The cuts are those that none beats in bytes and memory, the one of fewest bytes first."""
    cuts, room, far = known.cuts, known.block.room, 1 << 40
    figures = [(known.kernels(level), cuts.bare(level, room)) for level in known.levels()]
    order = [moved for moved, _ in figures]
    assert order == sorted(order)
    if not known.in_blocks:
        for level in range(len(cuts.strips)):
            peak = cuts.bare(level, room)
            assert peak is None or any(
                moved <= known.kernels(level) and takes is not None and takes <= peak for moved, takes in figures
            )
        assert known.least_of_all(far) == min(map(known.least, known.levels()), default=far)
    for below in order:
        assert [known.kernels(level) for level in known.levels(below)] == [moved for moved in order if moved < below]


@few(60)
@given(cases(6, 7), st.data())
def test_the_closed_form_is_what_the_sections_take(case: Case, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(case.steps.steps) - 1))
    stop = data.draw(st.integers(first + 1, len(case.steps.steps)))
    grouping = grouped(case.steps, Chip(case.machine), tuple(range(first, stop)))
    if grouping is None:
        return
    if spills := [*spillable(grouping)]:
        spilled = data.draw(st.lists(st.sampled_from(spills), unique=True))
        grouping = grouped(case.steps, Chip(case.machine), grouping.positions, spilled=spilled)
        assert grouping is not None
    ways = Cuts(grouping.group, Meter())
    most = len(ways.strips) if grouping.group.spilled else len(ways.levels)
    way = ways.walk(data.draw(st.integers(0, most - 1)))

    def some(maps: Sequence[int]) -> dict[int, int]:
        chosen = data.draw(st.lists(st.sampled_from(maps), unique=True)) if maps else []
        lines = {grouping.local[m]: case.steps.maps[m].lines for m in chosen}
        return {i: kept(count, 1, data.draw(st.integers(0, count))) for i, count in lines.items()}

    entering, leaving = some(grouping.entering), some((*grouping.entering, *grouping.later))
    plain, closed = run(way, entering, leaving), Peaks(way).run(entering, leaving)
    assert (closed.peak, closed.loaded) == (plain.peak, plain.loaded)


@pytest.mark.parametrize("name", ["two-buffer", "snowflake"])
def test_repeated_blocks_are_solved_once(name: str) -> None:
    found: dict[int, Found] = {}
    kinds: dict[int, int] = {}
    for blocks in (12, 24):
        case = residual(blocks, name)
        search = Search(case.steps, Chip(case.machine), case.alone)
        found[blocks] = search.find()
        kinds[blocks] = search.kinds
        assert found[blocks].bound == found[blocks].bytes
    assert kinds[24] <= kinds[12] + 1
    assert found[24].labels <= 2.5 * found[12].labels
    assert found[24].work <= 3 * found[12].work


def residual(blocks: int, name: str) -> Case:
    """Blocks of two convolutions and a sum."""
    net = Net()
    x = net.given(8, 4)
    for _ in range(blocks):
        x = net.add(net.conv([net.conv([x], 4, 3, 1)], 4, 3, 1), x)
    steps = net.done()
    target = machine.load(name)
    target = target.with_memory("maps", 700 // target.levels[0].count // 2 * 2).with_memory("weights", 512)
    return Case(steps, tuple((by_itself(steps, p, 0), 64) for p in range(len(steps.steps))), target)
