"""Groups that run by strips, to instructions: rows fetched, kernels tile by tile, rows computed, stored and kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from typing import NamedTuple

from dnnc.axis import rows as lines_of
from dnnc.grouping import Grouping
from dnnc.kernels import Kernels, Tile
from dnnc.layer import Operand
from dnnc.lives import Plot, Rows, Scene, Source, with_rows
from dnnc.placement import merged
from dnnc.places import Range, axis, boxes, interval
from dnnc.realize import Realized
from dnnc.steps import FeatureMap, Read, Step, Steps
from dnnc.strip_regions import (
    by_image,
    channels_of,
    fetched,
    loaded_regions,
    loads,
    output_of,
    outputs,
    reader,
    regions,
)
from dnnc_runtime.program import Compute, Instruction, Kept, Load, Move, Part, Release, Role, Section, Store
from dnnc_runtime.tensor import Axis, Piece, Region, View, coordinates

Points = tuple[int, ...]
"""Rows or columns."""


class Box(NamedTuple):
    """Rows that lie evenly apart, or a part of one: the address at which its first pixel would begin if it were whole,
    words from row to row, and the part of the pixels that lies there."""

    points: tuple[Axis, Axis, Axis]
    address: int
    apart: int
    part: Range


class Lying(NamedTuple):
    """Lines of a map of an operand in a unit's memory."""

    view: View
    made: FeatureMap
    unit: int
    boxes: tuple[Box, ...]

    def pieces(self, tile: Tile | None = None) -> Iterator[Piece]:
        """All that lies there, or what a tile has of it."""
        channels, per_group = self.made.channels, self.view.shape[4]
        for points, address, apart, part in self.boxes:
            pitch = 0, apart, channels, per_group, 1
            for word, groups, planes in channels_of(self.made, self.view, tile and (tile.groups, tile.planes), part):
                yield Piece((self.unit,), address + word, pitch, (*points, groups, planes))


class Passing(NamedTuple):
    """Rows of an output in a unit that have room for a tile only."""

    plot: Plot
    image: int
    rows: Points
    columns: Points

    def pieces(self, tile: Tile) -> Iterator[Piece]:
        """Where a tile of them lies."""
        return _dense(self.plot, self.image, self.rows, self.columns, tile, 1)


class Places(NamedTuple):
    """Where everything is that a unit's parts of a section read and compute: the same for all tiles.

    Attributes:
        rows, columns: of an image, that it computes; ``points``: the image and these as axes of a region.
    """

    rows: Points
    columns: Points
    points: tuple[Axis, Axis, Axis]
    input: tuple[Piece, ...]
    others: tuple[tuple[Role, tuple[Lying | Passing, ...]], ...]
    output: tuple[Lying | Passing, ...]


class Work(NamedTuple):
    """What a step does in a scene: its number, its kernels, and for every unit its places."""

    number: int
    step: Step
    kernels: Kernels
    places: Sequence[tuple[int, Places]]


