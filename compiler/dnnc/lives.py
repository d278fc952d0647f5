"""How long every row of every feature map is on chip: what has to be given a place, before any has one.

A plan's segments are gone through once more, section by section, now with every row by itself. A *plot* is room for
one row in one unit's memory, from the section in which it is loaded, computed or received to the one that is the last
to need it. Where a step writes its output over an operand, the row has the operand's plot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from dnnc.axis import rows as lines_of
from dnnc.chip import Chip
from dnnc.grouping import Grouping, group_of
from dnnc.nests import Nested, nested
from dnnc.orders import mask_of
from dnnc.segments import Alone, Segment, Strips, staying
from dnnc.steps import Steps
from dnnc.strip_run import Event, run
from dnnc.strips import home, kept, walk


@dataclass(slots=True, eq=False)
class Plot:
    """Room for a row, or for a tile that only passes through, in one unit's memory.

    Attributes:
        unit: of the outermost level.
        start, end: first and last section that it is needed in.
        words: its size; ``pixel``: words of one of its pixels, of which a tile has those planes only that it is for.
        atom: what must not be torn apart, if nothing else helps: a word, a pixel, or all of it.
        columns: mask of the columns that it has, one after the other; 0 for all.
        granule: of a tile its words for the fewest planes that are computed at once; it may be given more of those.
        chunks: (words before, words, address) of each part of it, once it has a place.
    """

    unit: int
    start: int
    end: int
    words: int
    pixel: int
    atom: int = 1
    columns: int = 0
    chunks: tuple[tuple[int, int, int], ...] = ()
    granule: int = 0


Rows = dict[int, Plot]
"""Lines of a map in one unit's memory."""

Spot = tuple[int, int, int]
"""A map of the network, the mask of the columns that a piece of it has (0: all), and a unit."""


class Source(NamedTuple):
    """Lines that one unit gets, and from where.

    Attributes:
        map: of the network; ``unit``: that gets them; ``lines``: a mask; ``from_unit``: that sends them, -1: DRAM.
        there: where they lie at the sender.
        here: where they go.
    """

    map: int
    unit: int
    lines: int
    from_unit: int
    there: Rows
    here: Rows


@dataclass(slots=True)
class Scene:
    """One section of the program to be.

    Attributes:
        segment: number of the segment; ``step``: of the network, None for a layer that runs alone.
        ahead: the step that computes an operand of it tile by tile; None if none does.
        event: what happens, None for a layer that runs alone.
        fetched, sent: rows that come before it computes, and that go to their units' blocks after.
        rows: where everything lies that it reads or computes, by map, piece and unit.
        stage: the tiles of rows that only pass through, or are handed over, likewise; ``sums``: for every unit its
            accumulators.
        held: what is on chip when it ends.
        own: what the loop nest of a layer that runs alone with operands on chip holds, on a machine of one unit.
    """

    segment: int
    step: int | None
    event: Event | None
    fetched: tuple[Source, ...] = ()
    sent: tuple[Source, ...] = ()
    rows: Mapping[Spot, Rows] = field(default_factory=dict[Spot, Rows])
    stage: Mapping[Spot, Plot] = field(default_factory=dict[Spot, Plot])
    sums: Mapping[int, Plot] = field(default_factory=dict[int, Plot])
    held: tuple[Plot, ...] = ()
    own: Plot | None = None
    ahead: int | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that run in it, in order."""
        return tuple(step for step in (self.ahead, self.step) if step is not None)


@dataclass(frozen=True)
class Lives:
    """All sections of a plan, and everything that needs room.

    Attributes:
        reserved: for every section the words at the start of every unit's memory that something else takes.
        loaded: for every map the lines that are read from DRAM.
        nests: by segment the layers that run by themselves with operands on chip.
        staying: for every segment, and for the end, the lines of every map that are on chip when it starts.
    """

    scenes: tuple[Scene, ...]
    plots: tuple[Plot, ...]
    reserved: tuple[int, ...]
    groups: tuple[Grouping | None, ...]
    loaded: Mapping[int, int]
    nests: Mapping[int, Nested]
    staying: tuple[Mapping[int, int], ...]

    def of_segment(self, segment: int) -> tuple[Scene, ...]:
        """The sections of a segment."""
        return self._by_segment.get(segment, ())

    def begins(self, segment: int) -> int:
        """The number of a segment's first section."""
        return self._first[segment]

    @cached_property
    def _first(self) -> dict[int, int]:
        out: dict[int, int] = {}
        for number, scene in enumerate(self.scenes):
            out.setdefault(scene.segment, number)
        return out

    @cached_property
    def _by_segment(self) -> dict[int, tuple[Scene, ...]]:
        return {number: tuple(scenes) for number, scenes in groupby(self.scenes, key=lambda scene: scene.segment)}


def lives(steps: Steps, chip: Chip, segments: Sequence[Segment], alone: Sequence[tuple[int, int]]) -> Lives:
    """Goes through a plan.

    Args:
        alone: for every position the DRAM bytes of its layer by itself, and the bytes of feature maps in a unit.
    """
    return _Gathering(steps, chip, segments, alone).all()


