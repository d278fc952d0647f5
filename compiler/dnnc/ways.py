"""Every way to run a group by strips that the search looks at: how it is cut, and what stays on chip meanwhile.

Nothing here knows where in the network a group is, so that what is found out serves all blocks that are equal.

The space. A group is cut into strips of equal height, but for the first and the last; a cut that takes as much memory as
one of fewer strips is passed over. When a group starts there is what the last one left, and everything stays that is
still wanted, if it fits. If not, maps are dropped one after another until it does, and of the last one only as many rows
as it takes. They are dropped in these orders: each kind of map first, the others behind it, the largest first. Maps are
of one kind that are equally large, and stay for the same reason; of those, the one that is wanted latest goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

from dnnc.strips import Group, Run, Walk, kept, measure, walk


@dataclass
class Meter:
    """The work done so far, in sections gone through."""

    work: int = 0


@dataclass
class Cuts:
    """The cuts of a group, and what it takes to run by each: known once for all groups that are equal."""

    group: Group
    meter: Meter
    _walks: dict[int, Walk] = field(default_factory=dict[int, Walk])
    _runs: dict[tuple[int, _Lines, _Lines], Run] = field(default_factory=dict[tuple[int, "_Lines", "_Lines"], Run])

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The cuts, fewest strips first.

        The first strip takes more rows of the earlier steps than the others, by what the windows reach over; so it
        is as much shorter.
        """
        group = self.group
        rows = group.parts[-1].rows
        ahead = group.cumulative((1, rows))[0][0] * rows // group.parts[0].rows if rows > 1 else 0
        heights = dict.fromkeys(
            min(rows, -(-(-(-rows // strips)) // group.units) * group.units) for strips in range(1, rows + 1)
        )
        firsts = ((height, height - ahead if ahead < height < rows else height) for height in heights)
        return tuple(tuple([*range(first, rows, height), rows]) for height, first in firsts)

    def walk(self, level: int) -> Walk:
        """The sections of a cut."""
        if level not in self._walks:
            self._walks[level] = walk(self.group, self.levels[level])
        return self._walks[level]

    def run(self, level: int, entering: _Lines, leaving: _Lines, room: int | None = None) -> Run:
        """What a cut takes with these lines on chip before and behind it; no further than there is room."""
        key = level, entering, leaving
        found = self._runs.get(key)
        if found is None or not (found.whole or (room is not None and found.peak > room)):
            way = self.walk(level)
            found = self._runs[key] = measure(way, dict(entering), dict(leaving), room)
            self.meter.work += sum(way.sections)
        return found

    def bare(self, level: int) -> Run:
        """With nothing on chip before or behind it."""
        return self.run(level, (), ())


_Lines = tuple[tuple[int, int], ...]
"""Masks of lines by map."""


@dataclass(frozen=True)
class Block:
    """All that decides which ways there are to run a group, with its own numbers of maps.

    Attributes:
        kernels: for every step the bytes of kernels and parameters for one section, and for every further one.
        room: bytes of a unit's memory for feature maps.
        loads: for every map the bytes of a line that are loaded.
        wanted: for every map the lines that steps behind the group read, and in how many positions they do first.
        demanded: maps computed that have to be in DRAM.
        stays: maps that may be on chip behind the group, if all that is wanted of them is computed or loaded in it.
        narrow: for every map the bytes of a line that every reader in the network loads at least.
    """

    group: Group
    kernels: tuple[tuple[int, int], ...]
    room: int
    loads: tuple[int, ...]
    wanted: tuple[tuple[int, int], ...]
    demanded: frozenset[int]
    stays: frozenset[int]
    narrow: tuple[int, ...]

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Maps that the group reads and does not compute."""
        return tuple(m for m in range(len(self.group.lines)) if m not in self.group.computed)

    def mask(self, m: int, each: int) -> int:
        """The lines of a map that are on chip if every unit keeps so many of its block."""
        return kept(self.group.lines[m], self.group.units, each)

    def moved(self, sections: Sequence[int], loaded: Mapping[int, int]) -> int:
        """Bytes of kernels, parameters and maps loaded."""
        total = sum(once + (times - 1) * again for (once, again), times in zip(self.kernels, sections, strict=True))
        return total + sum(lines.bit_count() * self.loads[m] for m, lines in loaded.items())

    @cached_property
    def stored(self) -> int:
        """Bytes of what has to be in DRAM in any case."""
        return sum(self.group.lines[m] * self.group.sizes[m] for m in self.demanded)


class Passing(NamedTuple):
    """A map that a group has nothing to do with: ``each`` lines of every unit's block are on chip.

    Attributes:
        size: bytes of a line; ``wanted``: lines that somebody behind the group reads, ``until``: in how many positions.
    """

    lines: int
    size: int
    each: int
    stored: bool
    wanted: int
    until: int


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

ENTERING, LEAVING, PASSING = range(3)


class _Choice(NamedTuple):
    """Lines of every unit's block on chip: of maps read when a group starts, of maps when it ends, of others meanwhile."""

    entering: Mapping[int, int]
    leaving: Mapping[int, int]
    passing: Mapping[int, int]

    def with_rows(self, kind: Kind, each: int) -> _Choice:
        """With so many lines of one map, and no more of it at the end than at the start."""
        why, m = kind
        changed = [{**part} for part in self]
        changed[why][m] = each
        if why == ENTERING and m in changed[LEAVING]:
            changed[LEAVING][m] = min(each, changed[LEAVING][m])
        return _Choice(*({k: v for k, v in part.items() if v} for part in changed))

    def without(self, kinds: Sequence[Kind]) -> _Choice:
        """With nothing of some maps."""
        choice = self
        for kind in kinds:
            choice = choice.with_rows(kind, 0)
        return choice

    def key(self) -> object:
        """What makes it equal to another."""
        return tuple(tuple(sorted(part.items())) for part in self)


@dataclass
class Options:
    """A block, and all that has been found out about it."""

    block: Block
    cuts: Cuts
    _ways: dict[Before, Ways] = field(default_factory=dict[Before, "Ways"])

    def ways(self, before: Before) -> Ways:
        """The ways to run it from what there is before it."""
        if before not in self._ways:
            self._ways[before] = Ways(self, before)
        return self._ways[before]

    @cached_property
    def first(self) -> int | None:
        """The fewest strips (as a level) that fit at all, when everything else is in DRAM."""
        return next(self.levels(), None)

    def levels(self) -> Iterator[int]:
        """The cuts that fit at all, without those that take as much memory as one of fewer strips."""
        least: int | None = None
        for level in range(len(self.cuts.levels)):
            peak = self.cuts.bare(level).peak
            if peak <= self.block.room and (least is None or peak < least):
                least = peak
                yield level

    def kernels(self, level: int) -> int:
        """Bytes of kernels, and of what has to be in DRAM in any case."""
        return self.block.moved(self.cuts.walk(level).sections, {}) + self.block.stored

    def least(self, level: int) -> int:
        """Bytes that a cut moves whatever the state: also what there is no room for, written and read once."""
        if level not in self._least:
            self._least[level] = self.kernels(level) + self._gone(level)
        return self._least[level]

    @cached_property
    def _least(self) -> dict[int, int]:
        return {}

    def _gone(self, level: int) -> int:
        block, group = self.block, self.block.group
        rows = {m: block.wanted[m][0] for m in group.later if m not in block.demanded}
        if not rows:
            return 0
        if group.units == 1:
            excess = self.cuts.run(level, (), tuple(sorted(rows.items()))).peak - block.room
        else:
            total = sum(lines.bit_count() * group.sizes[m] for m, lines in rows.items())
            excess = total - group.units * block.room
        return max(0, excess) + min(max(0, excess) * block.narrow[m] // group.sizes[m] for m in rows)

    @cached_property
    def least_of_all(self) -> int | None:
        """Likewise with the cut that moves the least; None if none fits."""
        best: int | None = None
        for level in self.levels():
            if best is not None and self.kernels(level) >= best:
                break
            best = self.least(level) if best is None else min(best, self.least(level))
        return best


@dataclass
class Ways:
    """The ways to run a block from what there is before it, found as far as somebody asks."""

    options: Options
    before: Before
    _made: dict[int, tuple[Way, ...]] = field(default_factory=dict[int, "tuple[Way, ...]"])

    @property
    def block(self) -> Block:
        """The block."""
        return self.options.block

    @property
    def cuts(self) -> Cuts:
        """Its cuts."""
        return self.options.cuts

    def cheap(self, spare: int) -> Iterator[Way]:
        """The ways that may move less than there is to spare, and less than the one with everything on chip."""
        tried: list[int] = []
        whole: Way | None = None
        for level in self.options.levels():
            if self.options.kernels(level) >= spare:
                break
            if self.whole(level):
                (whole,) = self.at(level)
                yield whole
                break
            tried.append(level)
        for level in tried:
            if self.options.least(level) >= spare:
                continue
            if whole is None or self.least(level) < whole.bytes:
                yield from self.at(level)

    @cached_property
    def everything(self) -> _Choice:
        """All rows that may be on chip: what is there, and what is computed or loaded for those behind."""
        block, group = self.block, self.block.group
        entering = {m: each for m, each, _ in self.before.inside if each}
        leaving: dict[int, int] = {}
        for m in range(len(group.lines)):
            if m in entering and block.wanted[m][0]:
                leaving[m] = entering[m]
            elif m in block.stays:
                leaving[m] = -(-group.lines[m] // group.units)
        return _Choice(entering, leaving, {i: p.each for i, p in enumerate(self.before.passing) if p.each})

    def at(self, level: int) -> tuple[Way, ...]:
        """The ways with one cut: the one with everything on chip if that fits."""
        if level not in self._made:
            self._made[level] = tuple(self._find(level))
        return self._made[level]

    def _find(self, level: int) -> Iterator[Way]:
        if self.whole(level):
            yield self._way(level, self.everything)
            return
        seen: set[object] = set()
        for order in self._orders:
            choice = self._fit(level, order)
            if choice is not None and (key := choice.key()) not in seen:
                seen.add(key)
                yield self._way(level, choice)

    def whole(self, level: int) -> bool:
        """Whether everything fits."""
        return self._fits(level, self.everything)

    def least(self, level: int) -> int:
        """Bytes that every way with this cut moves: of what is missing at the fullest moment everything has to go."""
        found = self._run(level, self.everything, None)
        moved = self.block.moved(self.cuts.walk(level).sections, found.loaded) + self.block.stored
        return moved + (max(0, found.peak - self._room(self.everything)) if self._costly else 0)

    @cached_property
    def _costly(self) -> bool:
        """Whether every row that goes has to be written."""
        there = all(not stored for _, each, stored in self.before.inside if each)
        there = there and all(not p.stored for p in self.before.passing if p.each)
        fresh = {m for m in self.everything.leaving if m not in self.everything.entering}
        return there and all(m in self.block.group.computed and m not in self.block.demanded for m in fresh)

    def _room(self, choice: _Choice) -> int:
        """Bytes of a unit's memory that are left to the group."""
        return self.block.room - sum(each * self.before.passing[i].size for i, each in choice.passing.items())

    def _fits(self, level: int, choice: _Choice) -> bool:
        room = self._room(choice)
        return room > 0 and self._run(level, choice, room).peak <= room

    def _run(self, level: int, choice: _Choice, room: int | None) -> Run:
        block = self.block
        entering = tuple(sorted((m, block.mask(m, each)) for m, each in choice.entering.items()))
        leaving = ((m, block.mask(m, each) & block.wanted[m][0]) for m, each in choice.leaving.items())
        return self.cuts.run(level, entering, tuple(sorted(leaving)), room)

    @cached_property
    def _orders(self) -> tuple[tuple[Kind, ...], ...]:
        """In which orders maps are dropped."""
        alike: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        sizes, wanted = self.block.group.sizes, self.block.wanted
        for why in (PASSING, LEAVING, ENTERING):
            for m, each in self.everything[why].items():
                other = self.before.passing[m] if why == PASSING else None
                size, until = (other.size, other.until) if other else (sizes[m], wanted[m][1])
                alike.setdefault((-size * each, why, size), []).append((-until, m))
        sized = [[(kind[1], m) for _, m in sorted(alike[kind])] for kind in sorted(alike)]
        return tuple(
            tuple(kind for group in (first, *(other for other in sized if other is not first)) for kind in group)
            for first in sized
        )

    def _fit(self, level: int, order: Sequence[Kind]) -> _Choice | None:
        """Drops maps in order until the group fits, of the last one no more rows than it takes.

        A row that goes saves no more than its bytes: so many rows go at least, and most often no more have to.
        """
        choice = self.everything
        for kind in order:
            why, m = kind
            rows, size = choice[why].get(m, 0), self._size(kind)
            excess = self._excess(level, choice)
            if excess < rows * size:
                least = -(-excess // size)
                gone = _first(least, rows, partial(self._fits_without, level, choice, kind, rows))
                if gone < rows:
                    return choice.with_rows(kind, rows - gone)
            choice = choice.with_rows(kind, 0)
            if self._excess(level, choice) <= 0:
                return choice
        return None

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
        block, sizes, way = self.block, self.block.group.sizes, self.cuts.walk(level)
        found = self._run(level, choice, self._room(choice))
        total = block.moved(way.sections, found.loaded) + block.stored
        after: dict[int, tuple[int, bool]] = dict.fromkeys(block.inputs, (0, True))
        for m, each, stored in self.before.inside:
            enters, leaves = choice.entering.get(m, 0), choice.leaving.get(m, 0)
            gone = block.mask(m, each) & ~block.mask(m, enters) & way.needed.get(m, 0)
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
            sum(way.sections),
            tuple(sorted(choice.entering.items())),
            tuple(sorted(choice.leaving.items())),
            tuple(choice.passing.get(i, 0) for i in range(len(self.before.passing))),
            tuple(sorted((m, *held) for m, held in after.items() if block.wanted[m][0])),
        )


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