@dataclass
class StripEmitter:
    """Emits the sections of a plan's groups, in order."""

    plan: Realized
    _segment: int = -1
    _begun: set[int] = field(default_factory=set[int])
    _there: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    _turn: int = 0

    def sections(self, number: int) -> Iterator[Section]:
        """The section of a scene; where a step hands its tiles over, one for each of its tiles and one for the taker's,
        by turns."""
        scene = self.plan.lives.scenes[number]
        if scene.segment != self._segment:
            self._segment, self._begun, self._there, self._turn = scene.segment, set(), set(), 0
        works = [self._work(scene, of) for of in scene.steps]
        turns = [*self._turns(scene, works)]
        meanwhile = self.kept(number, meanwhile=True) if len(turns) > 1 else ()
        for turn, (work, instructions) in enumerate(turns, 1):
            layer = work.step.layer
            views: list[tuple[Role, View]] = [(operand.role, operand.view) for operand in layer.operands]
            kept = meanwhile if turn < len(turns) else self.kept(number)
            yield Section(layer.name, layer.kernel, tuple(views), instructions, work.kernels.cut.deal.mode, kept)

    def _turns(self, scene: Scene, works: Sequence[Work]) -> Iterator[tuple[Work, tuple[Instruction, ...]]]:
        """The steps of a scene in turn, and what each does."""
        *ahead, last = works
        if not ahead:
            computed = (of for tile in last.kernels.tiles for of in self._tile(scene, last, tile))
            yield last, (*self._begin(scene, last), *computed, *self._end(scene, last))
            return
        for turn, tiles in enumerate(zip(*(work.kernels.tiles for work in works), strict=True), 1):
            for work, tile in zip(works, tiles, strict=True):
                begin = self._begin(scene, work) if turn == 1 else ()
                mine = turn == len(last.kernels.tiles) and work is last
                end = self._end(scene, work) if mine else ()
                over = self._taken(ahead, tile) if work is last else ()
                yield work, (*begin, *self._tile(scene, work, tile), *over, *end)

    def kept(self, number: int, meanwhile: bool = False) -> tuple[Kept, ...]:
        """What is still on chip when a scene ends; or ``meanwhile``, while it has several sections."""
        scenes, chip = self.plan.lives.scenes, self.plan.chip
        scene = scenes[number]
        goes_on = meanwhile or (number + 1 < len(scenes) and scenes[number + 1].segment == scene.segment)
        kernels = self._kernels(scene, scene.step) if scene.step is not None and goes_on else None
        held = [*scene.held]
        if meanwhile:
            held += [plot for rows in scene.rows.values() for plot in rows.values()]
            held += scene.stage.values()
        # Of a memory so many words, from the first, are kernels and parameters.
        constants: dict[str, int] = {}
        if kernels:
            constants[chip.machine.memory_of("parameters").name] = kernels.apart
            constants[chip.machine.memory_of("weights").name] = kernels.stays
        out: list[Kept] = []
        for memory in chip.machine.memories:
            if constants.get(memory.name) and memory.name != chip.memory:
                stays = (0, constants[memory.name])
                out += [Kept(memory.name, unit, (stays,)) for unit in range(chip.machine.instances(memory))]
        for unit in range(chip.units):
            words = [(at, at + n) for plot in held if plot.unit == unit for _, n, at in plot.chunks]
            if constants.get(chip.memory):
                words.append((0, constants[chip.memory]))
            if words:
                out.append(Kept(chip.memory, unit, tuple(merged(words))))
        return tuple(out)

    @property
    def _steps(self) -> Steps:
        return self.plan.steps

    @property
    def _memory(self) -> str:
        return self.plan.chip.memory

    def _kernels(self, scene: Scene, step: int) -> Kernels:
        return self.plan.kernels[scene.segment][step]

    def _grouping(self, scene: Scene) -> Grouping:
        grouping = self.plan.lives.groups[scene.segment]
        assert grouping is not None
        return grouping

    # -- one section ----------------------------------------------------------------------------------------------

    def _work(self, scene: Scene, number: int) -> Work:
        assert scene.event is not None
        step = self._steps.steps[number]
        units = [unit for unit, block in enumerate(scene.event.section.output) if block]
        return Work(number, step, self._kernels(scene, number), [(u, self._places(scene, step, u)) for u in units])

    def _begin(self, scene: Scene, work: Work) -> Iterator[Instruction]:
        """Parameters, and rows that a step reads."""
        if work.kernels.place not in self._begun:
            self._begun.add(work.kernels.place)
            yield from work.kernels.load_parameters()
        yield from self._fetch(scene, work.step)

    def _tile(self, scene: Scene, work: Work, tile: Tile) -> Iterator[Instruction]:
        """A tile computed."""
        kernels, shape = work.kernels, work.step.layer.shape
        for c in kernels.channels() if shape.kind == "array" else ((0, shape.c),):
            base = tile.base
            if shape.kind == "array" and (kernels.place, tile.base) not in self._there:
                load, base = kernels.load(tile, c, self._turn)
                yield load
                if tile.stays:
                    self._there.add((kernels.place, tile.base))
                self._turn += not tile.stays
            ends = c[0] == 0, c[0] + c[1] == shape.c
            parts = tuple(self._part(scene, work, tile, c, base, unit, of, ends) for unit, of in work.places)
            yield Compute(parts, (c[0], c[0] + c[1]), *ends)
        if work.number == scene.step:
            yield from self._pass_on(scene, work.step, work.places, tile)

    def _taken(self, ahead: Sequence[Work], tile: Tile) -> Iterator[Instruction]:
        """A tile that was handed over goes."""
        for work in ahead:
            pieces = (piece for _, of in work.places for piece in _pieces_of(of.output, tile))
            yield Release(self._memory, "word", tuple(pieces))

    def _end(self, scene: Scene, work: Work) -> Iterator[Instruction]:
        """Rows computed go to DRAM, and to other units."""
        output = output_of(work.step)
        yield from self._store(scene, work.step, output)
        for source in scene.sent:
            yield self._move(source, output)

    def _places(self, scene: Scene, step: Step, unit: int) -> Places:
        assert scene.event is not None
        section = scene.event.section
        rows, columns = tuple(range(*section.blocks[unit])), tuple(range(*section.columns))
        points = interval((section.image, 1)), axis(rows), axis(columns)
        output = tuple(self._output(scene, step, unit))
        # What is written in place is the same object, so that its pieces are: there are many for every tile.
        others: list[tuple[Role, tuple[Lying | Passing, ...]]] = [
            (role, output if found == output else found) for role, found in self._others(scene, step, unit)
        ]
        return Places(rows, columns, points, tuple(self._input(scene, step, unit)), tuple(others), output)

    def _input(self, scene: Scene, step: Step, unit: int) -> Iterator[Piece]:
        assert scene.event is not None
        # A map may be read as a residual, too.
        wanted: dict[int, int] = {}
        for m, u, lines in scene.event.section.needs:
            if u == unit:
                wanted[m] = wanted.get(m, 0) | lines
        read = step.reads[0]
        operand = step.layer.operand("input")
        assert operand is not None
        assert read.role == "input"
        for m, piece in self._read(scene, wanted, read):
            yield from self._lying(operand, piece[0], unit, wanted[m], scene.rows[*piece, unit]).pieces()

    def _read(self, scene: Scene, needed: Collection[int], read: Read) -> Iterator[tuple[int, tuple[int, int]]]:
        """Of what a section needs that which belongs to an operand: by the group's number the map and its columns."""
        pieces = self._grouping(scene).pieces
        return ((m, pieces[m]) for of in read.maps for m in needed if pieces[m][0] == of)

    def _others(self, scene: Scene, step: Step, unit: int) -> Iterator[tuple[Role, tuple[Lying | Passing, ...]]]:
        """Residual and second operand: the output may be written over them, planes by planes."""
        for read in step.reads[1:]:
            yield read.role, tuple(self._other(scene, step, read, unit))

    def _other(self, scene: Scene, step: Step, read: Read, unit: int) -> Iterator[Lying | Passing]:
        assert scene.event is not None
        operand = step.layer.operand(read.role)
        assert operand is not None
        if scene.ahead is not None and self._steps.steps[scene.ahead].map in read.maps:
            yield self._handed(scene, unit)
            return
        lines = scene.event.section.output[unit]
        first, stop = scene.event.section.columns
        across = ((1 << stop - first) - 1) << first
        needed = dict.fromkeys(m for m, u, _ in scene.event.section.needs if u == unit)
        for _, (m, columns) in self._read(scene, needed, read):
            if not columns or columns & across:
                yield self._lying(operand, m, unit, lines, scene.rows[m, columns, unit])

    def _handed(self, scene: Scene, unit: int) -> Passing:
        """Where what is handed over lies, tile by tile."""
        assert scene.event is not None
        assert scene.ahead is not None
        section = scene.event.section
        plot = scene.stage[self._steps.steps[scene.ahead].map, 0, unit]
        return Passing(plot, section.image, tuple(range(*section.blocks[unit])), tuple(range(*section.columns)))

    def _part(
        self, scene: Scene, work: Work, tile: Tile, channels: Range, base: int, unit: int, places: Places,
        ends: tuple[bool, bool],
    ) -> Part:  # fmt: skip
        kernels, shape = work.kernels, work.step.layer.shape
        first, last = ends
        region = (*places.points, interval(tile.groups), interval(tile.planes))
        operands: list[tuple[Role, tuple[Piece, ...]]] = [("input", places.input)]
        if shape.kind == "array":
            operands.append(("weights", kernels.pieces(tile, channels, base, unit)))
        if not (first and last):
            operands.append(("accumulator", tuple(self._sums(scene, tile, unit, places))))
        if last:
            output = _pieces_of(places.output, tile)
            for role, found in places.others:
                operands.append((role, output if found is places.output else _pieces_of(found, tile)))
            operands.extend((role, kernels.parameter_pieces(role, tile, unit)) for role in kernels.roles)
            operands.append(("output", output))
        return Part(region, tuple(operands))

    def _sums(self, scene: Scene, tile: Tile, unit: int, places: Places) -> Iterator[Piece]:
        assert scene.event is not None
        wide = self.plan.chip.machine.accumulator_bytes // self.plan.chip.machine.word_bytes
        return _dense(scene.sums[unit], scene.event.section.image, places.rows, places.columns, tile, wide)

    def _output(self, scene: Scene, step: Step, unit: int) -> Iterator[Lying | Passing]:
        """Where what a unit computes goes: rows that stay (or take an operand's place), and the others."""
        assert scene.event is not None
        if scene.ahead is not None and step is self._steps.steps[scene.ahead]:
            yield self._handed(scene, unit)
            return
        output = output_of(step)
        block = scene.event.section.output[unit]
        for out, columns in outputs(self._grouping(scene), scene):
            rows = with_rows(scene.event, out, unit)
            yield self._lying(output, step.map, unit, block & rows, scene.rows[step.map, columns, unit])
            if block & ~rows:
                shape, image = step.layer.shape, scene.event.section.image
                passing = tuple(line - image * shape.y.out for line in lines_of(block & ~rows))
                across = tuple(lines_of(columns)) if columns else tuple(range(shape.x.out))
                yield Passing(scene.stage[step.map, columns, unit], image, passing, across)

    def _pass_on(
        self, scene: Scene, step: Step, places: Sequence[tuple[int, Places]], tile: Tile
    ) -> Iterator[Instruction]:  # fmt: skip
        """What only passes through goes to DRAM; what nobody reads is dropped."""
        assert scene.event is not None
        wanted: list[Region] = []
        stored: list[Piece] = []
        dropped: list[Piece] = []
        going = self._goes(step, scene.event.section.image)
        for passing in (found for _, of in places for found in of.output if isinstance(found, Passing)):
            rows, across = passing.rows, passing.columns
            wanted += (_region(passing.image, run, across, tile) for run, goes in _runs(rows, going) if goes)
            for piece in passing.pieces(tile):
                for run, goes in _split(piece, going):
                    (stored if goes else dropped).append(run)
        if stored:
            yield Store("output", self._memory, "word", tuple(wanted), tuple(stored))
        if dropped:
            yield Release(self._memory, "word", tuple(dropped))

    def _goes(self, step: Step, image: int) -> int:
        """Mask of the rows of an image that go to DRAM."""
        rows = step.layer.shape.y.out
        return self.plan.stored.get(step.map, 0) >> image * rows & ((1 << rows) - 1)

    def _store(self, scene: Scene, step: Step, output: Operand) -> Iterator[Instruction]:
        """The rows that have room go to DRAM at once; those that neither go nor stay are dropped."""
        assert scene.event is not None
        held = {id(plot) for plot in scene.held}
        wanted: list[Region] = []
        stored: list[Piece] = []
        dropped: list[Piece] = []
        for unit, (out, columns) in product(range(self.plan.chip.units), outputs(self._grouping(scene), scene)):
            rows = scene.rows[step.map, columns, unit]
            own = with_rows(scene.event, out, unit) & scene.event.section.output[unit]
            going = own & self.plan.stored.get(step.map, 0)
            if going:
                stored += self._pieces(output, step.map, unit, going, rows)
                wanted += regions(self._steps.maps[step.map], output.view, going, columns)
            lost = 0
            for line in lines_of(own & ~going):
                if id(rows[line]) not in held:
                    lost |= 1 << line
            sent = 0
            for source in scene.sent:
                sent |= source.lines if source.from_unit == unit else 0
            if lost & ~sent:
                dropped += self._pieces(output, step.map, unit, lost & ~sent, rows)
        if stored:
            yield Store("output", self._memory, "word", tuple(wanted), tuple(stored))
        if dropped:
            yield Release(self._memory, "word", tuple(dropped))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _fetch(self, scene: Scene, step: Step) -> Iterator[Instruction]:
        """Rows that come from DRAM or from other units."""
        for operand, some in loads(self._steps, step, scene):
            found = [self._pieces(operand, s.map, s.unit, s.lines, s.here) for s in some]
            pieces = tuple(piece for pieces in found for piece in pieces)
            wanted = tuple(loaded_regions(self._steps, operand, some))
            yield Load(operand.role, self._memory, "word", wanted, pieces)
        for source in fetched(self._steps, step, scene):
            if source.from_unit >= 0:
                yield self._move(source, reader(step, source.map))

    def _move(self, source: Source, operand: Operand) -> Move:
        """Rows from one unit to another."""
        there: list[Piece] = []
        here: list[Piece] = []
        for line in lines_of(source.lines):
            one, two = {line: source.there[line]}, {line: source.here[line]}
            pair = _alike(one[line], two[line])
            there += self._pieces(operand, source.map, source.from_unit, 1 << line, {line: pair[0]})
            here += self._pieces(operand, source.map, source.unit, 1 << line, {line: pair[1]})
        return Move(operand.role, self._memory, "word", tuple(there), tuple(here))

    def _pieces(self, operand: Operand, m: int, unit: int, lines: int, rows: Rows) -> Iterator[Piece]:
        """Where lines of a map lie in a unit's memory."""
        return self._lying(operand, m, unit, lines, rows).pieces()

    def _lying(self, operand: Operand, m: int, unit: int, lines: int, rows: Rows) -> Lying:
        """Where lines of a map lie in a unit's memory: rows that lie evenly apart together."""
        made = self._steps.maps[m]
        found: list[Box] = []
        for image, some in by_image(made, lines):
            plots = [rows[image * made.geometry.rows + row] for row in some]
            for first, stop in _even(plots):
                found += _boxes(made, image, some[first:stop], plots[first:stop])
        return Lying(operand.view, made, unit, tuple(found))


