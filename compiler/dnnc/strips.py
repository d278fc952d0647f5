"""A group of steps that run by strips of rows: its sections in execution order, and what each reads and computes.

A strip is some rows of what the group's last step computes, and of every other step as many as those take. All steps
run for one strip before the next begins, so that of what is computed and used inside the group only the rows in use
are on chip: halos stay there and are not computed again. Images follow one another. A group that is cut into blocks of
columns, too (``columns``), goes through all strips of a block before the next one begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby, product
from typing import NamedTuple

from dnnc.axis import readers, touched
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


@lru_cache(maxsize=65536)
def fullest(lines: int, units: int, each: int, wanted: int) -> int:
    """Lines that are wanted of the first ``each`` ones of every unit's block, in the unit that has most of them."""
    mask = kept(lines, units, each) & wanted
    return max((mask & home(lines, units, u)).bit_count() for u in range(units))


class Section(NamedTuple):
    """What one step does in one strip.

    Attributes:
        part: of the group; ``step``: its step, ``block``: its block of columns.
        image, strip: where it is.
        first, stop: rows of the step's output, in the image; ``columns``: likewise (first, stop).
        blocks: for every unit its (first, stop) rows; empty ones where the rows do not suffice.
        needs: (map, unit, lines) that it reads.
        output: for every unit the lines that it computes.
    """

    part: int
    step: int
    block: int
    columns: tuple[int, int]
    image: int
    strip: int
    first: int
    stop: int
    blocks: tuple[tuple[int, int], ...]
    needs: tuple[tuple[int, int, int], ...]
    output: tuple[int, ...]


class Reading(NamedTuple):
    """A map that a step reads: by which windows, and whether its words are read one for one."""

    map: int
    rows: Window
    columns: Window
    pointwise: bool


