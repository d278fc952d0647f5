"""A group of steps run by strips of rows: which rows are where, from when to when, in every unit's memory.

A strip is some rows of what the group's last step computes, and of every other step as many as those take. All steps
run for one strip before the next begins, so that of what is computed and used inside the group only the rows in use
are on chip: halos stay there and are not computed again. Images follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from dnnc.axis import touched
from dnnc_runtime.program import Window

Masks = list[int]
"""For every unit a mask of lines."""


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
    def _readers(self) -> tuple[tuple[tuple[int, Window], ...], ...]:
        """For every step the steps in the group that read its map, and how."""
        out: list[list[tuple[int, Window]]] = [[] for _ in self.parts]
        for i, part in enumerate(self.parts):
            for read in part.reads:
                if read.map in self.computed:
                    out[self.computed[read.map]].append((i, read.rows))
        return tuple(tuple(readers) for readers in out)

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
                for reader, window in self._readers[i]:
                    need = max(need, _reached(window, out[reader][s]))
                made.append(min(rows, max(need, made[-1] if made else 0)))
            out[i] = [*made, rows]
        return out

    def sections(self, bounds: Sequence[int]) -> Iterator[Section]:
        """The sections in execution order."""
        made = self.cumulative(bounds)
        turn = [0] * len(self.parts)
        for image in range(self.images):
            for strip in range(len(bounds)):
                for i in range(len(self.parts)):
                    first, stop = made[i][strip - 1] if strip else 0, made[i][strip]
                    if stop > first:
                        yield self._section(i, image, strip, first, stop, turn)

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
    def overlays(self) -> tuple[tuple[int, ...], ...]:
        """For every step the maps that it may write its output over: read word for word, and as large."""
        return tuple(_overlays(part, self.sizes) for part in self.parts)


def _overlays(part: Part, sizes: Sequence[int]) -> tuple[int, ...]:
    # What is also read through a window is still wanted when the first planes of the output are written.
    windowed = {read.map for read in part.reads if not read.pointwise}
    alike = (read.map for read in reversed(part.reads) if read.pointwise and sizes[read.map] == sizes[part.output])
    return tuple(dict.fromkeys(m for m in alike if m not in windowed))


def _reached(window: Window, rows: int) -> int:
    """Rows of the input, from the first, that the first rows of the output take."""
    return touched(window, 0, rows).bit_length() if rows else 0


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
        visits: the sections in execution order.
        sections: how many each step has.
        needed: for every map the lines that the group reads.
    """

    group: Group
    visits: tuple[Visit, ...]
    sections: tuple[int, ...]
    needed: dict[int, int]


def walk(group: Group, bounds: Sequence[int]) -> Walk:
    """The sections of a group for one cut: rows of the last step's output computed by the end of every strip."""
    sections = list(group.sections(bounds))
    everyone: dict[int, int] = {}
    each: dict[int, Masks] = {m: [0] * group.units for m in range(len(group.lines))}
    visits: list[Visit] = []
    for section in reversed(sections):
        output = group.parts[section.step].output
        maps = dict.fromkeys([m for m, _, _ in section.needs] + [output])
        ends = tuple((m, everyone.get(m, 0), tuple(each[m])) for m in maps)
        over = tuple(end for m in group.overlays[section.step] for end in ends if end[0] == m)
        visits.append(Visit(section, output, ends, over))
        for m, u, lines in section.needs:
            everyone[m] = everyone.get(m, 0) | lines
            each[m][u] |= lines
    visits.reverse()
    count = [0] * len(group.parts)
    for section in sections:
        count[section.step] += 1
    return Walk(group, tuple(visits), tuple(count), everyone)


@dataclass(slots=True)
class Run:
    """A group's strips gone through once.

    Attributes:
        peak: bytes in the fullest unit's memory at the fullest moment; ``at``: the section of that moment.
        loaded: for every map the lines loaded from DRAM.
    """

    peak: int = 0
    at: int = 0
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    events: list[Event] = field(default_factory=list[Event])
    moments: list[Moment] = field(default_factory=list["Moment"])


class Moment(NamedTuple):
    """A section of a run.

    Attributes:
        full: bytes in every unit's memory.
        seen: for every map that is watched the lines computed or loaded by then; ``present``: those in every unit.
    """

    full: tuple[int, ...]
    seen: tuple[int, ...]
    present: tuple[tuple[int, ...], ...]


