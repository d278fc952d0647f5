"""The ways to run a group by strips from what is on chip when it starts: how it is cut, and what stays meanwhile.

Nothing here knows where in the network a group is, so that what is found out serves all blocks that are equal.

When a group starts there is what the last one left, and everything stays that is still wanted, if it fits. If not, maps
are dropped one after another until it does, and of the last one only as many rows as it takes. They are dropped in
these orders: each kind of map first, the others behind it, either the largest first or the one first that is wanted
latest. Maps are of one kind that are equally large, come from the group or not, stay for the same reason and cost as
much to write and to load again; of those, the one that is wanted latest goes first. If there are more than a few kinds,
only the largest and those that are wanted latest go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice, takewhile
from typing import NamedTuple

from dnnc.cuts import Cuts
from dnnc.options import Block, Options
from dnnc.strip_run import Run
from dnnc.strips import fullest, kept

MANY = 6
"""Kinds of maps of which each may go first."""

FOUND = 8
"""Work of finding a way, besides that of going through the group."""


class Passing(NamedTuple):
    """A map that a group has nothing to do with: ``each`` lines of every unit's block are on chip.

    Attributes:
        size: bytes of a line; ``narrow``: those that every reader loads at least.
        wanted: lines that somebody behind the group reads; ``until``: in how many positions.
    """

    lines: int
    size: int
    narrow: int
    each: int
    stored: bool
    wanted: int
    until: int

    def bytes(self, units: int, each: int) -> int:
        """Bytes of so many lines of every unit's block, in the fullest unit."""
        return fullest(self.lines, units, each, self.wanted) * self.size


