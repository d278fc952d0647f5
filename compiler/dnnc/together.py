"""Plans all layers together: the search for a scope, what it is made concrete as, and every layer's figures in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from dnnc.chip import Chip
from dnnc.cuts import Cuts
from dnnc.documents import Damaged
from dnnc.layer import HostLayer, Lowered
from dnnc.nests import Nests
from dnnc.network import Found, Search
from dnnc.plan import LayerPlan, Plan
from dnnc.price import Price
from dnnc.realize import Realized, realize
from dnnc.replay import check_network, moved_bytes
from dnnc.segments import SCOPES, Alone, Best, Network, Scope, Segment, Strips
from dnnc.steps import Steps, steps_of
from dnnc.strips import Group
from dnnc_runtime.errors import DisagreementFault

Timed = Callable[[Plan, Realized | None], float]
"""Cycles that a plan takes."""

WORK_PER_SECOND = 100_000
"""Units of the search's work in a deterministic second; a core of an AMD EPYC did 20,000 to 70,000 (measured)."""

HURRY = 4
"""The search for a narrower scope, which the plan is only compared with, gets so much less work, and every other one
after the first where something found no place."""

PRICES = (0.25, 1.0, 4.0, 64.0)
"""Where time counts, plans are looked for in which a cycle has each of these prices, in parts of the bytes that DRAM
moves in a cycle: from some time given for bytes to nearly none."""

ATTEMPTS = 12
SHARE = 256
"""Where the rows of a plan find no place, the segment that is too full has to do with such a part of the memory less at
least, and each time with twice as much."""


