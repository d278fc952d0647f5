"""Every way to run a group by strips that the search looks at: how it is cut, and what stays on chip meanwhile.

Nothing here knows where in the network a group is, so that what is found out serves all blocks that are equal.

The space. A group is cut into strips of equal height, but for the first and the last; a cut that takes as much memory
as one of fewer strips is passed over. When a group starts there is what the last one left, and everything stays that
is still wanted, if it fits. If not, maps are dropped one after another until it does, and of the last one only as
many rows as it takes. They are dropped in these orders: each kind of map first, the others behind it, either the
largest first or the one first that is wanted latest. Maps are of one kind that are equally large, come from the group
or not, stay for the same reason and cost as much to write and to load again; of those, the one that is wanted latest
goes first. If there are more than a few kinds, only the largest and those that are wanted latest go first.

Where strips alone do not fit, neither in this group nor in a shorter one that starts with the same layer, it is also
cut into some numbers of blocks of columns, equally wide but for the first and the last. Then it reads all of its inputs
from DRAM, and writes there all that is wanted behind it: only maps that it has nothing to do with stay. Such a cut is
passed over if it moves no fewer bytes than the layers do by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import islice, takewhile
from math import ceil
from typing import NamedTuple

from dnnc.axis import touched
from dnnc.columns import halo, in_blocks, parts_of
from dnnc.layer import Shape
from dnnc.peaks import Peaks
from dnnc.strips import Group, Run, Walk, home, kept, run, walk

MANY = 6
"""Kinds of maps of which each may go first."""


BLOCKS = (2, 3, 4, 6, 8, 12, 16)
"""Numbers of blocks of columns that are tried."""


BEGIN = 2
"""Blocks of columns that are gone through to see whether there is room at all: from the second on all are alike."""


class Cut(NamedTuple):
    """Rows (and columns) of the last step's output computed by the end of every strip (and block; none for one)."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass
class Meter:
    """The work done so far: sections gone through, for each unit; of one unit alone, maps that change."""

    work: int = 0