@dataclass
class _Gathering:
    steps: Steps
    chip: Chip
    segments: Sequence[Segment]
    alone: Sequence[tuple[int, int]]
    scenes: list[Scene] = field(default_factory=list[Scene])
    plots: list[Plot] = field(default_factory=list[Plot])
    reserved: list[int] = field(default_factory=list[int])
    groups: list[Grouping | None] = field(default_factory=list["Grouping | None"])
    rows: dict[Spot, Rows] = field(default_factory=dict[Spot, Rows])
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    nests: dict[int, Nested] = field(default_factory=dict[int, Nested])
    done: int = 0

    def all(self) -> Lives:
        for number, segment in enumerate(self.segments):
            self._drop(self._before[number])
            self.done |= mask_of(segment.positions)
            if isinstance(segment, Strips):
                self._strips(number, segment)
            elif segment.schedule is None:
                self._alone(number, segment)
            else:
                self._nest(number, segment)
        return Lives(
            tuple(self.scenes), tuple(self.plots), tuple(self.reserved), tuple(self.groups), self.loaded, self.nests,
            self._before,
        )  # fmt: skip

    @cached_property
    def _before(self) -> tuple[Mapping[int, int], ...]:
        """For every segment, and for the end, the lines of every map that are on chip when it starts, for somebody."""
        maps, units, out, done = self.steps.maps, self.chip.units, list[Mapping[int, int]](), 0
        for segment, held in zip((*self.segments, None), staying(self.segments), strict=True):
            lines = ((m, kept(maps[m].lines, units, each) & self.steps.wanted(m, done)) for m, each in held.items())
            out.append({m: mask for m, mask in lines if mask})
            done |= mask_of(segment.positions) if segment else 0
        return tuple(out)

    @property
    def _now(self) -> int:
        return len(self.scenes)

    def _plot(self, unit: int, words: int, pixel: int, atom: int) -> Plot:
        plot = Plot(unit, self._now, self._now, words, pixel, atom)
        self.plots.append(plot)
        return plot

    def _drop(self, stay: Mapping[int, int]) -> None:
        """Between two segments: rows that nobody wants any more, and copies of rows that have their home elsewhere."""
        for (m, columns, unit), rows in list(self.rows.items()):
            lines = stay.get(m, 0) & home(self.steps.maps[m].lines, self.chip.units, unit)
            left = {line: plot for line, plot in rows.items() if lines >> line & 1}
            if left:
                self.rows[m, columns, unit] = left
            else:
                del self.rows[m, columns, unit]

    def _held(self) -> tuple[Plot, ...]:
        found = tuple(plot for rows in self.rows.values() for plot in rows.values())
        for plot in found:
            plot.end = self._now
        return found

    def _alone(self, number: int, segment: Alone) -> None:
        self.groups.append(None)
        position = segment.position
        word = self.chip.machine.word_bytes
        for m in dict.fromkeys(self.steps.reads[position]):
            self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(position, m)
        held = self._held()
        self.scenes.append(Scene(number, None, None, held=held))
        self.reserved.append(-(-self.alone[position][1] // word))

    def _nest(self, number: int, segment: Alone) -> None:
        """All rows of an output on chip have room while the layer runs; then those that stay."""
        self.groups.append(None)
        made = self.nests[number] = nested(self.steps, self.chip, segment)
        here = {m for maps in made.maps.values() for m in maps}
        for m in dict.fromkeys(self.steps.reads[segment.position]):
            if m not in here:
                self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        if "output" in made.maps:
            lines, units = self.steps.maps[made.output].lines, self.chip.units
            for unit in range(units):
                block = lines_of(home(lines, units, unit))
                rows = {line: self._row(unit, (made.output, 0)) for line in block}
                for plot in rows.values():
                    # Accumulators lie in the words that a pixel will take.
                    plot.atom = plot.pixel
                self.rows[made.output, 0, unit] = rows
        where = {spot: dict(rows) for spot, rows in self.rows.items() if spot[0] in here}
        words = -(-made.figures.memory[self.chip.memory] // self.chip.machine.word_bytes)
        # Where several units share rows, the nest has the same addresses in all of them.
        own = self._tile(0, words, 1) if self.chip.units == 1 and words else None
        self._held()
        self._drop(self._before[number + 1])
        held = tuple(plot for rows in self.rows.values() for plot in rows.values())
        self.scenes.append(Scene(number, None, None, rows=where, own=own, held=held))
        self.reserved.append(words if own is None else 0)

    def _strips(self, number: int, segment: Strips) -> None:
        grouping = group_of(self.steps, self.chip, segment)
        self.groups.append(grouping)
        local, units = grouping.local, self.chip.units
        entering = {local[m]: kept(self.steps.maps[m].lines, units, each) for m, each in segment.entering if m in local}
        leaving = {
            local[m]: kept(self.steps.maps[m].lines, units, each) & self.steps.wanted(m, self.done)
            for m, each in segment.leaving
            if m in local
        }
        for event in run(walk(grouping.group, segment.bounds), entering, leaving, record=True).events:
            self._section(number, grouping, event)

    def _section(self, number: int, grouping: Grouping, event: Event) -> None:
        section, pieces = event.section, grouping.pieces
        outputs = grouping.group.parts[section.part].outputs
        fetched = tuple(self._fetch(event, grouping))
        for m, out, unit, lines in event.over:
            rows, mine = self.rows[*pieces[m], unit], self.rows.setdefault((*pieces[out], unit), {})
            mine.update({line: rows[line] for line in lines_of(lines)})
        for out, unit, lines in event.rows:
            mine = self.rows.setdefault((*pieces[out], unit), {})
            mine.update({line: self._row(unit, pieces[out]) for line in lines_of(lines)})
        stage, sums = self._tiles(event, grouping)
        sent = tuple(self._sent(event, pieces))
        used = dict.fromkeys(pieces[m] for m in (*(m for m, _, _ in section.needs), *outputs))
        where = {(*piece, u): dict(self.rows.get((*piece, u), {})) for piece in used for u in range(self.chip.units)}
        self._held()
        for m, unit, lines in event.dead:
            mine = self.rows.get((*pieces[m], unit), {})
            for line in lines_of(lines):
                mine.pop(line, None)
        held = tuple(plot for mine in self.rows.values() for plot in mine.values())
        step, before = grouping.numbers[section.step], grouping.group.parts[section.part].ahead
        ahead = None if before is None else grouping.numbers[before]
        self.scenes.append(Scene(number, step, event, fetched, sent, where, stage, sums, held, ahead=ahead))
        self.reserved.append(-(-grouping.holding.maps // self.chip.machine.word_bytes))

    def _row(self, unit: int, piece: tuple[int, int], columns: int = 0) -> Plot:
        """Room for a row of a map or piece, of which only some columns may be there."""
        made, whole = self.steps.maps[piece[0]], piece[1]
        there = whole or columns
        plot = self._plot(unit, there.bit_count() * made.channels if there else made.words, made.channels, 1)
        plot.columns = there
        return plot

    def _sent(self, event: Event, pieces: Sequence[tuple[int, int]]) -> Iterator[Source]:
        for m, source, target, lines in event.homing:
            piece = pieces[m]
            there = {line: self.rows[*piece, source][line] for line in lines_of(lines)}
            mine = self.rows.setdefault((*piece, target), {})
            here = {line: mine.get(line) or self._row(target, piece) for line in there}
            mine.update(here)
            yield Source(piece[0], target, lines, source, there, here)

    def _fetch(self, event: Event, grouping: Grouping) -> Iterator[Source]:
        for m, unit, lines in event.loads:
            number, _ = piece = grouping.pieces[m]
            here = {line: self._row(unit, piece, grouping.touched(number)) for line in lines_of(lines)}
            self.rows.setdefault((*piece, unit), {}).update(here)
            self.loaded[number] = self.loaded.get(number, 0) | lines
            yield Source(number, unit, lines, -1, {}, here)
        for m, source, target, lines in event.moves:
            piece = grouping.pieces[m]
            there = {line: self.rows[*piece, source][line] for line in lines_of(lines)}
            here = {line: self._row(target, piece, plot.columns) for line, plot in there.items()}
            self.rows.setdefault((*piece, target), {}).update(here)
            yield Source(piece[0], target, lines, source, there, here)

    def _tile(self, unit: int, pixel: int, pixels: int) -> Plot:
        plot = self._plot(unit, pixels * pixel, pixel, pixel)
        plot.granule = plot.words
        return plot

    def _tiles(self, event: Event, grouping: Grouping) -> tuple[dict[Spot, Plot], dict[int, Plot]]:
        """Room for what only passes through, tile by tile, and for accumulators."""
        section = event.section
        cut = grouping.grains[section.step]
        first, stop = section.columns
        wide = self.chip.machine.accumulator_bytes // self.chip.machine.word_bytes
        stage: dict[Spot, Plot] = {}
        sums: dict[int, Plot] = {}
        for unit, block in enumerate(section.output):
            for out in grouping.group.parts[section.part].outputs:
                passing = block & ~with_rows(event, out, unit)
                if passing:
                    pixels = passing.bit_count() * grouping.group.columns[out].bit_count()
                    stage[*grouping.pieces[out], unit] = self._tile(unit, cut.passing, pixels)
            ahead = grouping.group.parts[section.part].ahead
            if block and ahead is not None:
                handed = self.steps.steps[grouping.numbers[ahead]].map
                stage[handed, 0, unit] = self._tile(unit, cut.passing, block.bit_count() * (stop - first))
            if block and cut.tile < cut.bytes:
                sums[unit] = self._tile(unit, cut.passing * wide, block.bit_count() * (stop - first))
        return stage, sums


def with_rows(event: Event, out: int, unit: int) -> int:
    """Lines of a map (or piece) that a unit computes and that have room as rows."""
    mask = 0
    for m, u, lines in event.rows:
        mask |= lines if (m, u) == (out, unit) else 0
    for _, m, u, lines in event.over:
        mask |= lines if (m, u) == (out, unit) else 0
    return mask
