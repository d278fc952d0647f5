"""Layers that run by themselves in a plan of all layers: from DRAM to DRAM, or with operands on chip.

A layer from DRAM to DRAM runs under the schedule that it has by itself; one with operands on chip under the best one
that does with what memory is left (``nests``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from dnnc.cuts import Meter
from dnnc.demand import Demand, Held, State
from dnnc.nests import Nest, Nests, Roles
from dnnc.price import Price
from dnnc.segments import Alone
from dnnc_runtime.program import Role

SEARCHED = 10
"""Work of looking for a layer's schedule in some room, for each structure that it may have."""


class Single(NamedTuple):
    """A layer run by itself: bytes moved, and written because they go; and what there is behind it."""

    bytes: int
    segment: Alone
    after: list[Held]


@dataclass
class Singles:
    """The ways to run each layer of a network by itself.

    Attributes:
        demand: what is wanted of the maps.
        alone: for every position the bytes that its layer moves from DRAM to DRAM, and bytes per unit of feature maps
            that it holds meanwhile.
        nests: the schedules of layers with operands on chip; None: no layer runs so.
        tight: see :class:`dnnc.network.Search`; ``price``, ``meter``: likewise.
    """

    demand: Demand
    alone: Sequence[tuple[int, int]]
    nests: Nests | None
    tight: Mapping[tuple[int, ...], int]
    price: Price | None
    meter: Meter

    def least(self, position: int, moment: int, stop: int) -> int:
        """Bytes that a layer moves at least: also what there is no room for, which is written, and read once.

        Without what is missing at the moment before it already.
        """
        return min(self._least_plain(position, moment, stop), self._least_nest(position, moment, stop))

    def _least_plain(self, position: int, moment: int, stop: int) -> int:
        demand = self.demand
        total = self.alone[position][0]
        for m in demand.computed(position):
            total += demand.lacking(m, 0, stop)
        return total - sum(demand.last_read(m, moment, stop) for m in self._before(position))

    def _least_nest(self, position: int, moment: int, stop: int) -> int:
        """With everything on chip that there is room for."""
        demand, may = self.demand, self._operands(position)
        if self.nests is None or not may:
            return self._least_plain(position, moment, stop)
        fitting: list[Role] = [role for role, maps in may.items() if sum(map(demand.whole, maps)) <= demand.chip.bytes]
        roles: Roles = tuple(sorted(fitting))
        total = self.nests.least(position, roles)
        here = {m for role in roles for m in may[role]}
        for m in demand.computed(position):
            total += demand.demanded(m) if m in here else demand.lacking(m, 0, stop)
        return total - sum(demand.last_read(m, moment, stop) for m in self._before(position) if m not in here)

    def _before(self, position: int) -> set[int]:
        """The maps that a position reads and does not compute."""
        return set(self.demand.steps.reads[position]) - set(self.demand.computed(position))

    def plain(self, moment: int, position: int, stop: int, state: State) -> Single:
        """From DRAM to DRAM: what it reads is written first if it is only on chip; the rest stays if it fits."""
        demand, reads = self.demand, set(self.demand.steps.reads[position])
        total, used = self.alone[position]
        after: list[Held] = []
        for m, each, stored in state:
            if m in reads and not stored:
                total += demand.kept(m, each, moment)
                stored = True
            if demand.wanted(m, stop):
                used += demand.rows(m, each, stop)
                after.append(Held(m, each, stored))
        if used > self._room(position):
            total += sum(demand.kept(m, each, stop) for m, each, stored in after if not stored)
            after = [Held(m, 0, True) for m, _, _ in after]
        after += [Held(m, 0, True) for m in demand.computed(position) if demand.wanted(m, stop)]
        return Single(total, Alone(position), after)

    def with_operands(self, moment: int, position: int, stop: int, state: State, spare: int) -> Iterator[Single]:
        """With some operands on chip, and with other maps, as far as there is room.

        Maps that it has nothing to do with go one after another, the largest first.

        Args:
            spare: what it moves, and what is missing behind it, has to be less.
        """
        may = self._operands(position)
        if self.nests is None or not may:
            return
        there = {m: each for m, each, _ in state if each}
        roles: list[Role] = [
            role for role, maps in may.items() if all(self._all_there(role, position, m, there, stop) for m in maps)
        ]
        others = sorted(there, key=lambda m: -self.demand.rows(m, there[m], moment))
        for some in _subsets(roles):
            here = {m for role in some for m in may[role]}
            # An operand that is on chip is read there.
            unread = {m for role in roles if role not in some for m in may[role]}
            stay = [m for m in others if m not in here | unread and self.demand.wanted(m, stop)]
            # From DRAM to DRAM, with nothing else on chip, it is plain: of no use if that moves the least.
            plain = not some and self.alone[position][0] <= self.nests.least(position, some)
            for gone in range(len(stay) + (not plain)):
                made = self._nest(moment, position, stop, state, spare, some, frozenset(stay[gone:]))
                if made is not None:
                    yield made

    def _operands(self, position: int) -> Mapping[Role, tuple[int, ...]]:
        """The maps of every operand of a layer that may be on chip while its own nest runs."""
        return self.nests.operands(position) if self.nests else {}

    def _all_there(self, role: Role, position: int, m: int, there: Mapping[int, int], stop: int) -> bool:
        """Whether all is on chip that a layer reads of a map; or all of what it computes may stay, for somebody."""
        demand = self.demand
        if role == "output":
            return bool(demand.wanted(m, stop)) and demand.whole(m) <= demand.chip.bytes
        return m in there and not demand.steps.touched(position, m) & ~demand.mask(m, there[m])

    def _nest(
        self,
        moment: int,
        position: int,
        stop: int,
        state: State,
        spare: int,
        roles: Roles,
        stay: frozenset[int],
    ) -> Single | None:
        """With some operands on chip, and some other maps; None where that cannot pay or does not fit."""
        assert self.nests is not None
        demand, reads = self.demand, set(self.demand.steps.reads[position])
        here = {m for role in roles for m in self._operands(position)[role]}
        total, room, after = self._outputs(position, stop, here)
        entering: list[tuple[int, int]] = []
        for m, each, stored in state:
            if m in reads and m not in here and not stored:
                total += demand.kept(m, each, moment)
                stored = True
            if each and (m in here or m in stay):
                room -= demand.rows(m, each, moment)
                entering.append((m, each))
            elif not stored:
                total += demand.kept(m, each, stop)
            if demand.wanted(m, stop):
                after.append(Held(m, each if m in here or m in stay else 0, stored))
        below = spare - total - demand.missing(after, stop)
        if room < 0 or self.nests.least(position, roles) >= below:
            return None
        found = self._schedule(position, roles, room, below)
        if found is None or found.bytes >= below:
            return None
        if self.price:
            total += self.price.of_nest(position, self.nests.cycles(position, roles, found))
        leaving = tuple((m, each) for m, each, _ in sorted(after) if each)
        segment = Alone(position, found.schedule, tuple(entering), leaving)
        # Half of what is left over is for the nest to be fast, the other half for everything to find its place.
        self.nests.rooms[segment] = (found.used + room) // 2
        return Single(total + found.bytes, segment, after)

    def _outputs(self, position: int, stop: int, here: Collection[int]) -> tuple[int, int, list[Held]]:
        """Of what a layer computes: bytes written of what stays, bytes left beside it, and what there is then."""
        demand = self.demand
        total, room = 0, self._room(position)
        after: list[Held] = []
        for m in demand.computed(position):
            made = demand.steps.maps[m]
            if m in here:
                room -= demand.whole(m)
                total += demand.demanded(m)
            if demand.wanted(m, stop):
                each = -(-made.lines // demand.chip.units) if m in here else 0
                after.append(Held(m, each, m not in here or bool(made.must_store)))
        return total, room, after

    def _room(self, position: int) -> int:
        return self.demand.chip.bytes - self.tight.get((position,), 0)

    def _schedule(self, position: int, roles: Roles, room: int, below: int) -> Nest | None:
        """The schedule of a layer with some operands on chip, in so many bytes; see ``Nests.best``."""
        assert self.nests is not None
        before = self.nests.searched
        found = self.nests.best(position, roles, room, below)
        self.meter.work += 1 + (self.nests.searched - before) * SEARCHED
        return found


def _subsets(roles: Sequence[Role]) -> Iterator[Roles]:
    """Every choice of some operands, most of them first."""
    for count in range(len(roles), -1, -1):
        yield from combinations(sorted(roles), count)
