"""The whole network: which layers run together, by which strips, and what stays on chip; minimal, and proven so.

A plan executes the layers in *segments*, in an order that they may have (``orders``). A segment is one layer that runs
under its own schedule, from DRAM to DRAM or with operands on chip (``nests``), or a group of layers that runs by strips
(``ways`` says in which ways).
Between segments there is a moment, which layers are done, and a state: how many rows of every map that is still wanted
are on chip. The cheapest plan is a shortest path through these: labels are extended segment by segment. A label is
dropped only

- if another can take its place: by writing rows, dropping them, or loading again what it lacks, at no more bytes, or
- if no plan with it is cheaper than one that is known: ``Search.least`` is what every plan moves from there on.

A first plan is found by going into few labels. Where the limit of work is reached before it is proven or bettered, the
label that was not gone into and reaches least bounds what it may miss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dnnc.chip import Chip
from dnnc.cuts import Cuts, Meter
from dnnc.demand import Demand, Held, State
from dnnc.groups import LONGEST, Groups, Member
from dnnc.nests import Nests
from dnnc.options import Block, Options
from dnnc.orders import Orders
from dnnc.price import Price
from dnnc.segments import Scope, Segment, Strips
from dnnc.singles import Single, Singles
from dnnc.steps import Steps
from dnnc.strips import Group
from dnnc.ways import Before, Passing, Way, Ways
from dnnc.weights import constant_bytes

FEW = (2, 8)
"""Labels gone into in every moment for a plan that is good most often, the first if there is little time."""


class _ByStrips(NamedTuple):
    """A group and a way to run it: a segment of which the rest is worked out if it is part of a plan."""

    member: Member
    way: Way

    def strips(self, state: State) -> Strips:
        """The segment, from what is there before it."""
        grouping, way, maps = self.member.grouping, self.way, self.member.grouping.maps
        others = (held.map for held in state if held.map not in grouping.local)
        passing = tuple((m, each) for m, each in zip(others, way.passing, strict=True) if each)
        entering = sorted((*((maps[i], each) for i, each in way.entering), *passing))
        leaving = sorted((*((maps[i], each) for i, each in way.leaving), *passing))
        rows, columns = self.member.known.cuts.cut(way.level)
        spilled = tuple(sorted(maps[i] for i in grouping.group.spilled))
        held = tuple(entering), tuple(leaving)
        return Strips(grouping.positions, rows, *held, columns, spilled, grouping.handed)


@dataclass(frozen=True, slots=True)
class Label:
    """The cheapest way found into a state; ``reach``: bytes that no plan with it goes below."""

    bytes: int
    sections: int
    state: State
    reach: int
    segment: Segment | _ByStrips | None
    before: Label | None


@dataclass(frozen=True, slots=True)
class Found:
    """The segments of the cheapest plan, its DRAM bytes, and bytes that no plan of the space goes below."""

    segments: tuple[Segment, ...]
    bytes: int
    bound: int
    labels: int
    work: int


@dataclass
class Search:
    """The search for one network.

    Attributes:
        alone: for every position the bytes that its layer moves by itself, and bytes per unit of feature maps that it
            holds meanwhile; (0, 0) for the host's.
        limit: work that may be done, in units of the meter.
        known: a plan of this space, found before.
        nests: the schedules of layers with operands on chip, or in less memory; None: no layer runs so.
        tight: bytes of memory that some segments, by their layers, have to do without: not everything found a place.
        price: of the time that a plan takes; None: it is the bytes that are minimised, else their sum.
        cuts: the cuts of groups, as far as they are known from other searches: only what is new is work.
    """

    steps: Steps
    chip: Chip
    alone: Sequence[tuple[int, int]]
    scope: Scope = "fused"
    limit: int = 4_000_000
    known: Found | None = None
    nests: Nests | None = None
    tight: Mapping[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    price: Price | None = None
    cuts: dict[Group, Cuts] = field(default_factory=dict[Group, Cuts])
    meter: Meter = field(default_factory=Meter)
    labels: int = 0
    proven: int = 0
    _blocks: dict[Block, Options] = field(default_factory=dict[Block, Options])
    _absent: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict[tuple[int, tuple[int, ...]], int])
    _known: dict[tuple[Options, Before], Ways] = field(default_factory=dict[tuple[Options, Before], Ways])

    @cached_property
    def demand(self) -> Demand:
        """What is wanted of the maps."""
        return Demand(self.steps, self.chip)

    @property
    def orders(self) -> Orders:
        """The orders in which layers may be executed; moments have the numbers that they have there."""
        return self.demand.orders

    @cached_property
    def _singles(self) -> Singles:
        nests = None if self.scope == "layerwise" else self.nests
        return Singles(self.demand, self.alone, nests, self.tight, self.price, self.meter)

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self.demand, self.alone, self.scope, self.tight, self.price, self.cuts, self.meter, self._blocks)

    @property
    def kinds(self) -> int:
        """How many different groups it has looked at: equal ones count once."""
        return len(self._blocks)

    def again(self, tight: Mapping[tuple[int, ...], int], limit: int) -> Search:
        """Another search in which some segments have less memory, with what is known of groups."""
        other = Search(
            self.steps, self.chip, self.alone, self.scope, limit, None, self.nests, tight, self.price, self.cuts
        )
        other._blocks, other._known = self._blocks, self._known
        return other

    def find(self) -> Found:
        """The cheapest plan.

        A first plan comes from going into little. Then plans are looked for below some bytes, and if there is none,
        below some more, as far as the first: so few labels have to be gone into that could not be part of the cheapest
        plan. If that takes long, a plan is looked for by going into more. Where time has a price, nothing is proven.
        """
        for cuts in self.cuts.values():
            cuts.meter = self.meter
        self.proven = self._first.reach
        self._dive(1, 1)
        if self.price is None:
            self._deepen(self.limit // 4)
        for few in FEW:
            if self.known is None or self.proven < self.known.bytes:
                self._dive(few, None)
        if self.price is None:
            self._deepen(self.limit)
        assert self.known is not None
        bound = min(self.proven, self.known.bytes)
        return replace(self.known, bound=bound, labels=self.labels, work=self.meter.work)

    def _deepen(self, limit: int) -> None:
        """Looks for plans below more and more bytes, until there is one."""
        least = self._first.reach
        while self.meter.work < limit and (self.known is None or self.proven < self.known.bytes):
            below = least + (self.proven - least) * 3 // 2 + least // 256 + 1
            if self.known is not None:
                below = min(below, self.known.bytes)
            self.proven = max(self.proven, self._pass(below, limit))

    def _pass(self, below: int, limit: int) -> int:
        """Looks for the cheapest plan of fewer bytes; returns what no plan goes below, as far as it has looked."""
        fronts = self._fronts()
        lost = below
        for moment, front in enumerate(fronts[:-1]):
            for label in self._undominated(moment, list(front.values())):
                self.labels += 1
                if self.meter.work >= limit:
                    lost = min(lost, label.reach)
                    continue
                for stop, made in self._extend(moment, label, below):
                    _keep(fronts[stop], made)
            front.clear()
        return min(lost, self._take(fronts[-1], below))

    def _dive(self, few: int, cuts: int | None) -> None:
        """Looks for a plan without much work: with few labels in every moment, and nothing that looks bad at once.

        Args:
            few: labels in every moment.
            cuts: of a group with which rows are dropped; all, if None.
        """
        fronts = self._fronts()
        slack = self._first.reach // 8 + 1
        below = self.known.bytes if self.known else None
        for moment, front in enumerate(fronts[:-1]):
            labels = self._undominated(moment, list(front.values()))
            for label in sorted(labels, key=lambda label: (label.reach, label.sections))[:few]:
                self.labels += 1
                # There is always a way on: what looks bad here may be made good later.
                for position, stop in self.orders.next(moment):
                    _keep(fronts[stop], self._plain(moment, position, stop, label))
                if self.meter.work < self.limit:
                    close = label.reach + slack if below is None else min(label.reach + slack, below)
                    for stop, made in self._extend(moment, label, close, cuts):
                        _keep(fronts[stop], made)
            front.clear()
        self._take(fronts[-1], below)

    def _take(self, front: dict[State, Label], below: int | None) -> int:
        """Remembers the cheapest plan, if it is below what it has to be. Returns its bytes, or else that."""
        best = min(front.values(), key=lambda label: (label.bytes, label.sections), default=None)
        if best is None or (below is not None and best.bytes >= below):
            assert below is not None
            return below
        self.known = Found(_segments(best), best.bytes, 0, 0, 0)
        return best.bytes

    def _fronts(self) -> list[dict[State, Label]]:
        fronts: list[dict[State, Label]] = [{} for _ in self.orders.moments]
        fronts[0][self._first.state] = self._first
        return fronts

    @cached_property
    def _first(self) -> Label:
        """Nothing done: all that layers read and none computes is in DRAM."""
        return Label(0, 0, (), self.demand.missing((), 0) + self.least[0], None, None)

    # -- what every plan moves --------------------------------------------------------------------------------------

    @cached_property
    def least(self) -> list[int]:
        """For every moment bytes that all plans move from there on, besides what is missing there (``Demand.missing``).

        The shortest path from moment to moment, over the least that a segment moves in whatever state: kernels,
        what has to be written, and of the rest what there is no room for, which is written, and read at least once.
        """
        ends = len(self.orders.moments) - 1
        out = [0] * (ends + 1)
        for moment in reversed(range(ends)):
            steps = [
                self._singles.least(position, moment, stop) + out[stop] for position, stop in self.orders.next(moment)
            ]
            if self.meter.work > self.limit:
                steps.append(self._least_kernels(moment, out))
            else:
                steps.append(self._least_group(moment, out, min(steps)))
            out[moment] = min(steps)
        return out

    def _least_group(self, moment: int, least: Sequence[int], below: int) -> int:
        """The same of the groups that start at a moment, where it is less than that; else that.

        Those that may move the least are looked at first, so that most need not be.
        """
        found = [(member.known.floor + least[member.stop], i) for i, member in enumerate(self._groups.starting(moment))]
        for floor, i in sorted(found):
            if floor >= below:
                break
            member = self._groups.starting(moment)[i]
            behind = least[member.stop]
            below = behind + member.known.least_of_all(below - behind)
            for tighter in self._groups.tighter(member) if floor < below else ():
                below = behind + tighter.known.least_of_all(below - behind)
        return below

    def _least_kernels(self, moment: int, least: Sequence[int]) -> int:
        """The same by what is known without any work: kernels, parameters, and what has to be in DRAM in any case."""
        groups = self.orders.groups(moment, LONGEST)
        return min(self._moved(positions) + least[stop] for positions, stop in groups)

    def _moved(self, positions: Sequence[int]) -> int:
        """What every plan moves of some layers: of kernels and parameters that they share once."""
        constants: dict[int, int] = {}
        for position in positions:
            constants |= self._constants[position]
        return sum(constants.values()) + sum(self._demanded[position] for position in positions)

    @cached_property
    def _constants(self) -> tuple[dict[int, int], ...]:
        """For every position the bytes of its kernels and parameters, the same ones under the same number."""
        seen: dict[object, int] = {}
        return tuple(
            {
                seen.setdefault(step.constants, len(seen)): constant_bytes(step.layer.shape, self.chip.machine)
                for step in (self.steps.steps[number] for number in numbers)
            }
            for numbers in self.steps.at
        )

    @cached_property
    def _demanded(self) -> tuple[int, ...]:
        """For every position the bytes of what it computes that has to be in DRAM in any case."""
        return tuple(sum(map(self.demand.demanded, self.steps.computed(p))) for p in range(len(self.steps.at)))

    # -- dominance --------------------------------------------------------------------------------------------------

    def _undominated(self, moment: int, labels: list[Label]) -> list[Label]:
        """The labels that no other can take the place of, cheapest first.

        One takes another's place by writing and dropping rows, or by doing without what it lacks: whoever reads that
        loads it again. (Not with several units, where a row that is loaded may take more room than one that is there.)
        """
        labels.sort(key=lambda label: (label.bytes, label.sections))
        maps = sorted({h.map for label in labels for h in label.state})
        column = {m: i for i, m in enumerate(maps)}
        there = np.zeros((len(labels), len(maps)), np.int64)
        unstored = np.zeros((len(labels), len(maps)), np.bool_)
        for row, label in enumerate(labels):
            for m, each, stored in label.state:
                there[row, column[m]] = self.demand.kept(m, each, moment)
                unstored[row, column[m]] = not stored
        costs = np.array([label.bytes for label in labels], np.int64)
        again = np.array([sum(1 for _ in self.demand.readers(m, moment)) for m in maps], np.int64)
        out: list[int] = []
        for row in range(len(labels)):
            mine, theirs = there[row], there[out]
            write = np.where(unstored[out], theirs - np.where(unstored[row], np.minimum(theirs, mine), 0), 0)
            lacks = np.maximum(mine - theirs, 0)
            fits = (costs[out] + (write + lacks * again).sum(axis=1)) <= costs[row]
            if self.chip.units > 1:
                fits &= ~lacks.any(axis=1)
            if not fits.any():
                out.append(row)
        return [labels[row] for row in out]

    # -- segments ---------------------------------------------------------------------------------------------------

    def _extend(self, moment: int, label: Label, below: int, cuts: int | None = None) -> Iterator[tuple[int, Label]]:
        """All labels one segment further with which a plan may move fewer bytes than that."""
        for position, stop in self.orders.next(moment):
            plain = self._plain(moment, position, stop, label)
            if plain.reach < below:
                yield stop, plain
            if cuts is None:
                spare = below - label.bytes - self.least[stop]
                for single in self._singles.with_operands(moment, position, stop, label.state, spare):
                    yield stop, self._single(stop, label, single)
        missing = self.demand.missing(label.state, moment)
        for any_state in self._groups.starting(moment):
            spare = below - label.bytes - self.least[any_state.stop]
            if any_state.known.floor + missing >= spare:
                continue
            member = self._groups.suited(any_state, label.state)
            elsewhere = self._elsewhere(member, label)
            missing_here, spare = missing - elsewhere, spare - elsewhere
            yield from self._run_by(member, label, missing_here, spare, cuts)
            # Where there is room for everything on chip, rows that take less of it gain nothing but fewer kernels.
            ways = self._ways(member, label)
            whole = ways.complete(spare - missing_here)
            if whole is not None:
                if member.known.kernels(whole.level) == member.known.floor:
                    continue
                spare = min(spare, ways.total(whole))
            for tighter in self._groups.tighter(member):
                yield from self._run_by(tighter, label, missing_here, spare, cuts)

    def _elsewhere(self, member: Member, label: Label) -> int:
        """Bytes of what is wanted of maps that a group has nothing to do with, and that are not on chip."""
        key, local, stop = (member.stop, member.grouping.positions), member.grouping.local, member.stop
        if key not in self._absent:
            self._absent[key] = self.demand.all_missing[stop] - sum(self.demand.lacking(m, 0, stop) for m in local)
        return self._absent[key] - sum(self.demand.lacking(m, 0, stop) for m, _, _ in label.state if m not in local)

    def _run_by(
        self, member: Member, label: Label, missing: int, spare: int, cuts: int | None
    ) -> Iterator[tuple[int, Label]]:
        """The labels behind a group, without those that may not be below; see ``Ways.cheap``."""
        for way in self._ways(member, label).cheap(missing, spare, cuts):
            yield member.stop, self._label(member, label, way)

    def _plain(self, moment: int, position: int, stop: int, label: Label) -> Label:
        """The label behind a layer that runs from DRAM to DRAM."""
        return self._single(stop, label, self._singles.plain(moment, position, stop, label.state))

    def _single(self, stop: int, label: Label, single: Single) -> Label:
        """The label behind a layer that runs by itself."""
        return self._made(stop, label.bytes + single.bytes, label.sections + 1, single.after, single.segment, label)

    def _made(
        self, stop: int, total: int, sections: int, state: list[Held], segment: Segment | _ByStrips, before: Label
    ) -> Label:  # fmt: skip
        ordered = tuple(sorted(held for held in state if held.each))
        reach = total + self.demand.missing(ordered, stop) + self.least[stop]
        return Label(total, sections, ordered, reach, segment, before)

    def _ways(self, member: Member, label: Label) -> Ways:
        """The ways to run a group from a label."""
        local = member.grouping.local
        inside = tuple(sorted((local[m], each, stored) for m, each, stored in label.state if m in local))
        key = member.known, Before(inside, self._passing(member, label))
        if key not in self._known:
            self._known[key] = Ways(*key)
        return self._known[key]

    def _passing(self, member: Member, label: Label) -> tuple[Passing, ...]:
        demand, local, stop = self.demand, member.grouping.local, member.stop
        return tuple(
            Passing(
                self.steps.maps[m].lines,
                demand.line(m),
                demand.narrow(m),
                each,
                stored,
                demand.wanted(m, stop),
                demand.until(m, stop),
            )
            for m, each, stored in label.state
            if m not in local
        )

    def _label(self, member: Member, label: Label, way: Way) -> Label:
        """The label behind a group."""
        maps, local = member.grouping.maps, member.grouping.local
        others = [held for held in label.state if held.map not in local]
        self.meter.work += 1
        state = [Held(maps[i], each, stored) for i, each, stored in way.after]
        state += [Held(h.map, each, h.stored) for h, each in zip(others, way.passing, strict=True)]
        total, sections = label.bytes + way.bytes, label.sections + way.sections
        return self._made(member.stop, total, sections, state, _ByStrips(member, way), label)


def _keep(front: dict[State, Label], made: Label) -> None:
    have = front.get(made.state)
    if have is None or (made.bytes, made.sections) < (have.bytes, have.sections):
        front[made.state] = made


def _segments(label: Label) -> tuple[Segment, ...]:
    found: list[Segment] = []
    while label.before is not None:
        before, segment = label.before, label.segment
        assert segment is not None
        found.append(segment.strips(before.state) if isinstance(segment, _ByStrips) else segment)
        label = before
    return tuple(reversed(found))