@dataclass
class Cuts:
    """The cuts of a group, and what it takes to run by each: known once for all groups that are equal."""

    group: Group
    meter: Meter
    _groups: dict[int, Group] = field(default_factory=dict[int, Group])
    _bares: dict[tuple[int, int], int | None] = field(default_factory=dict[tuple[int, int], "int | None"])
    _halos: dict[int, int] = field(default_factory=dict[int, int])
    _walks: dict[int, Walk] = field(default_factory=dict[int, Walk])
    _peaks: dict[int, Peaks] = field(default_factory=dict[int, Peaks])
    _runs: dict[tuple[int, _Lines, _Lines], Run] = field(default_factory=dict[tuple[int, "_Lines", "_Lines"], Run])

    @cached_property
    def strips(self) -> tuple[tuple[int, ...], ...]:
        """The cuts into strips, fewest first.

        The first strip takes more rows of the earlier steps than the others, by what the windows reach over; so it
        is as much shorter.
        """
        group = self.group
        rows = group.parts[-1].rows
        ahead = group.cumulative((1, rows))[0][0] * rows // group.parts[0].rows if rows > 1 else 0
        shares = (ceil(rows / strips) for strips in range(1, rows + 1))
        heights = dict.fromkeys(min(rows, ceil(share / group.units) * group.units) for share in shares)
        return tuple(_bounds(rows, height, ahead) for height in heights)

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The cuts into blocks of columns: one block, and then several; the first is narrower for the same reason."""
        group = self.group
        columns = group.parts[-1].columns[1]
        ahead = group.cumulative_columns((1, columns))[0][0] * columns // group.parts[0].columns[1]
        widths = dict.fromkeys(ceil(columns / blocks) for blocks in BLOCKS)
        return ((), *(_bounds(columns, width, ahead) for width in widths if width < columns))

    @property
    def levels(self) -> tuple[Cut, ...]:
        """All cuts, those into strips alone first; elsewhere they go by their number (``level``)."""
        return tuple(Cut(rows, columns) for columns in self.blocks for rows in self.strips)

    def level(self, blocks: int, strips: int) -> int:
        """The number of a cut."""
        return blocks * len(self.strips) + strips

    def cut(self, level: int) -> Cut:
        """A cut by its number."""
        blocks, strips = divmod(level, len(self.strips))
        return Cut(self.strips[strips], self.blocks[blocks])

    def in_blocks(self, blocks: int) -> Group:
        """The group cut into blocks of columns."""
        if blocks not in self._groups:
            self._groups[blocks] = in_blocks(self.group, self.blocks[blocks])
        return self._groups[blocks]

    def halo(self, blocks: int) -> int:
        """Bytes that all units together keep at least from one block of columns to the next."""
        if blocks not in self._halos:
            self._halos[blocks] = halo(self.in_blocks(blocks)) if blocks else 0
        return self._halos[blocks]

    def walk(self, level: int) -> Walk:
        """The sections of a cut."""
        if level not in self._walks:
            blocks, strips = divmod(level, len(self.strips))
            self._walks[level] = walk(self.in_blocks(blocks), self.strips[strips])
        return self._walks[level]

    def sections(self, level: int) -> tuple[int, ...]:
        """How many sections every step has in a cut, found without cutting maps into pieces."""
        blocks, strips = divmod(level, len(self.strips))
        times = parts_of(self.group, self.blocks[blocks])
        return tuple(a * b for a, b in zip(times, self.walk(strips).sections, strict=True))

    def run(self, level: int, entering: _Lines, leaving: _Lines, room: int | None = None) -> Run:
        """What a cut takes with these lines on chip before and behind it; no further than there is room."""
        key = level, entering, leaving
        found = self._runs.get(key)
        if found is None or not (found.whole or (room is not None and found.peak > room)):
            found = self._runs[key] = self._run(level, dict(entering), dict(leaving), room)
        return found

    def _run(self, level: int, entering: Mapping[int, int], leaving: Mapping[int, int], room: int | None) -> Run:
        way = self.walk(level)
        sections = sum(way.sections)
        if self.group.units > 1:
            self.meter.work += sections * self.group.units
            return run(way, entering, leaving, room=room)
        if level not in self._peaks:
            self._peaks[level] = Peaks(way)
            self.meter.work += sections
        self.meter.work += 1 + (len(entering) + len(leaving)) * 4
        return self._peaks[level].run(entering, leaving)

    def needs(self, level: int) -> int:
        """Bytes that a unit needs at least: those that some section of the first strips reads."""
        way = self.walk(level)
        group = way.group
        most = 0
        for i, _, _, first, stop in islice(group.steps(way.bounds), 2 * len(self.group.parts)):
            lines: dict[int, int] = {}
            for m, rows, _, _ in group.parts[i].reads:
                lines[m] = lines.get(m, 0) | touched(rows, first, first + ceil((stop - first) / group.units))
            most = max(most, sum(needed.bit_count() * group.sizes[m] for m, needed in lines.items()))
        return most

    def bare(self, level: int, room: int) -> int | None:
        """Bytes at the fullest moment with nothing on chip before or behind it; None if there is no room for that."""
        key = level, room
        if key not in self._bares:
            peak = self.run(level, (), (), room).peak if self._may_fit(level, room) else room + 1
            self._bares[key] = peak if peak <= room else None
        return self._bares[key]

    def _may_fit(self, level: int, room: int) -> bool:
        """Whether what is known with little work leaves room."""
        blocks = level // len(self.strips)
        if self.halo(blocks) > room * self.group.units or self.needs(level) > room:
            return False
        if not blocks:
            return True
        begin = replace(self.walk(level), blocks=BEGIN)
        self.meter.work += len(begin.visits) * self.group.units
        return run(begin, {}, {}, room=room).whole


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
        alone: bytes that its layers move by themselves.
        by_rows: whether shorter groups that start with the same layer can be cut into strips alone.
        spills: for every map the bytes that a line of it moves that does not wait for the next strip.
        shapes: of its steps, where time has a price.
    """

    group: Group
    kernels: tuple[tuple[int, int], ...]
    room: int
    loads: tuple[int, ...]
    wanted: tuple[tuple[int, int], ...]
    demanded: frozenset[int]
    stays: frozenset[int]
    narrow: tuple[int, ...]
    alone: int
    by_rows: bool
    spills: tuple[int, ...]
    shapes: tuple[Shape, ...]

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Maps that the group reads and does not compute."""
        return tuple(m for m in range(len(self.group.lines)) if m not in self.group.computed)

    def mask(self, m: int, each: int) -> int:
        """The lines of a map that are on chip if every unit keeps so many of its block."""
        return kept(self.group.lines[m], self.group.units, each)

    def kernels_moved(self, sections: Sequence[int]) -> int:
        """Bytes of kernels and parameters."""
        return sum(once + (times - 1) * again for (once, again), times in zip(self.kernels, sections, strict=True))

    @cached_property
    def stored(self) -> int:
        """Bytes of what has to be in DRAM in any case."""
        return sum(self.group.lines[m] * self.group.sizes[m] for m in self.demanded)


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


@lru_cache(maxsize=65536)
def fullest(lines: int, units: int, each: int, wanted: int) -> int:
    """Lines that are wanted of the first ``each`` ones of every unit's block, in the unit that has most of them."""
    mask = kept(lines, units, each) & wanted
    return max((mask & home(lines, units, u)).bit_count() for u in range(units))


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