def _pieces_of(found: Sequence[Lying | Passing], tile: Tile) -> tuple[Piece, ...]:
    return tuple(piece for of in found for piece in of.pieces(tile))


def _boxes(made: FeatureMap, image: int, rows: Points, plots: Sequence[Plot]) -> Iterator[Box]:
    """Rows that lie evenly apart, in one part but for a single row that is torn."""
    apart = plots[1].chunks[0][2] - plots[0].chunks[0][2] if len(plots) > 1 else 0
    columns = tuple(lines_of(plots[0].columns)) if plots[0].columns else tuple(range(made.geometry.columns))
    for before, words, address in plots[0].chunks:
        for (first, count), part in boxes(before, words, made.channels):
            some = columns[first : first + count]
            if some:
                points = interval((image, 1)), axis(rows), axis(some)
                yield Box(points, address + first * made.channels - before, apart, part)


def _even(plots: Sequence[Plot]) -> Iterator[tuple[int, int]]:
    """Runs of rows that are whole, of the same columns, and evenly apart."""
    first = 0
    while first < len(plots):
        stop = first + 1
        whole = len(plots[first].chunks) == 1
        while whole and stop < len(plots) and _goes_on(plots, first, stop):
            stop += 1
        yield first, stop
        first = stop


def _goes_on(plots: Sequence[Plot], first: int, at: int) -> bool:
    here, before = plots[at], plots[at - 1]
    if len(here.chunks) != 1 or here.columns != before.columns:
        return False
    step = here.chunks[0][2] - before.chunks[0][2]
    # Pitches are not negative.
    return step > 0 and (at == first + 1 or step == before.chunks[0][2] - plots[at - 2].chunks[0][2])


