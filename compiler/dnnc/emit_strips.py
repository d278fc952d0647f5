"""Groups that run by strips, to instructions: rows fetched, kernels tile by tile, rows computed, stored and kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import NamedTuple

from dnnc.axis import rows as lines_of
from dnnc.grouping import Grouping
from dnnc.kernels import Kernels, Tile
from dnnc.layer import Operand
from dnnc.lives import Plot, Rows, Scene, Source, with_rows
from dnnc.places import Range, axis, interval
from dnnc.realize import Realized
from dnnc.steps import FeatureMap, Read, Step, Steps
from dnnc.strip_regions import by_image, channels_of, loaded_regions, loads, output_of, outputs, reader, regions
from dnnc_runtime.program import Compute, Instruction, Kept, Load, Move, Part, Release, Role, Section, Store
from dnnc_runtime.tensor import Axis, Piece, Region, View, span


@dataclass
class StripEmitter:
    """Emits the sections of a plan's groups, in order."""

    plan: Realized
    _segment: int = -1
    _begun: set[int] = field(default_factory=set[int])
    _there: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    _turn: int = 0

    def section(self, number: int) -> Section:
        """The section of a scene."""
        scene = self.plan.lives.scenes[number]
        assert scene.step is not None
        if scene.segment != self._segment:
            self._segment, self._begun, self._there, self._turn = scene.segment, set(), set(), 0
        step = self._steps.steps[scene.step]
        views: list[tuple[Role, View]] = [(operand.role, operand.view) for operand in step.layer.operands]
        mode = self._kernels(scene).cut.deal.mode
        instructions = tuple(self._instructions(scene, step))
        return Section(step.layer.name, step.layer.kernel, tuple(views), instructions, mode, self.kept(number))

    def kept(self, number: int) -> tuple[Kept, ...]:
        """What is still on chip when a section ends."""
        scenes, chip = self.plan.lives.scenes, self.plan.chip
        scene = scenes[number]
        goes_on = number + 1 < len(scenes) and scenes[number + 1].segment == scene.segment
        stays = self._kernels(scene).stays if scene.step is not None and goes_on else 0
        weights = chip.machine.memory_of("weights")
        apart = weights.name != chip.memory
        out: list[Kept] = []
        if stays and apart:
            out += [Kept(weights.name, unit, ((0, stays),)) for unit in range(chip.machine.instances(weights))]
        for unit in range(chip.units):
            words = [(at, at + n * plot.pixel) for plot in scene.held if plot.unit == unit for _, n, at in plot.chunks]
            if stays and not apart:
                words.append((0, stays))
            if words:
                out.append(Kept(chip.memory, unit, tuple(merged(words))))
        return tuple(out)

    @property
    def _steps(self) -> Steps:
        return self.plan.steps

    @property
    def _memory(self) -> str:
        return self.plan.chip.memory

    def _kernels(self, scene: Scene) -> Kernels:
        assert scene.step is not None
        return self.plan.kernels[scene.segment][scene.step]

    def _grouping(self, scene: Scene) -> Grouping:
        grouping = self.plan.lives.groups[scene.segment]
        assert grouping is not None
        return grouping

    # -- one section ----------------------------------------------------------------------------------------------

    def _instructions(self, scene: Scene, step: Step) -> Iterator[Instruction]:
        assert scene.step is not None
        assert scene.event is not None
        kernels = self._kernels(scene)
        if scene.step not in self._begun:
            self._begun.add(scene.step)
            yield from kernels.load_parameters()
        yield from self._fetch(scene, step)
        shares = [
            self._share(scene, step, unit) for unit, block in enumerate(scene.event.section.output) if block
        ]  # fmt: skip
        channels = list(kernels.channels()) if step.layer.shape.kind == "array" else [(0, step.layer.shape.c)]
        for tile in kernels.tiles:
            for c in channels:
                base = tile.base
                if step.layer.shape.kind == "array" and (scene.step, tile.base) not in self._there:
                    load, base = kernels.load(tile, c, self._turn)
                    yield load
                    if tile.stays:
                        self._there.add((scene.step, tile.base))
                    self._turn += not tile.stays
                first, last = c[0] == 0, c[0] + c[1] == step.layer.shape.c
                parts = tuple([self._part(scene, kernels, tile, c, base, share, (first, last)) for share in shares])
                yield Compute(parts, (c[0], c[0] + c[1]), first, last)
            yield from self._pass_on(self._goes(step, scene.event.section.image), shares, tile)
        yield from self._store(scene, step, output_of(step))
        for source in scene.sent:
            yield self._move(source, output_of(step))

    def _share(self, scene: Scene, step: Step, unit: int) -> _Share:
        """A unit's share of a section."""
        assert scene.event is not None
        section = scene.event.section
        (start, stop), (first, end) = section.blocks[unit], section.columns
        axes = interval((section.image, 1)), interval((start, stop - start)), interval((first, end - first))
        targets: list[_Lines | _Staged] = []
        output, block = output_of(step), section.output[unit]
        for out, columns in outputs(self._grouping(scene), scene):
            stay = block & with_rows(scene.event, out, unit)
            if stay:
                targets.append(self._lines(output, step.map, unit, stay, scene.rows[step.map, columns, unit]))
            if block & ~stay:
                targets.append(self._staged(scene, step, unit, columns, block & ~stay))
        return _Share(
            unit, axes, self._input(scene, step, unit), tuple(self._others(scene, step, unit)), tuple(targets)
        )

    def _input(self, scene: Scene, step: Step, unit: int) -> tuple[Piece, ...]:
        """The input of a unit's part: the same for all tiles."""
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
        found = (
            self._lines(operand, piece[0], unit, wanted[m], scene.rows[*piece, unit]).pieces()
            for m, piece in self._read(scene, wanted, read)
        )
        return tuple(piece for pieces in found for piece in pieces)

    def _read(self, scene: Scene, needed: Collection[int], read: Read) -> Iterator[tuple[int, tuple[int, int]]]:
        """Of what a section needs that which belongs to an operand: by the group's number the map and its columns."""
        pieces = self._grouping(scene).pieces
        return ((m, pieces[m]) for of in read.maps for m in needed if pieces[m][0] == of)

    def _others(self, scene: Scene, step: Step, unit: int) -> Iterator[tuple[Role, tuple[_Lines, ...]]]:
        """Residual and second operand: the output may be written over them, planes by planes."""
        assert scene.event is not None
        lines = scene.event.section.output[unit]
        first, stop = scene.event.section.columns
        across = ((1 << stop - first) - 1) << first
        needed = dict.fromkeys(m for m, u, _ in scene.event.section.needs if u == unit)
        for read in step.reads[1:]:
            operand = step.layer.operand(read.role)
            assert operand is not None
            yield (
                read.role,
                tuple(
                    self._lines(operand, m, unit, lines, scene.rows[m, columns, unit])
                    for _, (m, columns) in self._read(scene, needed, read)
                    if not columns or columns & across
                ),
            )

    def _part(
        self, scene: Scene, kernels: Kernels, tile: Tile, channels: Range, base: int, share: _Share,
        ends: tuple[bool, bool],
    ) -> Part:  # fmt: skip
        first, last = ends
        region: Region = (*share.axes, interval(tile.groups), interval(tile.planes))
        operands: list[tuple[Role, tuple[Piece, ...]]] = [("input", share.input)]
        if kernels.layer.shape.kind == "array":
            operands.append(("weights", kernels.pieces(tile, channels, base, share.unit)))
        if not (first and last):
            operands.append(("accumulator", (self._sums(scene, tile, share.unit, region),)))
        if last:
            operands.extend((role, _of_tile(lines, tile)) for role, lines in share.others)
            operands.extend((role, kernels.parameter_pieces(role, tile, share.unit)) for role in kernels.roles)
            operands.append(("output", _of_tile(share.targets, tile)))
        return Part(region, tuple(operands))

    def _sums(self, scene: Scene, tile: Tile, unit: int, region: Region) -> Piece:
        assert scene.event is not None
        first, stop = scene.event.section.columns
        wide = self.plan.chip.machine.accumulator_bytes // self.plan.chip.machine.word_bytes
        return _dense(scene.sums[unit], unit, region, stop - first, tile, wide)

    def _staged(self, scene: Scene, step: Step, unit: int, columns: int, passing: int) -> _Staged:
        """Rows that only pass through."""
        assert scene.event is not None
        shape, image = step.layer.shape, scene.event.section.image
        base = image * shape.y.out
        rows = axis(tuple(line - base for line in lines_of(passing)))
        across = axis(tuple(lines_of(columns))) if columns else span(0, shape.x.out)
        plot = scene.stage[step.map, columns, unit]
        return _Staged(plot, unit, (interval((image, 1)), rows, across), columns.bit_count() or shape.x.out)

    def _pass_on(self, going: int, shares: Sequence[_Share], tile: Tile) -> Iterator[Instruction]:
        """What only passes through goes to DRAM; what nobody reads is dropped."""
        stored: list[Piece] = []
        dropped: list[Piece] = []
        for share in shares:
            for target in share.targets:
                if isinstance(target, _Staged):
                    for whole in target.pieces(tile):
                        for run, goes in _runs(whole, going):
                            (stored if goes else dropped).append(run)
        if stored:
            yield Store("output", self._memory, "word", tuple(piece.region for piece in stored), tuple(stored))
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
                stored += self._lines(output, step.map, unit, going, rows).pieces()
                wanted += regions(self._steps.maps[step.map], output.view, going, columns)
            lost = 0
            for line in lines_of(own & ~going):
                if id(rows[line]) not in held:
                    lost |= 1 << line
            sent = 0
            for source in scene.sent:
                sent |= source.lines if source.from_unit == unit else 0
            if lost & ~sent:
                dropped += self._lines(output, step.map, unit, lost & ~sent, rows).pieces()
        if stored:
            yield Store("output", self._memory, "word", tuple(wanted), tuple(stored))
        if dropped:
            yield Release(self._memory, "word", tuple(dropped))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _fetch(self, scene: Scene, step: Step) -> Iterator[Instruction]:
        """Rows that come from DRAM or from other units."""
        for operand, some in loads(step, scene):
            found = [self._lines(operand, s.map, s.unit, s.lines, s.here).pieces() for s in some]
            pieces = tuple(piece for pieces in found for piece in pieces)
            wanted = tuple(loaded_regions(self._steps, operand, some))
            yield Load(operand.role, self._memory, "word", wanted, pieces)
        for source in scene.fetched:
            if source.from_unit >= 0:
                yield self._move(source, reader(step, source.map))

    def _move(self, source: Source, operand: Operand) -> Move:
        """Rows from one unit to another."""
        there: list[Piece] = []
        here: list[Piece] = []
        for line in lines_of(source.lines):
            one, two = {line: source.there[line]}, {line: source.here[line]}
            pair = _alike(one[line], two[line])
            there += self._lines(operand, source.map, source.from_unit, 1 << line, {line: pair[0]}).pieces()
            here += self._lines(operand, source.map, source.unit, 1 << line, {line: pair[1]}).pieces()
        return Move(operand.role, self._memory, "word", tuple(there), tuple(here))

    def _lines(self, operand: Operand, m: int, unit: int, lines: int, rows: Rows) -> _Lines:
        """Where lines of a map lie in a unit's memory: rows that lie evenly apart together."""
        made = self._steps.maps[m]
        boxes: list[_Box] = []
        for image, some in by_image(made, lines):
            plots = [rows[image * made.geometry.rows + row] for row in some]
            for first, stop in _even(plots):
                boxes += _boxes(made, image, some[first:stop], plots[first:stop])
        return _Lines(made, operand.view, unit, tuple(boxes))