@dataclass
class Together:
    """Plans layers together.

    Attributes:
        lowered: the layers.
        plan: each by itself.
        fixed: names of layers that are to run by themselves, under the schedule that they have.
        time_limit: deterministic seconds of the search.
        interrupted: whether a user stopped the search; the plan is then layer by layer.
    """

    lowered: Lowered
    plan: Plan
    fixed: Collection[str] = ()
    time_limit: float = 60.0
    interrupted: bool = False
    _found: dict[Scope, Found] = field(default_factory=dict[Scope, Found])
    _searches: dict[Scope, Search] = field(default_factory=dict[Scope, Search])
    _cuts: dict[Group, Cuts] = field(default_factory=dict[Group, Cuts])

    def find(self, scope: Scope, timed: Timed) -> tuple[Plan, Realized | None]:
        """The best plan of a scope, made concrete; as it is if that is layer by layer.

        For the fewest bytes that is the plan of the widest scope. Where time counts, the plans of all scopes are timed,
        and those that are cheapest if time has some price; the fastest is taken, or of those that are nearly as fast
        the one that moves fewest bytes.
        """
        first, made = self.fewest(scope)
        goal = self.plan.objective
        if goal.goal == "traffic" or made is None:
            return first, made
        plans = [(first, made)]
        plans += [self._narrower(scope, other) for other in SCOPES[: SCOPES.index(scope)]]
        if self.interrupted:
            return plans[0]
        try:
            plans += [plan for price in PRICES if (plan := self.priced(scope, price)) is not None]
            times = [timed(*plan) for plan in plans]
        except KeyboardInterrupt:
            self.interrupted = True
            return plans[0]
        most = min(times) * (1 + goal.percent / 100 if goal.goal == "balanced" else 1)
        near = [plan for plan, time in zip(plans, times, strict=True) if time <= most]
        return min(near, key=lambda plan: plan[0].totals.dram_bytes)

    def fewest(self, scope: Scope) -> tuple[Plan, Realized | None]:
        """The plan of a scope that moves the fewest bytes."""
        chip = Chip(self.plan.machine)
        if scope == "layerwise" or chip.why or not self.plan.layers:
            return self.plan, None
        try:
            found, made = self._placed(scope, chip, self._widening(scope, chip))
        except KeyboardInterrupt:
            # What is proven so far is what every layer does by itself.
            self.interrupted = True
            return self.plan, None
        bound = self._found[scope].bound
        plan = self.confirmed(Network(scope, found.segments, self._best(scope, Best(found.bytes, bound))), made)
        return self._plain(plan, made) or (plan, made)

    def _best(self, scope: Scope, of_scope: Best) -> dict[Scope, Best]:
        """What is known of a scope, and of every narrower one: each may do what those before it do."""
        best: dict[Scope, Best] = {}
        for narrower in SCOPES[: SCOPES.index(scope)]:
            found = self._found[narrower]
            best[narrower] = Best(found.bytes, min(found.bytes, max(found.bound, of_scope.bound)))
        return {**best, scope: of_scope}

    def confirmed(self, network: Network, made: Realized) -> Plan:
        """The layers as they run together, gone through once more by other means than those of the search.

        Raises:
            DisagreementFault: they cannot run so, or move other bytes than was found.
        """
        plan = with_network(self.plan, network, made)
        try:
            check_network(plan, self.steps, made.chip, self.alone)
        except Damaged as wrong:
            raise DisagreementFault(
                f"the plan of all layers: {wrong}; this is a defect of dnnc, please report it"
            ) from None
        return plan

    def _narrower(self, scope: Scope, narrower: Scope) -> tuple[Plan, Realized]:
        """The plan of a narrower scope that moves the fewest bytes, as one of a scope."""
        chip = Chip(self.plan.machine)
        by_itself = narrower == "layerwise"
        found, made = self._by_itself(chip) if by_itself else self._placed(narrower, chip, self._found[narrower])
        best = self._best(scope, Best(found.bytes, self._found[scope].bound))
        return self.confirmed(Network(scope, found.segments, best), made), made

    def priced(self, scope: Scope, price: float) -> tuple[Plan, Realized] | None:
        """The plan of a scope that is cheapest if what its segments take longer has a price; None if it has no place.

        Args:
            price: of a cycle, in parts of the bytes that DRAM moves meanwhile.
        """
        machine, chip = self.plan.machine, Chip(self.plan.machine)
        alone = (0 if isinstance(layer, HostLayer) else layer.by_itself.cycles for layer in self.plan.layers)
        of_time = Price(chip, price * machine.dram.bytes_per_second / machine.clock_hz, tuple(alone))
        search = Search(
            self.steps, chip, self.alone, scope, self._limit(HURRY), None, self.nests, price=of_time, cuts=self._cuts
        )
        placed = self._attempts(search, search.find())
        if placed is None:
            return None
        found, made = placed
        moved = moved_bytes(found.segments, self.steps, chip, self.alone)
        best = self._best(scope, Best(moved, self._found[scope].bound))
        return self.confirmed(Network(scope, found.segments, best), made), made

    def _placed(self, scope: Scope, chip: Chip, found: Found) -> tuple[Found, Realized]:
        """The best plan that is found for which everything on chip finds a place, beginning with one that need not."""
        narrower = SCOPES[SCOPES.index(scope) - 1]
        placed = self._attempts(self._searches[scope], found, self._found[narrower].bytes)
        if placed is None and narrower != "layerwise":
            placed = self._placed(narrower, chip, self._found[narrower])
        if placed is None:
            placed = self._by_itself(chip)
        self._found[scope] = replace(placed[0], bound=self._found[scope].bound)
        return placed

    def _by_itself(self, chip: Chip) -> tuple[Found, Realized]:
        """Every layer by itself."""
        made = realize(self.steps, chip, self._layerwise.segments, self.alone)
        assert isinstance(made, Realized)
        return self._layerwise, made

    def _attempts(self, search: Search, found: Found, most: int | None = None) -> tuple[Found, Realized] | None:
        """What a search found, or finds with less memory, at no more bytes than that; None if nothing has its place."""
        tight: dict[tuple[int, ...], int] = {}
        for attempt in range(ATTEMPTS):
            found = replace(found, segments=_used(tuple(map(self.nests.settled, found.segments)), self.steps))
            made = realize(self.steps, search.chip, found.segments, self.alone)
            if isinstance(made, Realized):
                return found, made
            # Only the segment that was too full has to do with less, so that little is lost; then more around it.
            reach = attempt // 3
            for segment in found.segments[max(0, made.segment - reach) : made.segment + reach + 1]:
                less = max(2 * tight.get(segment.positions, 0), 2 * made.missing, search.chip.bytes // SHARE)
                tight[segment.positions] = less
            search = search.again(tight, self._limit(HURRY))
            found = search.find()
            if most is not None and found.bytes > most:
                break
        return None

    def _widening(self, scope: Scope, chip: Chip) -> Found:
        """The best plan of a scope, each found with the one of the narrower scope known."""
        self._found.setdefault("layerwise", self._layerwise)
        for narrower, wider in pairwise(SCOPES[: SCOPES.index(scope) + 1]):
            if wider not in self._found:
                known = self._found[narrower] if narrower != "layerwise" else None
                found = self._search(chip, wider, known, 1 if wider == scope else HURRY)
                # A search that was cut short may have found less than it began with.
                if found.bytes > self._found[narrower].bytes:
                    found = replace(self._found[narrower], bound=found.bound)
                self._found[wider] = found
        return self._found[scope]

    @cached_property
    def _layerwise(self) -> Found:
        """Every layer by itself."""
        segments = tuple(Alone(position) for position in range(len(self.plan.layers)))
        moved = self.plan.totals.dram_bytes
        return Found(segments, moved, moved, 0, 0)

    def _plain(self, plan: Plan, made: Realized) -> tuple[Plan, Realized] | None:
        """The plan where a layer runs by itself if that moves as little, and nobody uses what it leaves on chip."""
        network = plan.network
        assert network is not None
        steps, useless = self.steps, set[int]()
        used = {m for segment in network.segments for m, _ in segment.entering}
        segments: list[Segment] = []
        for segment in network.segments:
            if isinstance(segment, Strips) and len(segment.positions) == 1:
                (position,) = segment.positions
                layer = plan.layers[position]
                outputs = {*steps.computed(position)}
                # What it computes, and what it loads and leaves to others.
                made_here = (outputs | {m for m, _ in segment.leaving}) - {m for m, _ in segment.entering}
                if isinstance(layer, LayerPlan) and not made_here & used and _no_less(layer):
                    useless |= made_here
                    segments.append(Alone(position))
                    continue
            segments.append(segment)
        if not useless:
            return None
        without = tuple(_without(segment, useless) for segment in segments)
        try:
            moved = moved_bytes(without, steps, made.chip, self.alone)
        except Damaged:
            # By itself the layer may need more memory than there is beside what stays.
            return None
        found = realize(steps, made.chip, without, self.alone) if moved <= network.bytes else None
        if not isinstance(found, Realized):
            return None
        best: dict[Scope, Best] = {**network.best, network.scope: Best(moved, network.bound)}
        return self.confirmed(Network(network.scope, without, best), found), found

    def _search(self, chip: Chip, scope: Scope, known: Found | None, hurry: int) -> Found:
        limit = self._limit(hurry)
        search = Search(self.steps, chip, self.alone, scope, limit, known, self.nests, cuts=self._cuts)
        self._searches[scope] = search
        return search.find()

    def _limit(self, hurry: int) -> int:
        """Work of a search."""
        return round(self.time_limit * WORK_PER_SECOND / hurry)

    @cached_property
    def nests(self) -> Nests:
        """The schedules of single layers with operands on chip."""
        return Nests(self.steps, Chip(self.plan.machine))

    @cached_property
    def steps(self) -> Steps:
        """The layers as steps over feature maps."""
        return steps_of(self.lowered, self.fixed)

    @cached_property
    def alone(self) -> list[tuple[int, int]]:
        """For every position the DRAM bytes of its layer by itself, and its bytes of feature maps in a unit."""
        return alone_of(self.plan)


def _no_less(layer: LayerPlan) -> bool:
    """Whether a layer moves no less with others than by itself."""
    return layer.figures.dram_bytes >= layer.by_itself.dram_bytes


def _without(segment: Segment, maps: Collection[int]) -> Segment:
    """A segment that keeps nothing of some maps."""
    entering, leaving = (
        tuple((m, each) for m, each in held if m not in maps) for held in (segment.entering, segment.leaving)
    )
    return segment._replace(entering=entering, leaving=leaving)


def _used(segments: Sequence[Segment], steps: Steps) -> tuple[Segment, ...]:
    """The same segments, beside which nothing stays on chip that no segment behind them uses.

    What a segment computes itself may stay to its end all the same: whole rows go to DRAM in longer bursts than tiles.
    """
    wanted: dict[int, int] = {}
    out: list[Segment] = []
    for segment in reversed(segments):
        if isinstance(segment, Strips) or segment.schedule is not None:
            own = {m for position in segment.positions for m in (*steps.reads[position], *steps.computed(position))}
            entering, leaving = (
                tuple((m, had if m in own else wanted[m]) for m, had in held if m in own or m in wanted)
                for held in (segment.entering, segment.leaving)
            )
            segment = segment._replace(entering=entering, leaving=leaving)
            wanted = dict(entering)
        out.append(segment)
    return tuple(reversed(out))


def alone_of(plan: Plan) -> list[tuple[int, int]]:
    """For every position the DRAM bytes of its layer by itself, and its bytes of feature maps in a unit."""
    memory = plan.machine.memory_of("output").name
    out: list[tuple[int, int]] = []
    for layer in plan.layers:
        if isinstance(layer, HostLayer):
            out.append((0, 0))
        else:
            out.append((layer.by_itself.dram_bytes, layer.by_itself.memory[memory]))
    return out


def with_network(plan: Plan, network: Network, made: Realized) -> Plan:
    """A plan with the figures that its layers have when they run together."""
    figures = made.figures()
    strips = {
        position: len(segment.bounds) * max(1, len(segment.columns))
        for segment in network.segments
        if isinstance(segment, Strips)
        for position in segment.positions
    }
    layers: list[LayerPlan | HostLayer] = []
    for position, layer in enumerate(plan.layers):
        if isinstance(layer, LayerPlan) and position in figures:
            own = layer.by_itself
            layer = replace(layer, figures=figures[position], strips=strips.get(position, 0), alone=own)
        layers.append(layer)
    return replace(plan, layers=tuple(layers), network=network)