def _alike(one: Plot, two: Plot) -> tuple[Plot, Plot]:
    """Two rows torn at the same words, so that their pieces correspond."""
    cuts = sorted({first for plot in (one, two) for first, _, _ in plot.chunks})
    return _cut(one, cuts), _cut(two, cuts)


def _cut(plot: Plot, cuts: Sequence[int]) -> Plot:
    chunks: list[tuple[int, int, int]] = []
    for first, count, address in plot.chunks:
        inside = [cut for cut in cuts if first <= cut < first + count]
        for start, stop in zip(inside, [*inside[1:], first + count], strict=True):
            chunks.append((start, stop - start, address + start - first))
    return replace(plot, chunks=tuple(chunks))


def _region(image: int, rows: Points, columns: Points, tile: Tile) -> Region:
    return interval((image, 1)), axis(rows), axis(columns), interval(tile.groups), interval(tile.planes)


def _dense(
    plot: Plot, image: int, rows: Points, columns: Points, tile: Tile, words: int
) -> Iterator[Piece]:  # fmt: skip
    """Where a tile lies densely in a plot, so many words apart: rows, columns, planes."""
    planes = tile.groups[1] * tile.planes[1] * words
    pitch = 0, len(columns) * planes, planes, tile.planes[1] * words, words
    for before, taken, address in plot.chunks:
        at = before // plot.pixel
        for (row, many), (column, wide) in boxes(at, taken // plot.pixel, len(columns)):
            region = _region(image, rows[row : row + many], columns[column : column + wide], tile)
            yield Piece((plot.unit,), address + (row * len(columns) + column - at) * planes, pitch, region)


def _split(piece: Piece, going: int) -> Iterator[tuple[Piece, bool]]:
    """A piece row by row in runs that go to DRAM, and that do not."""
    n, rows, *rest = piece.region
    at = 0
    for points, goes in _runs(coordinates(rows), going):
        region: Region = (n, axis(points), *rest)
        yield Piece(piece.instances, piece.base + at * piece.pitch[1], piece.pitch, region), goes
        at += len(points)


def _runs(rows: Points, going: int) -> Iterator[tuple[Points, bool]]:
    """Rows in runs that go to DRAM, and that do not."""
    for goes, some in groupby(rows, key=lambda row: bool(going >> row & 1)):
        yield tuple(some), goes