class _Box(NamedTuple):
    """Rows and columns of an image that lie evenly: the address of the first, and the words from row to row."""

    axes: tuple[Axis, Axis, Axis]
    address: int
    apart: int


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines of a map in a unit's memory, for an operand."""

    made: FeatureMap
    view: View
    unit: int
    boxes: tuple[_Box, ...]

    def pieces(self, tile: Tile | None = None) -> Iterator[Piece]:
        """Where they lie, or what a tile has of them."""
        per_group, pixel = self.view.shape[4], self.made.channels
        parts = [
            (word, interval(groups), interval(channels))
            for word, groups, channels in channels_of(self.made, self.view, tile and (tile.groups, tile.planes))
        ]
        for axes, address, apart in self.boxes:
            for word, groups, channels in parts:
                yield Piece((self.unit,), address + word, (0, apart, pixel, per_group, 1), (*axes, groups, channels))


@dataclass(frozen=True, slots=True)
class _Staged:
    """Rows that only pass through a unit's memory, tile by tile: their axes, and how many columns they have."""

    plot: Plot
    unit: int
    axes: tuple[Axis, Axis, Axis]
    columns: int

    def pieces(self, tile: Tile) -> Iterator[Piece]:
        """Where a tile of them lies."""
        region: Region = (*self.axes, interval(tile.groups), interval(tile.planes))
        yield _dense(self.plot, self.unit, region, self.columns, tile, 1)