def run(
    way: Walk,
    entering: Mapping[int, int],
    leaving: Mapping[int, int],
    record: bool = False,
    watch: Sequence[int] = (),
) -> Run:
    """Goes through a group's sections.

    Args:
        entering: lines of maps that are on chip when the group starts, every unit its block of each.
        leaving: lines of maps that have to be on chip when it ends; else what nobody in the group needs any more goes.
        record: whether to list what happens.
        watch: maps to note section by section.
    """
    group, found = way.group, Run()
    seen = [0] * len(group.lines)
    units, sizes = range(group.units), group.sizes
    present: list[Masks] = [[0] * group.units for _ in sizes]
    for m, mask in entering.items():
        present[m] = [mask & home(group.lines[m], group.units, u) for u in units]
    homes = [list(masks) for masks in present]
    held = [sum(present[m][u].bit_count() * sizes[m] for m in entering) for u in units]
    found.peak = max(held)
    for t, (section, out, ends, overlays) in enumerate(way.visits):
        part = group.parts[section.step]
        loads: list[tuple[int, int, int]] = []
        moves: list[tuple[int, int, int, int]] = []
        for m, u, lines in section.needs:
            miss = lines & ~present[m][u]
            if miss:
                _fetch(m, u, miss, present, homes, loads, moves)
                held[u] += miss.bit_count() * sizes[m]
        for m, _, lines in loads:
            found.loaded[m] = found.loaded.get(m, 0) | lines
        stay = ends[-1][1] | leaving.get(out, 0)
        over: list[tuple[int, int, int]] = []
        rows: list[tuple[int, int]] = []
        extra = [0] * group.units
        for u, block in enumerate(section.output):
            if not block:
                continue
            seen[out] |= block
            free = 0
            for m, still, of_unit in overlays:
                keep = (homes[m][u] & (still | leaving.get(m, 0))) | of_unit[u]
                lines = present[m][u] & ~keep & block & ~free
                if lines:
                    free |= lines
                    over.append((m, u, lines))
            room = block & ~free & stay
            if room:
                rows.append((u, room))
                held[u] += room.bit_count() * sizes[out]
            present[out][u] |= room | free
            homes[out][u] |= block
            extra[u] = block.bit_count() * part.sums + (block & ~free & ~stay).bit_count() * part.passing
        homing: list[tuple[int, int, int, int]] = []
        if group.units > 1 and out in leaving:
            homing = _to_homes(group, out, leaving[out], section, present[out], homes[out], held)
        full = [bytes_held + more for bytes_held, more in zip(held, extra, strict=True)]
        if max(full) > found.peak:
            found.peak, found.at = max(full), t
        if watch:
            for m, _, lines in section.needs:
                seen[m] |= lines
            now = Moment(tuple(full), tuple(seen[m] for m in watch), tuple(tuple(present[m]) for m in watch))
            found.moments.append(now)
        dead: list[tuple[int, int, int]] = []
        for m, still, of_unit in ends:
            stays, mine, own = still | leaving.get(m, 0), present[m], homes[m]
            for u in units:
                gone = mine[u] & ~((own[u] & stays) | of_unit[u])
                if gone:
                    mine[u] &= ~gone
                    own[u] &= ~gone
                    dead.append((m, u, gone))
                    held[u] -= gone.bit_count() * sizes[m]
        for m, u, lines in over:
            held[u] += lines.bit_count() * sizes[m]
        if record:
            what = (tuple(loads), tuple(moves), tuple(homing), tuple(over), tuple(rows), tuple(dead))
            found.events.append(Event(section, *what))
    return found


def estimate(
    group: Group,
    moments: Sequence[Moment],
    watch: Sequence[int],
    entering: Mapping[int, int],
    leaving: Mapping[int, int],
) -> int:
    """About the peak of a run with rows on chip before or behind it, from the moments of one without.

    Not exact: where rows stay, nothing is written over them, and what else only passes through becomes a row.
    """
    held: list[tuple[int, int, int, bool, bool]] = []
    for i, m in enumerate(watch):
        lines = entering.get(m, 0) | leaving.get(m, 0)
        if lines:
            held.append((i, lines, group.sizes[m], m in entering, m in leaving))
    own = [[home(group.lines[watch[i]], group.units, u) & lines for u in range(group.units)] for i, lines, *_ in held]
    peak = 0
    for full, seen, present in moments:
        for u in range(group.units):
            total = full[u]
            for (i, _, size, enters, leaves), mine in zip(held, own, strict=True):
                absent = mine[u] & ~present[i][u]
                if not enters:
                    absent &= seen[i]
                elif not leaves:
                    absent &= ~seen[i]
                total += absent.bit_count() * size
            peak = max(peak, total)
    return peak


def _fetch(
    m: int, unit: int, miss: int, present: list[Masks], homes: list[Masks],
    loads: list[tuple[int, int, int]], moves: list[tuple[int, int, int, int]],
) -> None:  # fmt: skip
    """Brings lines to a unit that needs them: from another unit that has them, else from DRAM."""
    mine = present[m]
    for other, theirs in enumerate(mine):
        there = miss & theirs
        if there and other != unit:
            moves.append((m, other, unit, there))
            mine[unit] |= there
            miss &= ~there
    if miss:
        loads.append((m, unit, miss))
        homes[m][unit] |= miss
        mine[unit] |= miss


def _to_homes(
    group: Group, out: int, leaving: int, section: Section, own: Masks, at_home: Masks, held: list[int]
) -> list[tuple[int, int, int, int]]:
    """Lines that stay behind the group go to the units whose block of the map they are in."""
    found: list[tuple[int, int, int, int]] = []
    for u, block in enumerate(section.output):
        stay = block & leaving
        for v in range(group.units) if stay else ():
            sent = stay & home(group.lines[out], group.units, v)
            if not sent or v == u:
                continue
            found.append((out, u, v, sent))
            held[v] += (sent & ~own[v]).bit_count() * group.sizes[out]
            own[v] |= sent
            at_home[v] |= sent
            at_home[u] &= ~sent
    return found
