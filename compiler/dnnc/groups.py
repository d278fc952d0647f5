"""The groups of a network that may run by strips: from every moment on, and what is known of all that are equal.

Layers that run together are a *member* of the network. Of some there are more, of the same layers, in which rows take
other room (``Groups.suited``, ``Groups.tighter``); these are made when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dnnc.cuts import Cuts, Meter
from dnnc.demand import Demand, State
from dnnc.grouping import Grouping, grouped, handable, spillable
from dnnc.options import Block, Options
from dnnc.orders import mask_of
from dnnc.price import Price
from dnnc.segments import Scope
from dnnc.strips import Group

LONGEST = 16
"""Layers of a group at most."""


class Member(NamedTuple):
    """A group where it is in the network, and what is known of all like it.

    Attributes:
        stop: the moment behind it.
        there: of the maps of which it reads some columns alone, those of which there may be rows on chip.
    """

    stop: int
    grouping: Grouping
    known: Options
    there: frozenset[int] = frozenset()


_Key = tuple[int, tuple[int, ...], frozenset[int]]
"""Of a member: the moment behind it, its layers, and the maps of which there are rows on chip."""


@dataclass
class Groups:
    """The groups of one network.

    Attributes:
        demand: what is wanted of the maps.
        alone: for every position the bytes that its layer moves by itself, and bytes per unit of feature maps.
        scope, tight, price, cuts, meter: see :class:`dnnc.network.Search`.
        blocks: what is known of groups: equal ones count once.
    """

    demand: Demand
    alone: Sequence[tuple[int, int]]
    scope: Scope
    tight: Mapping[tuple[int, ...], int]
    price: Price | None
    cuts: dict[Group, Cuts]
    meter: Meter
    blocks: dict[Block, Options] = field(default_factory=dict[Block, Options])
    _starting: dict[int, tuple[Member, ...]] = field(default_factory=dict[int, tuple[Member, ...]])
    _suited: dict[_Key, Member] = field(default_factory=dict[_Key, Member])
    _tighter: dict[_Key, tuple[Member, ...]] = field(default_factory=dict[_Key, tuple[Member, ...]])

    def starting(self, moment: int) -> tuple[Member, ...]:
        """The groups that start at a moment, the shortest first.

        Where one does not fit in strips alone, none with all its layers does; nor in blocks of columns, where they
        would pay.
        """
        if moment not in self._starting:
            self._starting[moment] = tuple(self._find_starting(moment))
        return self._starting[moment]

    def _find_starting(self, moment: int) -> Iterator[Member]:
        if self.scope == "layerwise" or self.demand.chip.why:
            return
        never: list[int] = []
        wide: list[int] = []
        for positions, stop in self.demand.orders.groups(moment, LONGEST if self.scope == "fused" else 1):
            mask = mask_of(positions)
            if any(mask & other == other for other in never):
                continue
            grouping = grouped(self.demand.steps, self.demand.chip, positions)
            by_rows = not any(mask & other == other for other in wide)
            member = self._member(grouping, stop, by_rows) if grouping else None
            if member is None or member.known.hopeless:
                never.append(mask)
                continue
            if member.known.in_blocks:
                wide.append(mask)
            if member.known.fits:
                yield member

    def suited(self, member: Member, state: State) -> Member:
        """The same layers where there are rows on chip before them: of those a row has all of its columns."""
        partly = member.grouping.partly
        there = frozenset(m for m, each, _ in state if each and m in partly) if partly else partly
        if not there:
            return member
        key = member.stop, member.grouping.positions, there
        if key not in self._suited:
            self._suited[key] = self._like(member, there=there)
        return self._suited[key]

    def tighter(self, member: Member) -> tuple[Member, ...]:
        """The same layers where rows take less room: where one map does not wait for the next strip, or goes tile by
        tile. None moves fewer bytes by the same cut."""
        key = member.stop, member.grouping.positions, member.there
        if key not in self._tighter:
            self._tighter[key] = () if member.known.in_blocks else tuple(self._find_tighter(member))
        return self._tighter[key]

    def _find_tighter(self, member: Member) -> Iterator[Member]:
        yield from (self._like(member, (m,), (), member.there) for m in spillable(member.grouping))
        yield from (self._like(member, (), (m,), member.there) for m in handable(member.grouping))

    def _like(
        self, of: Member, spilled: Collection[int] = (), handed: Collection[int] = (),
        there: frozenset[int] = frozenset(),
    ) -> Member:  # fmt: skip
        steps, chip, positions = self.demand.steps, self.demand.chip, of.grouping.positions
        grouping = grouped(steps, chip, positions, spilled=spilled, handed=handed, there=there)
        assert grouping is not None
        return self._member(grouping, of.stop, of.known.block.by_rows, there)

    def _member(
        self, grouping: Grouping, stop: int, by_rows: bool, there: frozenset[int] = frozenset()
    ) -> Member:  # fmt: skip
        block = self._block(grouping, stop, by_rows)
        if block not in self.blocks:
            if block.group not in self.cuts:
                self.cuts[block.group] = Cuts(block.group, self.meter)
            cuts = self.cuts[block.group]
            self.blocks[block] = Options(block, cuts, self.price.of_group(grouping, cuts) if self.price else _free)
        return Member(stop, grouping, self.blocks[block], there)

    def _block(self, grouping: Grouping, stop: int, by_rows: bool) -> Block:
        """All that decides how a group may be run; ``by_rows``: whether smaller ones can be cut into strips alone."""
        demand, steps = self.demand, self.demand.steps
        maps, group = grouping.maps, grouping.group
        word = demand.chip.machine.word_bytes
        inputs = {grouping.local[m] for m in grouping.entering}
        return Block(
            group,
            grouping.kernels,
            demand.chip.bytes - grouping.holding.maps - self.tight.get(grouping.positions, 0),
            tuple(grouping.line_bytes(m, word) if i in inputs else 0 for i, m in enumerate(maps)),
            tuple((demand.wanted(m, stop), demand.until(m, stop)) for m in maps),
            frozenset(i for i in group.later if steps.maps[maps[i]].must_store),
            frozenset(i for i, m in enumerate(maps) if i not in group.spilled and self._may_stay(grouping, m, stop)),
            tuple(map(demand.narrow, maps)),
            sum(self.alone[position][0] for position in grouping.positions),
            by_rows,
            tuple(self._spill(grouping, m, word) for m in maps),
            tuple(steps.steps[number].layer.shape for number in grouping.numbers) if self.price else (),
        )

    def _spill(self, grouping: Grouping, m: int, word: int) -> int:
        """Bytes of a line that is spilled: loaded, and written if it is not in DRAM in any case."""
        if grouping.local[m] not in grouping.group.spilled:
            return 0
        return grouping.line_bytes(m, word) + (0 if self.demand.steps.maps[m].must_store else self.demand.line(m))

    def _may_stay(self, grouping: Grouping, m: int, stop: int) -> bool:
        """Whether a group computes or loads all that later readers want of a map, and it can stay on chip."""
        steps, wanted = self.demand.steps, self.demand.wanted(m, stop)
        if not wanted or steps.maps[m].why:
            return False
        if m not in grouping.entering:
            return True
        if self.demand.chip.units > 1:
            # Every unit loads the lines that it needs first, which need not be those of its block.
            return False
        lines = 0
        for position in grouping.positions:
            if m in steps.reads[position]:
                lines |= steps.touched(position, m)
        return not grouping.touched(m) and not wanted & ~lines


def _free(_: int) -> int:
    return 0