class Before(NamedTuple):
    """What there is when a group starts: (map, lines of every unit's block, whether all is in DRAM), and other maps."""

    inside: tuple[tuple[int, int, bool], ...]
    passing: tuple[Passing, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a group.

    Attributes:
        level: the cut.
        bytes: moved, and written because it goes; ``sections``: gone through.
        entering, leaving: (map, lines of every unit's block) on chip when it starts and when it ends.
        passing: of every other map the lines that stay.
        after: of maps that are wanted behind it the same as in Before.
    """

    level: int
    bytes: int
    sections: int
    entering: tuple[tuple[int, int], ...]
    leaving: tuple[tuple[int, int], ...]
    passing: tuple[int, ...]
    after: tuple[tuple[int, int, bool], ...]


Kind = tuple[int, int]
"""Why a map is on chip (ENTERING, LEAVING or PASSING), and which it is."""

_Order = tuple[Kind, ...]
_Lines = tuple[tuple[int, int], ...]
"""Lines of every unit's block, by map."""

ENTERING, LEAVING, PASSING = range(3)


class _Choice(NamedTuple):
    """Lines of every unit's block on chip: of maps read when a group starts, when it ends, of others meanwhile."""

    entering: Mapping[int, int]
    leaving: Mapping[int, int]
    passing: Mapping[int, int]

    def with_rows(self, kind: Kind, each: int) -> _Choice:
        """With so many lines of one map, and no more of it at the end than at the start."""
        why, m = kind
        changed = [*self]
        changed[why] = _with_lines(self[why], m, each)
        if why == ENTERING and m in self.leaving:
            changed[LEAVING] = _with_lines(self.leaving, m, min(each, self.leaving[m]))
        return _Choice(*changed)


@dataclass
class Ways:
    """The ways to run a block from what there is before it, found as far as somebody asks."""

    options: Options
    before: Before
    _made: dict[tuple[int, _Order], Way | None] = field(default_factory=dict[tuple[int, "_Order"], "Way | None"])
    _cheap: dict[tuple[int, int | None], tuple[int, tuple[tuple[int, Way], ...]]] = field(
        default_factory=dict[tuple[int, "int | None"], tuple[int, tuple[tuple[int, Way], ...]]]
    )
    _complete: Way | None = None
    _looked: int = 0

    @property
    def block(self) -> Block:
        """The block."""
        return self.options.block

    @property
    def cuts(self) -> Cuts:
        """Its cuts."""
        return self.options.cuts

    def cheap(self, missing: int, spare: int, few: int | None = None) -> Iterator[Way]:
        """The ways that may pay; what was found for one spare is not looked for again for less.

        Args:
            missing: bytes of what is wanted and not on chip when the group starts, without maps that are not on chip
                and that it has nothing to do with.
            spare: what a way moves, and what is missing behind it, likewise, has to be less; and no more than with
                everything on chip.
            few: so many cuts are tried to drop rows, those that move fewest kernels; None: all.
        """
        most, known = self._cheap.get((missing, few), (-1, ()))
        if most < spare:
            found = tuple((self.total(way), way) for way in self._find_cheap(missing, spare, few))
            self.cuts.meter.work += FOUND * max(0, len(found) - len(known))
            self._cheap[missing, few], known = (spare, found), found
        return (way for total, way in known if total < spare)

    def _find_cheap(self, missing: int, spare: int, few: int | None) -> Iterator[Way]:
        whole = self.complete(spare - missing)
        if whole is not None:
            yield whole
        tried = takewhile(lambda level: whole is None or level != whole.level, self.options.levels(spare - missing))
        for level in islice(tried, few):
            if self.options.least(level) + missing < spare:
                yield from self._partly(level, spare, whole)

    def complete(self, below: int) -> Way | None:
        """The way with everything on chip that moves fewest kernels, and fewer than that; None if there is none."""
        if self._complete is None and self._looked < below:
            self._complete = next(
                (self._whole(level) for level in self.options.levels(below) if self.whole(level)), None
            )
            self._looked = below
        found = self._complete
        return found if found and self.options.kernels(found.level) < below else None

    def total(self, way: Way) -> int:
        """Bytes of a way, and of what is missing behind it, without maps that the group has nothing to do with and
        that were not on chip before it."""
        block, units, there = self.block, self.block.group.units, dict(way.leaving)
        total = way.bytes
        for m, (wanted, _) in enumerate(block.wanted):
            total += (wanted & ~block.mask(m, there.get(m, 0))).bit_count() * block.narrow[m]
        for p, each in zip(self.before.passing, way.passing, strict=True):
            total += (p.wanted & ~kept(p.lines, units, each)).bit_count() * p.narrow
        return total

    def _partly(self, level: int, spare: int, whole: Way | None) -> Iterator[Way]:
        """The ways of a cut with less than everything on chip that may pay."""
        for order in self._orders:
            if self.least(level, order, True) + self._missing >= spare:
                continue
            if whole is not None and self.least(level, order, False) >= whole.bytes:
                continue
            way = self._dropping(level, order)
            if way is not None:
                yield way

    @cached_property
    def _missing(self) -> int:
        """Bytes of what is wanted behind the group and not on chip even with everything."""
        block, there = self.block, self.everything
        total = 0
        for m, (wanted, _) in enumerate(block.wanted):
            total += (wanted & ~block.mask(m, there.leaving.get(m, 0))).bit_count() * block.narrow[m]
        for p in self.before.passing:
            total += (p.wanted & ~kept(p.lines, block.group.units, p.each)).bit_count() * p.narrow
        return total

    @cached_property
    def everything(self) -> _Choice:
        """All rows that may be on chip: what is there, and what is computed or loaded for those behind."""
        block, group = self.block, self.block.group
        passing = {i: p.each for i, p in enumerate(self.before.passing) if p.each}
        if self.options.in_blocks:
            return _Choice({}, {}, passing)
        entering = {m: each for m, each, _ in self.before.inside if each}
        leaving: dict[int, int] = {}
        for m in range(len(group.lines)):
            if m in entering and block.wanted[m][0]:
                leaving[m] = entering[m]
            elif m in block.stays:
                leaving[m] = -(-group.lines[m] // group.units)
        return _Choice(entering, leaving, passing)

    def _whole(self, level: int) -> Way:
        """The way with everything on chip."""
        if (level, ()) not in self._made:
            self._made[level, ()] = self._way(level, self.everything)
        way = self._made[level, ()]
        assert way is not None
        return way

    def _dropping(self, level: int, order: _Order) -> Way | None:
        """The way where maps are dropped in some order; None if it does not fit even without them."""
        if (level, order) not in self._made:
            choice = self._fit(level, order)
            self._made[level, order] = None if choice is None else self._way(level, choice)
        return self._made[level, order]

    def whole(self, level: int) -> bool:
        """Whether everything fits."""
        return self._fits(level, self.everything)

    def least(self, level: int, order: _Order, missing: bool) -> int:
        """Bytes that a way moves at least: of what is too much at the fullest moment everything has to go, in order.

        With ``missing``, also what is missing behind it for that reason.
        """
        moved, excess = self._everything_at(level)
        for there, size, cost in self._losses(order, missing):
            if excess <= 0:
                break
            gone = min(excess, there)
            moved += gone * cost // size
            excess -= gone
        return moved

    def _losses(self, order: _Order, missing: bool) -> tuple[tuple[int, int, int], ...]:
        """Of everything that may go its bytes, those of a line, and those that a line costs at least."""
        key = order, missing
        if key not in self._lost:
            sizes = ((kind, self._size(kind)) for kind in order)
            self._lost[key] = tuple((self._there(kind) * size, size, self._cost(kind, missing)) for kind, size in sizes)
        return self._lost[key]

    @cached_property
    def _lost(self) -> dict[tuple[_Order, bool], tuple[tuple[int, int, int], ...]]:
        return {}

    def _everything_at(self, level: int) -> tuple[int, int]:
        """Bytes moved with everything on chip, and those that are too much at the fullest moment."""
        if level not in self._least:
            found = self._run(level, self.everything, None)
            moved = self.options.moved(level, found.loaded)
            self._least[level] = moved, max(0, found.peak - self._room(self.everything))
        return self._least[level]

    @cached_property
    def _least(self) -> dict[int, tuple[int, int]]:
        return {}

    def _there(self, kind: Kind) -> int:
        """Lines of a map that are on chip, in the unit that has most of them, if everything is."""
        why, m = kind
        return self.everything[why][m]

    def _cost(self, kind: Kind, missing: bool) -> int:
        """Bytes that a line costs at least that goes."""
        key = kind, missing
        if key not in self._costs:
            self._costs[key] = self._find_cost(*kind, missing)
        return self._costs[key]

    @cached_property
    def _costs(self) -> dict[tuple[Kind, bool], int]:
        return {}

    def _find_cost(self, why: int, m: int, missing: bool) -> int:
        block, sizes = self.block, self.block.group.sizes
        if why == PASSING:
            other = self.before.passing[m]
            return (0 if other.stored else other.size) + missing * other.narrow
        computed = m in block.group.computed
        if computed:
            write = not block.demanded & {m}
        else:
            write = any(number == m and not stored for number, _, stored in self.before.inside)
        if why == LEAVING:
            there = computed or m in self.everything.entering
            return there * write * sizes[m] + missing * block.narrow[m]
        needed = not self._used[m] & ~self.cuts.walk(0).needed.get(m, 0)
        return write * sizes[m] + (block.narrow[m] if missing else needed * block.loads[m])

    def _room(self, choice: _Choice) -> int:
        """Bytes of a unit's memory that are left to the group."""
        key = tuple(choice.passing.items())
        if key not in self._rooms:
            units, passing = self.block.group.units, self.before.passing
            self._rooms[key] = self.block.room - sum(passing[i].bytes(units, each) for i, each in key)
        return self._rooms[key]

    @cached_property
    def _rooms(self) -> dict[_Lines, int]:
        return {}

    def _fits(self, level: int, choice: _Choice) -> bool:
        room = self._room(choice)
        return room > 0 and self._run(level, choice, room).peak <= room

    def _run(self, level: int, choice: _Choice, room: int | None) -> Run:
        key = level, tuple(choice.entering.items()), tuple(choice.leaving.items())
        found = self._runs.get(key)
        if found is None or not found.settles(room):
            block, used = self.block, self._used
            entering = tuple(sorted((m, block.mask(m, each) & used[m]) for m, each in choice.entering.items()))
            leaving = ((m, block.mask(m, each) & block.wanted[m][0]) for m, each in choice.leaving.items())
            found = self._runs[key] = self.cuts.run(level, entering, tuple(sorted(leaving)), room)
        return found

    @cached_property
    def _runs(self) -> dict[tuple[int, _Lines, _Lines], Run]:
        return {}

    @cached_property
    def _used(self) -> dict[int, int]:
        """For every map there is when the group starts the lines that somebody reads."""
        needed = self.cuts.walk(0).needed
        return {m: needed.get(m, 0) | self.block.wanted[m][0] for m, _, _ in self.before.inside}

    @cached_property
    def _orders(self) -> tuple[_Order, ...]:
        """In which orders maps are dropped."""
        alike: dict[tuple[int, ...], list[Kind]] = {}
        for why in (PASSING, LEAVING, ENTERING):
            for m, each in self.everything[why].items():
                made = why != PASSING and m in self.block.group.computed
                costs = (self._cost((why, m), missing) for missing in (True, False))
                key = self._size((why, m)) * each, self._size((why, m)), why, made, *costs
                alike.setdefault(key, []).append((why, m))
        kinds = {key: tuple(sorted(alike[key], key=self._until, reverse=True)) for key in sorted(alike)}
        large = sorted(kinds, reverse=True)
        late = sorted(large, key=lambda key: self._until(kinds[key][0]), reverse=True)
        firsts = kinds if len(kinds) <= MANY else {*large[: MANY // 2], *late[: MANY // 2]}
        orders = (
            (first, *(key for key in others if key != first)) for first in sorted(firsts) for others in (large, late)
        )
        return tuple(dict.fromkeys(tuple(kind for key in order for kind in kinds[key]) for order in orders))

    def _until(self, kind: Kind) -> int:
        why, m = kind
        return self.before.passing[m].until if why == PASSING else self.block.wanted[m][1]

    def _fit(self, level: int, order: _Order) -> _Choice | None:
        """Drops maps in order until the group fits, of the last one no more rows than it takes.

        A row that goes saves no more than its bytes: so many rows go at least, and most often no more have to.
        """
        choice = self.everything
        excess = self._excess(level, choice)
        for kind in order:
            why, m = kind
            rows, size = choice[why].get(m, 0), self._size(kind)
            if excess < rows * size:
                excess = self._excess(level, choice)
                if excess <= 0:
                    return choice
            if excess < rows * size:
                least = -(-excess // size)
                gone = _first(least, rows, partial(self._fits_without, level, choice, kind, rows))
                if gone < rows:
                    return choice.with_rows(kind, rows - gone)
            choice = choice.with_rows(kind, 0)
            excess -= rows * size
        return choice if self._fits(level, choice) else None

    def _fits_without(self, level: int, choice: _Choice, kind: Kind, rows: int, gone: int) -> bool:
        return self._fits(level, choice.with_rows(kind, rows - gone))

    def _size(self, kind: Kind) -> int:
        why, m = kind
        return self.before.passing[m].size if why == PASSING else self.block.group.sizes[m]

    def _excess(self, level: int, choice: _Choice) -> int:
        """Bytes that are missing at the fullest moment."""
        return self._run(level, choice, None).peak - self._room(choice)

    def _way(self, level: int, choice: _Choice) -> Way:
        """What it moves, and what is written because it goes."""
        block, sizes, needed = self.block, self.block.group.sizes, self.cuts.walk(0).needed
        found = self._run(level, choice, self._room(choice))
        total = self.options.moved(level, found.loaded)
        after: dict[int, tuple[int, bool]] = dict.fromkeys(block.inputs, (0, True))
        for m, each, stored in self.before.inside:
            enters, leaves = choice.entering.get(m, 0), choice.leaving.get(m, 0)
            gone = block.mask(m, each) & ~block.mask(m, enters) & needed.get(m, 0)
            gone |= block.mask(m, each) & ~block.mask(m, leaves) & block.wanted[m][0]
            total += 0 if stored else gone.bit_count() * sizes[m]
            after[m] = leaves, stored
        for m in block.inputs:
            after[m] = choice.leaving.get(m, 0), after[m][1]
        for m in block.group.later:
            leaves = choice.leaving.get(m, 0)
            if m not in block.demanded:
                total += (block.wanted[m][0] & ~block.mask(m, leaves)).bit_count() * sizes[m]
            after[m] = leaves, m in block.demanded
        for i, p in enumerate(self.before.passing):
            gone = kept(p.lines, block.group.units, p.each) & ~kept(
                p.lines, block.group.units, choice.passing.get(i, 0)
            )
            total += 0 if p.stored else (gone & p.wanted).bit_count() * p.size
        return Way(
            level,
            total,
            sum(self.cuts.sections(level)),
            tuple(sorted(choice.entering.items())),
            tuple(sorted(choice.leaving.items())),
            tuple(choice.passing.get(i, 0) for i in range(len(self.before.passing))),
            tuple(sorted((m, *held) for m, held in after.items() if block.wanted[m][0])),
        )


def _with_lines(lines: Mapping[int, int], m: int, each: int) -> Mapping[int, int]:
    """Lines by map, with so many of one."""
    changed = {**lines, m: each}
    if not each:
        del changed[m]
    return changed


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number from ``low`` on for which something holds that holds for all behind it; ``high`` if for none."""
    step, middle = 1, low
    while low < high:
        if holds(middle):
            high, step = middle, 0
        else:
            low, step = middle + 1, 2 * step
        middle = min(low + step - 1, high - 1) if step else (low + high) // 2
    return low