class Part(NamedTuple):
    """A step of a group, or what it does in one block of columns.

    Attributes:
        step: its position in the group; ``block``: of columns.
        rows: of its output, of one image; ``columns``: (first, stop) that it computes.
        outputs: the map that it computes, or the pieces of it.
        passing: bytes that a line of each output takes in a unit that only passes it on, tile by tile.
        sums: bytes of accumulators for a line of the output, and of what is handed over for it.
        ahead: the step that computes an operand tile by tile, each just before this step reads it; None if none does.
    """

    step: int
    block: int
    rows: int
    columns: tuple[int, int]
    reads: tuple[Reading, ...]
    outputs: tuple[int, ...]
    passing: tuple[int, ...]
    sums: int
    ahead: int | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that run in its sections."""
        return (self.step,) if self.ahead is None else (self.ahead, self.step)


@dataclass(frozen=True)
class Group:
    """Steps that run together, strip by strip; equal groups have equal plans.

    Attributes:
        parts: the steps; of a group that is cut into blocks of columns those of one block after the other.
        lines, sizes: of every map its lines, and the bytes of one; ``columns``: masks of the columns that it has.
        later: maps computed in the group that a step behind it reads, or that have to be in DRAM.
        images, units: images, and units that share the rows of a strip.
        whole: the same group before it was cut into blocks of columns; None if it is in one.
        of: the map of that one that every piece belongs to.
        spilled: maps computed in the group of which no line waits for the next strip: those that are read there, too,
            go to DRAM, and are loaded again.
    """

    parts: tuple[Part, ...]
    lines: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: tuple[int, ...]
    later: frozenset[int]
    images: int
    units: int
    whole: Group | None = None
    of: tuple[int, ...] = ()
    spilled: frozenset[int] = frozenset()

    @cached_property
    def strips_only(self) -> bool:
        """Whether it is cut into strips alone, for some of its maps go another way than as rows that wait."""
        return bool(self.spilled) or any(part.ahead is not None for part in self.parts)

    @cached_property
    def computed(self) -> dict[int, int]:
        """Maps computed, and the part that computes each."""
        return {m: i for i, part in enumerate(self.parts) for m in part.outputs}

    @cached_property
    def needed(self) -> dict[int, int]:
        """For every map the lines that the group reads."""
        found: dict[int, int] = {}
        for part in self.parts:
            for m, rows, _, _ in part.reads:
                for image in range(self.images):
                    found[m] = found.get(m, 0) | touched(rows, 0, part.rows) << image * rows.size
        return found

    @cached_property
    def passing(self) -> dict[int, int]:
        """Maps computed, and the bytes of a line that only passes through."""
        return {m: size for part in self.parts for m, size in zip(part.outputs, part.passing, strict=True)}

    @cached_property
    def _readers(self) -> tuple[tuple[tuple[int, Window, Window], ...], ...]:
        """For every part those in the group that read its output, by which windows of rows and columns."""
        out: list[list[tuple[int, Window, Window]]] = [[] for _ in self.parts]
        for i, part in enumerate(self.parts):
            for read in part.reads:
                if read.map in self.computed:
                    out[self.computed[read.map]].append((i, read.rows, read.columns))
        return tuple(tuple(dict.fromkeys(readers)) for readers in out)

    def cumulative(self, bounds: Sequence[int]) -> list[list[int]]:
        """For every part the rows computed by the end of each strip, where the last step's are ``bounds``."""
        key = tuple(bounds)
        if key not in self._cumulative:
            self._cumulative[key] = self._find_cumulative(bounds)
        return self._cumulative[key]

    @cached_property
    def _cumulative(self) -> dict[tuple[int, ...], list[list[int]]]:
        return {}

    def _find_cumulative(self, bounds: Sequence[int]) -> list[list[int]]:
        if self.whole:
            made = self.whole.cumulative(bounds)
            return [made[part.step] for part in self.parts]
        readers = [[(reader, _reach(rows)) for reader, rows, _ in of] for of in self._readers]
        return self._computed([part.rows for part in self.parts], readers, bounds)

    def cumulative_columns(self, bounds: Sequence[int]) -> list[list[int]]:
        """The same of a group in one block: for every step the columns computed by the end of each block."""
        readers = [[(reader, _reach(columns)) for reader, _, columns in of] for of in self._readers]
        return self._computed([part.columns[1] for part in self.parts], readers, bounds)

    def _computed(
        self, sizes: Sequence[int], readers: Sequence[Sequence[tuple[int, tuple[int, ...]]]], bounds: Sequence[int]
    ) -> list[list[int]]:
        """Along an axis of these sizes: what is computed of every part by each of the bounds on the last one's.

        Args:
            readers: for every part those that read it, and how much of it so much of theirs takes.
        """
        out: list[list[int]] = [[] for _ in self.parts]
        for i in reversed(range(len(self.parts))):
            size = sizes[i]
            own = not readers[i] or not self.later.isdisjoint(self.parts[i].outputs)
            made: list[int] = []
            for s, bound in enumerate(bounds[:-1]):
                need = -(-bound * size // sizes[-1]) if own else 0
                for reader, reach in readers[i]:
                    need = max(need, reach[out[reader][s]])
                made.append(min(size, max(need, made[-1] if made else 0)))
            out[i] = [*made, size]
        return out

    def sections(self, bounds: Sequence[int], blocks: int | None = None) -> Iterator[Section]:
        """The sections in execution order, or those of the first image in so many blocks of columns."""
        turn = [0] * len(self.parts)
        for where in self.steps(bounds):
            if blocks is not None and (where[1] or self.parts[where[0]].block >= blocks):
                return
            yield self._section(*where, turn)

    def steps(self, bounds: Sequence[int]) -> Iterator[tuple[int, int, int, int, int]]:
        """Part, image, strip, first row and the one behind the last, in execution order."""
        made = [*enumerate(self.cumulative(bounds))]
        blocks = [list(some) for _, some in groupby(made, key=lambda of: self.parts[of[0]].block)]
        for image, block, strip in product(range(self.images), blocks, range(len(bounds))):
            for i, rows in block:
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
        for m, rows, known in self._looks[i]:
            for unit, block in enumerate(blocks):
                if block[1] > block[0]:
                    if block not in known:
                        known[block] = touched(rows, *block)
                    needs.append((m, unit, known[block] << image * rows.size))
        at = i, part.step, part.block, part.columns, image, strip
        return Section(*at, first, stop, tuple(blocks), tuple(needs), tuple(output))

    @cached_property
    def touches(self) -> tuple[tuple[int, ...], ...]:
        """For every part the maps that it reads or computes."""
        return tuple(tuple(dict.fromkeys([*(read.map for read in part.reads), *part.outputs])) for part in self.parts)

    @cached_property
    def _looks(self) -> tuple[tuple[tuple[int, Window, dict[tuple[int, int], int]], ...], ...]:
        """For every part the maps that it reads, by which windows, and the rows touched as far as they are known."""
        return tuple(tuple((m, rows, _touches(rows)) for m, rows, _, _ in part.reads) for part in self.parts)

    @cached_property
    def homes(self) -> tuple[tuple[int, ...], ...]:
        """For every map the lines of every unit's block."""
        return tuple(tuple(home(lines, self.units, u) for u in range(self.units)) for lines in self.lines)

    @cached_property
    def overlays(self) -> dict[int, tuple[int, ...]]:
        """Maps computed, and those that each may be written over: read word for word, and of the same columns."""
        return {out: tuple(self._overlays(part, out)) for part in self.parts for out in part.outputs}

    def _overlays(self, part: Part, out: int) -> Iterator[int]:
        # What is also read through a window is still wanted when the first planes of the output are written.
        windowed = {read.map for read in part.reads if not read.pointwise}
        shape = self.sizes[out], self.columns[out]
        for m in dict.fromkeys(read.map for read in reversed(part.reads)):
            if m not in windowed and (self.sizes[m], self.columns[m]) == shape:
                yield m


@lru_cache(maxsize=1024)
def _reach(window: Window) -> tuple[int, ...]:
    """Rows (or columns) of the input, from the first, that so many of the output take."""
    return tuple(touched(window, 0, rows).bit_length() if rows else 0 for rows in range(window.out + 1))


@lru_cache(maxsize=1024)
def _touches(window: Window) -> dict[tuple[int, int], int]:
    """For rows of the output the rows that they touch: filled by whoever asks."""
    return {}


End = tuple[int, int, tuple[int, ...]]


class Visit(NamedTuple):
    """A section, and of the maps that it reads or computes the lines that later sections need.

    Attributes:
        ends: (map, lines needed later by any unit, and by each).
        made: (map computed, lines of it needed later, ends of the maps that it may be written over).
    """

    section: Section
    ends: tuple[End, ...]
    made: tuple[tuple[int, int, tuple[End, ...]], ...]


@dataclass(frozen=True)
class Walk:
    """A group's sections for one cut.

    Attributes:
        bounds: rows of the last step's output computed by the end of every strip.
        blocks: of columns that are gone through, of the first image, as if nobody had a copy of a row for later ones,
            which takes no more memory than all of them; None: all.
    """

    group: Group
    bounds: tuple[int, ...]
    blocks: int | None = None

    @cached_property
    def sections(self) -> tuple[int, ...]:
        """How many sections each step has."""
        counts: dict[int, int] = {}
        for part, rows in zip(self.group.parts, self.group.cumulative(self.bounds), strict=True):
            for step in part.steps:
                counts[step] = counts.get(step, 0) + len({*rows} - {0}) * self.group.images
        return tuple(counts[step] for step in sorted(counts))

    @property
    def needed(self) -> dict[int, int]:
        """For every map the lines that the group reads."""
        return self.group.needed

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """The sections in execution order."""
        group = self.group
        everyone = self._behind()
        each: dict[int, Masks] = {m: [0] * group.units for m in range(len(group.lines))}
        visits: list[Visit] = []
        spills = _Spills(self)
        for section in reversed(list(group.sections(self.bounds, self.blocks))):
            outputs = group.parts[section.part].outputs
            ends = {m: (m, everyone.get(m, 0), tuple(each[m])) for m in group.touches[section.part]}
            ends |= spills.ends(section, ends)
            made = tuple((m, ends[m][1], tuple(ends[o] for o in group.overlays[m])) for m in outputs)
            visits.append(Visit(section, tuple(ends.values()), made))
            for m, u, lines in section.needs:
                everyone[m] = everyone.get(m, 0) | lines
                each[m][u] |= lines
                spills.needed(m, lines)
        return tuple(reversed(visits))

    def made(self, m: int, image: int, strip: int) -> int:
        """The lines of a map computed in a strip."""
        rows = self.group.cumulative(self.bounds)[self.group.computed[m]]
        before = rows[strip - 1] if strip else 0
        return ((1 << rows[strip]) - (1 << before)) << image * self.group.parts[self.group.computed[m]].rows

    @cached_property
    def again(self) -> dict[int, int]:
        """Of maps that are spilled the lines that go to DRAM and are loaded again."""
        found: dict[int, int] = {}
        made = self.group.cumulative(self.bounds)
        for part, rows in zip(self.group.parts, made, strict=True):
            for m, window, _, _ in part.reads:
                if m in self.group.spilled:
                    found[m] = found.get(m, 0) | self._read_later(made[self.group.computed[m]], rows, window)
        return found

    def _read_later(self, computed: Sequence[int], reading: Sequence[int], window: Window) -> int:
        """The lines of a map that are read in a later strip than they are computed in.

        Args:
            computed, reading: rows of the map, and of what reads it, computed by the end of each strip.
        """
        mask = 0
        for line, (_, last) in readers(window).items():
            if bisect_right(reading, last) > bisect_right(computed, line):
                mask |= 1 << line
        return sum(mask << image * window.size for image in range(self.group.images))

    def _behind(self) -> dict[int, int]:
        """Of every map the lines of the first image that are needed in blocks that are not gone through."""
        found: dict[int, int] = {}
        for part in self.group.parts:
            for m, rows, _, _ in part.reads if self.blocks is not None and part.block >= self.blocks else ():
                found[m] = found.get(m, 0) | touched(rows, 0, part.rows)
        return found


@dataclass
class _Spills:
    """The sections of a group gone through backwards: which lines of maps that are spilled do not wait."""

    way: Walk
    _strip: tuple[int, int] = (-1, -1)
    _inside: dict[int, int] = field(default_factory=dict[int, int])

    def ends(self, section: Section, ends: Mapping[int, End]) -> dict[int, End]:
        """Of the maps that a section reads or computes the lines needed later, without those that do not wait."""
        if self._strip != (section.image, section.strip):
            self._strip, self._inside = (section.image, section.strip), {}
        found: dict[int, End] = {}
        for m in self.way.group.spilled & ends.keys():
            _, everyone, each = ends[m]
            keep = ~self.way.made(m, section.image, section.strip) | self._inside.get(m, 0)
            found[m] = m, everyone & keep, tuple(lines & keep for lines in each)
        return found

    def needed(self, m: int, lines: int) -> None:
        """Lines of a map are read in the section."""
        self._inside[m] = self._inside.get(m, 0) | lines


def walk(group: Group, bounds: Sequence[int]) -> Walk:
    """The sections of a group for one cut: rows of the last step's output computed by the end of every strip."""
    return Walk(group, tuple(bounds))