@dataclass(frozen=True, slots=True)
class _Share:
    """A unit's share of a section, whatever the tile.

    Attributes:
        axes: image, rows and columns that are computed.
        input: the same for all tiles; ``others``: residual and second operand.
        targets: where the output goes: rows that stay (or take an operand's place), and the others.
    """

    unit: int
    axes: tuple[Axis, Axis, Axis]
    input: tuple[Piece, ...]
    others: tuple[tuple[Role, tuple[_Lines, ...]], ...]
    targets: tuple[_Lines | _Staged, ...]


def _of_tile(some: Sequence[_Lines | _Staged], tile: Tile) -> tuple[Piece, ...]:
    return tuple([piece for lines in some for piece in lines.pieces(tile)])


def _boxes(made: FeatureMap, image: int, rows: tuple[int, ...], plots: Sequence[Plot]) -> Iterator[_Box]:
    """Rows that lie evenly apart, chunk by chunk."""
    apart = plots[1].chunks[0][2] - plots[0].chunks[0][2] if len(plots) > 1 else 0
    columns = tuple(lines_of(plots[0].columns)) if plots[0].columns else tuple(range(made.geometry.columns))
    for before, count, address in plots[0].chunks:
        some = columns[before : before + count]
        if some:
            yield _Box((interval((image, 1)), axis(rows), axis(some)), address, apart)