ENTERING, LEAVING, PASSING = range(3)


class _Choice(NamedTuple):
    """Lines of every unit's block on chip: of maps read when a group starts, when it ends, of others meanwhile."""

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
    """A block, and all that has been found out about it.

    Attributes:
        price: what the time is worth in bytes that a cut takes longer than its layers by themselves.
    """

    block: Block
    cuts: Cuts
    price: Callable[[int], int]
    _ways: dict[Before, Ways] = field(default_factory=dict[Before, "Ways"])

    def ways(self, before: Before) -> Ways:
        """The ways to run it from what there is before it."""
        if before not in self._ways:
            self._ways[before] = Ways(self, before)
        return self._ways[before]

    @cached_property
    def first(self) -> int | None:
        """The cut (as a level) that moves fewest bytes of those that fit at all, when everything else is in DRAM."""
        return next(self.levels(), None)

    @cached_property
    def in_blocks(self) -> bool:
        """Whether it is only cut into blocks of columns, for strips alone do not fit."""
        return not self.block.by_rows or next(self._fitting(range(len(self.cuts.strips))), None) is None

    def levels(self) -> Iterator[int]:
        """The cuts that fit at all, without those that take as much memory as one that moves no more kernels."""
        return self._fitting(self._in_blocks if self.in_blocks else range(len(self.cuts.strips)))

    def _fitting(self, levels: Iterable[int]) -> Iterator[int]:
        least: int | None = None
        for level in levels:
            peak = self.cuts.bare(level, self.block.room)
            if peak is not None and (least is None or peak < least):
                least = peak
                yield level

    @cached_property
    def _in_blocks(self) -> tuple[int, ...]:
        """The cuts into blocks of columns that pay: those that move fewest kernels first."""
        cuts = self.cuts
        levels = (cuts.level(blocks, strips) for blocks, most in self._paying.items() for strips in range(most))
        return tuple(sorted(levels, key=lambda level: (self.kernels(level), sum(cuts.sections(level)), level)))

    @cached_property
    def _paying(self) -> dict[int, int]:
        """For every number of blocks of columns in how many strips it moves fewer bytes than the layers alone."""
        block, cuts = self.block, self.cuts
        needed = cuts.walk(0).needed
        fixed = sum(needed[m].bit_count() * block.loads[m] for m in block.inputs)
        fixed += sum(block.wanted[m][0].bit_count() * block.group.sizes[m] for m in self._only_wanted)
        spare, found = block.alone - fixed, dict[int, int]()
        for blocks in range(1, len(cuts.blocks)):
            levels = (cuts.level(blocks, strips) for strips in range(len(cuts.strips)))
            found[blocks] = sum(1 for _ in takewhile(lambda level: self.kernels(level) < spare, levels))
        return found

    @property
    def hopeless(self) -> bool:
        """Whether no cut fits, though some into blocks of columns would pay: no longer group is looked at then."""
        return self.first is None and any(self._paying.values())

    @property
    def _only_wanted(self) -> Iterator[int]:
        """Maps computed that are in DRAM only for layers behind the group."""
        return (m for m in self.block.group.later if m not in self.block.demanded)

    def kernels(self, level: int) -> int:
        """Bytes of kernels, of what has to be in DRAM in any case, and of what does not wait for the next strip; and
        what the time is worth."""
        if level not in self._kernels:
            moved = self.block.kernels_moved(self.cuts.sections(level)) + self.block.stored
            if self.block.group.spilled:
                moved += sum(mask.bit_count() * self.block.spills[m] for m, mask in self.cuts.walk(level).again.items())
            self._kernels[level] = moved + self.price(level)
        return self._kernels[level]

    @cached_property
    def _kernels(self) -> dict[int, int]:
        return {}

    def moved(self, level: int, loaded: Mapping[int, int]) -> int:
        """Bytes of kernels, of these lines of maps (or of their pieces), and of what has to be in DRAM in any case."""
        loads = self.cuts.walk(level).group.sizes if self.in_blocks else self.block.loads
        return self.kernels(level) + sum(lines.bit_count() * loads[m] for m, lines in loaded.items())

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
        rows = {m: block.wanted[m][0] for m in self._only_wanted}
        if not rows:
            return 0
        if self.in_blocks:
            return sum(lines.bit_count() * (group.sizes[m] + block.narrow[m]) for m, lines in rows.items())
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
            if best is not None and (self.in_blocks or self.kernels(level) >= best):
                # What a cut into blocks of columns moves beside kernels is the same for all.
                break
            best = self.least(level) if best is None else min(best, self.least(level))
        return best


