"""A group of steps run by strips of rows: which rows are where, from when to when, in every unit's memory.

A strip is some rows of what the group's last step computes, and of every other step as many as those take. All steps
run for one strip before the next begins, so that of what is computed and used inside the group only the rows in use
are on chip: halos stay there and are not computed again. Images follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from dnnc.axis import touched
from dnnc_runtime.program import Window

Masks = list[int]
"""For every unit a mask of lines."""


@lru_cache(maxsize=65536)
def kept(lines: int, units: int, each: int) -> int:
    """The mask of lines of a map that are on chip if every unit keeps the first ``each`` lines of its block."""
    block = -(-lines // units)
    mask = 0
    for first in range(0, lines, block):
        count = min(each, block, lines - first)
        mask |= ((1 << count) - 1) << first
    return mask


def home(lines: int, units: int, unit: int) -> int:
    """The mask of lines of a unit's block of a map."""
    block = -(-lines // units)
    first = min(unit * block, lines)
    return ((1 << (min(first + block, lines) - first)) - 1) << first


class Section(NamedTuple):
    """What one step does in one strip.

    Attributes:
        step: position in the group; image and strip: where it is.
        first, stop: rows of the step's output, in the image.
        blocks: for every unit its (first, stop) rows; empty ones where the rows do not suffice.
        needs: (map, unit, lines) that it reads.
        output: for every unit the lines that it computes.
    """

    step: int
    image: int
    strip: int
    first: int
    stop: int
    blocks: tuple[tuple[int, int], ...]
    needs: tuple[tuple[int, int, int], ...]
    output: tuple[int, ...]


class Event(NamedTuple):
    """What happens in a section, map by map and unit by unit.

    Attributes:
        loads: (map, unit, lines) loaded from DRAM.
        moves: (map, from, to, lines) sent before the section computes; ``homing``: after it has.
        over: (map read, unit, lines): lines of the output that are written over those of an operand.
        rows: (unit, lines) of the output that get room as rows; the rest is only passed on to DRAM, or dead.
        dead: (map, unit, lines) that end with the section.
    """

    section: Section
    loads: tuple[tuple[int, int, int], ...]
    moves: tuple[tuple[int, int, int, int], ...]
    homing: tuple[tuple[int, int, int, int], ...]
    over: tuple[tuple[int, int, int], ...]
    rows: tuple[tuple[int, int], ...]
    dead: tuple[tuple[int, int, int], ...]


class Reading(NamedTuple):
    """A map that a step reads: by which window of its rows, and whether its words are read one for one."""

    map: int
    rows: Window
    pointwise: bool


class Part(NamedTuple):
    """A step of a group.

    Attributes:
        rows: of its output, of one image; ``output``: the map.
        passing: bytes that a line of the output takes in a unit that only passes it on, tile by tile.
        sums: bytes of accumulators for a line of the output.
    """

    rows: int
    reads: tuple[Reading, ...]
    output: int
    passing: int
    sums: int


@dataclass(frozen=True)
class Group:
    """Steps that run together, strip by strip; equal groups have equal plans.

    Attributes:
        parts: the steps.
        lines, sizes: of every map its lines, and the bytes of one.
        later: maps computed in the group that a step behind it reads, or that have to be in DRAM.
        images, units: images, and units that share the rows of a strip.
    """

    parts: tuple[Part, ...]
    lines: tuple[int, ...]
    sizes: tuple[int, ...]
    later: frozenset[int]
    images: int
    units: int

    @cached_property
    def computed(self) -> dict[int, int]:
        """Maps computed, and the step that computes each."""
        return {part.output: i for i, part in enumerate(self.parts)}

    @cached_property
    def _readers(self) -> tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]:
        """For every step the steps in the group that read its map, and how many rows some of theirs take."""
        out: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in self.parts]
        for i, part in enumerate(self.parts):
            for read in part.reads:
                if read.map in self.computed:
                    out[self.computed[read.map]].append((i, _reach(read.rows)))
        return tuple(tuple(dict.fromkeys(readers)) for readers in out)

    def cumulative(self, bounds: Sequence[int]) -> list[list[int]]:
        """For every step the rows computed by the end of each strip, where the last step's are ``bounds``."""
        count, last = len(bounds), self.parts[-1].rows
        out: list[list[int]] = [[] for _ in self.parts]
        for i in reversed(range(len(self.parts))):
            rows = self.parts[i].rows
            own = not self._readers[i] or self.parts[i].output in self.later
            made: list[int] = []
            for s in range(count - 1):
                need = -(-bounds[s] * rows // last) if own else 0
                for reader, reach in self._readers[i]:
                    need = max(need, reach[out[reader][s]])
                made.append(min(rows, max(need, made[-1] if made else 0)))
            out[i] = [*made, rows]
        return out

    def sections(self, bounds: Sequence[int]) -> Iterator[Section]:
        """The sections in execution order."""
        turn = [0] * len(self.parts)
        for where in self.steps(bounds):
            yield self._section(*where, turn)

    def steps(self, bounds: Sequence[int]) -> Iterator[tuple[int, int, int, int, int]]:
        """Step, image, strip, first row and the one behind the last, in execution order."""
        made = self.cumulative(bounds)
        for image in range(self.images):
            for strip in range(len(bounds)):
                for i, rows in enumerate(made):
                    first, stop = rows[strip - 1] if strip else 0, rows[strip]
                    if stop > first:
                        yield i, image, strip, first, stop

    def _section(self, i: int, image: int, strip: int, first: int, stop: int, turn: list[int]) -> Section:
        part, units = self.parts[i], self.units
        size = -(-(stop - first) // units)
        blocks = [(stop, stop)] * units
        output = [0] * units
        base = image * part.rows
        for start in range(first, stop, size):
            unit = turn[i] % units
            turn[i] += 1
            end = min(start + size, stop)
            blocks[unit] = (start, end)
            output[unit] = ((1 << (end - start)) - 1) << (base + start)
        needs: list[tuple[int, int, int]] = []
        for m, rows, _ in part.reads:
            for unit, (start, end) in enumerate(blocks):
                if end > start:
                    needs.append((m, unit, touched(rows, start, end) << image * rows.size))
        return Section(i, image, strip, first, stop, tuple(blocks), tuple(needs), tuple(output))

    @cached_property
    def homes(self) -> tuple[tuple[int, ...], ...]:
        """For every map the lines of every unit's block."""
        return tuple(tuple(home(lines, self.units, u) for u in range(self.units)) for lines in self.lines)

    @cached_property
    def overlays(self) -> tuple[tuple[int, ...], ...]:
        """For every step the maps that it may write its output over: read word for word, and as large."""
        return tuple(_overlays(part, self.sizes) for part in self.parts)


def _overlays(part: Part, sizes: Sequence[int]) -> tuple[int, ...]:
    # What is also read through a window is still wanted when the first planes of the output are written.
    windowed = {read.map for read in part.reads if not read.pointwise}
    alike = (read.map for read in reversed(part.reads) if read.pointwise and sizes[read.map] == sizes[part.output])
    return tuple(dict.fromkeys(m for m in alike if m not in windowed))


@lru_cache(maxsize=1024)
def _reach(window: Window) -> tuple[int, ...]:
    """Rows of the input, from the first, that so many rows of the output take."""
    return tuple(touched(window, 0, rows).bit_length() if rows else 0 for rows in range(window.out + 1))


class Visit(NamedTuple):
    """A section, and of the maps that it reads or computes the lines that later sections need.

    Attributes:
        ends: (map, lines needed later by any unit, and by each).
        over: the maps that the output may be written over, with the same.
    """

    section: Section
    output: int
    ends: tuple[tuple[int, int, tuple[int, ...]], ...]
    over: tuple[tuple[int, int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Walk:
    """A group's sections for one cut.

    Attributes:
        bounds: rows of the last step's output computed by the end of every strip.
    """

    group: Group
    bounds: tuple[int, ...]

    @cached_property
    def sections(self) -> tuple[int, ...]:
        """How many sections each step has."""
        made = self.group.cumulative(self.bounds)
        return tuple(len({*rows} - {0}) * self.group.images for rows in made)

    @cached_property
    def needed(self) -> dict[int, int]:
        """For every map the lines that the group reads."""
        found: dict[int, int] = {}
        for part in self.group.parts:
            for m, rows, _ in part.reads:
                for image in range(self.group.images):
                    found[m] = found.get(m, 0) | touched(rows, 0, part.rows) << image * rows.size
        return found

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """The sections in execution order."""
        group = self.group
        everyone: dict[int, int] = {}
        each: dict[int, Masks] = {m: [0] * group.units for m in range(len(group.lines))}
        visits: list[Visit] = []
        for section in reversed(list(group.sections(self.bounds))):
            output = group.parts[section.step].output
            maps = dict.fromkeys([m for m, _, _ in section.needs] + [output])
            ends = tuple((m, everyone.get(m, 0), tuple(each[m])) for m in maps)
            over = tuple(end for m in group.overlays[section.step] for end in ends if end[0] == m)
            visits.append(Visit(section, output, ends, over))
            for m, u, lines in section.needs:
                everyone[m] = everyone.get(m, 0) | lines
                each[m][u] |= lines
        return tuple(reversed(visits))


def walk(group: Group, bounds: Sequence[int]) -> Walk:
    """The sections of a group for one cut: rows of the last step's output computed by the end of every strip."""
    return Walk(group, tuple(bounds))


@dataclass(slots=True)
class Run:
    """A group's strips gone through once.

    Attributes:
        peak: bytes in the fullest unit's memory at the fullest moment.
        loaded: for every map the lines loaded from DRAM.
        whole: whether it was gone through to the end: a run may stop where there is no room for it.
    """

    peak: int = 0
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    events: list[Event] = field(default_factory=list[Event])
    whole: bool = True


def run(
    way: Walk,
    entering: Mapping[int, int],
    leaving: Mapping[int, int],
    record: bool = False,
    room: int | None = None,
) -> Run:
    """Goes through a group's sections.

    Args:
        entering: lines of maps that are on chip when the group starts, every unit its block of each.
        leaving: lines of maps that have to be on chip when it ends; else what nobody in the group needs any more goes.
        record: whether to list what happens.
        room: bytes of a unit's memory; where more is taken, the run stops.
    """
    group, found = way.group, Run()
    units = range(group.units)
    nothing = [0] * group.units
    present = [
        [entering[m] & block for block in homes] if m in entering else nothing[:] for m, homes in enumerate(group.homes)
    ]
    held = [sum(mine[u].bit_count() * size for mine, size in zip(present, group.sizes, strict=True)) for u in units]
    found.peak = max(held)
    running = _Running(group, leaving, present, [list(masks) for masks in present], held)
    for visit in way.visits:
        event, full = running.through(visit)
        found.peak = max(found.peak, full)
        for m, _, lines in event.loads:
            found.loaded[m] = found.loaded.get(m, 0) | lines
        if record:
            found.events.append(event)
        if room is not None and full > room:
            found.whole = False
            break
    return found


_Lines = list[tuple[int, int, int]]
_Moves = list[tuple[int, int, int, int]]


@dataclass(slots=True)
class _Running:
    """What is on chip in the course of a run.

    Attributes:
        present: of every map the lines in every unit; ``homes``: those that are not only sent there for a while.
        held: bytes in every unit.
    """

    group: Group
    leaving: Mapping[int, int]
    present: list[Masks]
    homes: list[Masks]
    held: Masks

    def through(self, visit: Visit) -> tuple[Event, int]:
        """Goes through a section: what happens, and the bytes in the fullest unit at its fullest moment."""
        group, section, out = self.group, visit.section, visit.output
        loads: _Lines = []
        moves: _Moves = []
        for m, u, lines in section.needs:
            miss = lines & ~self.present[m][u]
            if miss:
                self._fetch(m, u, miss, loads, moves)
        over, rows, extra = self._compute(visit)
        homing = self._to_homes(section, out) if group.units > 1 and out in self.leaving else ()
        full = max(held + more for held, more in zip(self.held, extra, strict=True))
        dead = self._end(visit)
        for m, u, lines in over:
            self.held[u] += lines.bit_count() * group.sizes[m]
        return Event(section, tuple(loads), tuple(moves), tuple(homing), tuple(over), tuple(rows), tuple(dead)), full

    def _fetch(self, m: int, unit: int, miss: int, loads: _Lines, moves: _Moves) -> None:
        """Brings lines to a unit that needs them: from another unit that has them, else from DRAM."""
        self.held[unit] += miss.bit_count() * self.group.sizes[m]
        mine = self.present[m]
        for other, theirs in enumerate(mine):
            there = miss & theirs
            if there:
                moves.append((m, other, unit, there))
                mine[unit] |= there
                miss &= ~there
        if miss:
            loads.append((m, unit, miss))
            self.homes[m][unit] |= miss
            mine[unit] |= miss

    def _compute(self, visit: Visit) -> tuple[_Lines, list[tuple[int, int]], Masks]:
        """Room for what is computed: over an operand, as rows, or as tiles that pass, with bytes of those."""
        group, out = self.group, visit.output
        part = group.parts[visit.section.step]
        stay = visit.ends[-1][1] | self.leaving.get(out, 0)
        over: _Lines = []
        rows: list[tuple[int, int]] = []
        extra = [0] * group.units
        for u, block in enumerate(visit.section.output):
            left = block
            for m, still, of_unit in visit.over if block else ():
                keep = (self.homes[m][u] & (still | self.leaving.get(m, 0))) | of_unit[u]
                lines = self.present[m][u] & ~keep & left
                if lines:
                    left &= ~lines
                    over.append((m, u, lines))
            room = left & stay
            if room:
                rows.append((u, room))
                self.held[u] += room.bit_count() * group.sizes[out]
            self.present[out][u] |= room | (block & ~left)
            self.homes[out][u] |= block
            extra[u] = block.bit_count() * part.sums + (left & ~stay).bit_count() * part.passing
        return over, rows, extra

    def _to_homes(self, section: Section, out: int) -> _Moves:
        """Lines that stay behind the group go to the units whose block of the map they are in."""
        group, leaving = self.group, self.leaving[out]
        own, at_home = self.present[out], self.homes[out]
        found: _Moves = []
        for u, block in enumerate(section.output):
            stay = block & leaving
            for v, block_of in enumerate(group.homes[out]) if stay else ():
                sent = stay & block_of
                if not sent or v == u:
                    continue
                found.append((out, u, v, sent))
                self.held[v] += (sent & ~own[v]).bit_count() * group.sizes[out]
                own[v] |= sent
                at_home[v] |= sent
                at_home[u] &= ~sent
        return found

    def _end(self, visit: Visit) -> _Lines:
        """What nobody needs any more goes."""
        dead: _Lines = []
        for m, still, of_unit in visit.ends:
            stays, mine, own = still | self.leaving.get(m, 0), self.present[m], self.homes[m]
            for u in range(self.group.units):
                if mine[u] and (gone := mine[u] & ~((own[u] & stays) | of_unit[u])):
                    mine[u] &= ~gone
                    own[u] &= ~gone
                    dead.append((m, u, gone))
                    self.held[u] -= gone.bit_count() * self.group.sizes[m]
        return dead