def merged(words: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of words in ascending order, those that touch as one."""
    first, end = -1, -1
    for start, stop in sorted(words):
        if start > end:
            if first >= 0:
                yield first, end
            first, end = start, stop
        else:
            end = max(end, stop)
    if first >= 0:
        yield first, end


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
    """Two rows torn at the same pixels, so that their pieces correspond."""
    cuts = sorted({first for plot in (one, two) for first, _, _ in plot.chunks})
    return _cut(one, cuts), _cut(two, cuts)


def _cut(plot: Plot, cuts: Sequence[int]) -> Plot:
    chunks: list[tuple[int, int, int]] = []
    for first, count, address in plot.chunks:
        inside = [cut for cut in cuts if first <= cut < first + count]
        for start, stop in zip(inside, [*inside[1:], first + count], strict=True):
            chunks.append((start, stop - start, address + (start - first) * plot.pixel))
    return Plot(plot.unit, plot.start, plot.end, plot.words, plot.pixel, plot.columns, tuple(chunks))


def _dense(plot: Plot, unit: int, region: Region, columns: int, tile: Tile, words: int) -> Piece:
    """A region laid out densely from a plot's start: rows, columns, planes of a tile."""
    planes = tile.groups[1] * tile.planes[1] * words
    pitch = 0, columns * planes, planes, tile.planes[1] * words, words
    return Piece((unit,), plot.chunks[0][2], pitch, region)


def _runs(piece: Piece, going: int) -> Iterator[tuple[Piece, bool]]:
    """A piece row by row in runs that go to DRAM, and that do not."""
    n, rows, *rest = piece.region
    listed = [point for run in rows for point in run.coordinates()]
    at = 0
    for goes, some in groupby(listed, key=lambda row: bool(going >> row & 1)):
        points = tuple(some)
        region: Region = (n, axis(points), *rest)
        yield Piece(piece.instances, piece.base + at * piece.pitch[1], piece.pitch, region), goes
        at += len(points)