@dataclass
class Ways:
    """The ways to run a block from what there is before it, found as far as somebody asks."""

    options: Options
    before: Before
    _made: dict[tuple[int, _Order], Way | None] = field(default_factory=dict[tuple[int, "_Order"], "Way | None"])

    @property
    def block(self) -> Block:
        """The block."""
        return self.options.block

    @property
    def cuts(self) -> Cuts:
        """Its cuts."""
        return self.options.cuts

    def cheap(self, missing: int, spare: int, few: int | None = None) -> Iterator[Way]:
        """The ways that may pay.

        Args:
            missing: bytes of what is wanted and not on chip when the group starts.
            spare: what a way moves, and what is missing behind it, has to be less; and no more than with everything
                on chip.
            few: so many cuts are tried to drop rows, those of the fewest strips; None: all.
        """
        tried: list[int] = []
        whole: Way | None = None
        for level in self.options.levels():
            if self.options.kernels(level) + missing >= spare:
                break
            if self.whole(level):
                whole = self._whole(level)
                yield whole
                break
            tried.append(level)
        for level in tried[:few]:
            if self.options.least(level) + missing < spare:
                yield from self._partly(level, spare, whole)

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
        for kind in order:
            there = self._there(kind)
            gone = min(excess, there * self._size(kind))
            moved += gone * self._cost(kind, missing) // self._size(kind)
            excess -= gone
        return moved

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
        return self.block.room - sum(self._others(choice))

    def _others(self, choice: _Choice) -> Iterator[int]:
        units = self.block.group.units
        return (self.before.passing[i].bytes(units, each) for i, each in choice.passing.items())

    def _fits(self, level: int, choice: _Choice) -> bool:
        room = self._room(choice)
        return room > 0 and self._run(level, choice, room).peak <= room

    def _run(self, level: int, choice: _Choice, room: int | None) -> Run:
        block = self.block
        used = self._used
        entering = tuple(sorted((m, block.mask(m, each) & used[m]) for m, each in choice.entering.items()))
        leaving = ((m, block.mask(m, each) & block.wanted[m][0]) for m, each in choice.leaving.items())
        return self.cuts.run(level, entering, tuple(sorted(leaving)), room)

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


def _bounds(size: int, each: int, ahead: int) -> tuple[int, ...]:
    """An axis cut into equal shares, of which the first is smaller by what the windows reach ahead."""
    first = each - ahead if ahead < each < size else each
    return *range(first, size, each), size


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
