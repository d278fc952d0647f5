"""What a section of a group reads and writes in DRAM: lines of feature maps as regions of its operands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from dnnc.axis import rows as lines_of
from dnnc.emit_planes import Box, clip
from dnnc.grouping import Grouping
from dnnc.kernels import Tile
from dnnc.layer import Operand
from dnnc.lives import Scene, Source, with_rows
from dnnc.places import Range, axis, boxes, interval
from dnnc.steps import FeatureMap, Step, Steps
from dnnc_runtime.tensor import Axis, Region, View, span


def output_of(step: Step) -> Operand:
    """A step's output."""
    return next(operand for operand in step.layer.operands if operand.role == "output")


def reader(step: Step, m: int) -> Operand:
    """The operand of a step that a map belongs to."""
    role = next(read.role for read in step.reads if m in read.maps)
    return next(operand for operand in step.layer.operands if operand.role == role)


def first_channel(made: FeatureMap, view: View) -> int:
    """The channel of an operand at which a map begins."""
    return 0 if made.why else made.first - view.offset


def by_image(made: FeatureMap, lines: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Lines as (image, rows)."""
    rows = made.geometry.rows
    for image in range(made.geometry.images):
        mask = lines >> image * rows & ((1 << rows) - 1)
        if mask:
            yield image, tuple(lines_of(mask))


def channels_of(
    made: FeatureMap, view: View, of: Box | None = None, part: Range | None = None
) -> tuple[tuple[int, Axis, Axis], ...]:
    """(word in a pixel of the map, groups, channels) of a map's part of an operand, or of what a box has of it.

    Args:
        part: the words of a pixel that are asked for; all of them unless given.
    """
    return _channels(view.shape[4], first_channel(made, view), part or (0, made.channels), of)


@lru_cache(maxsize=65536)
def _channels(per_group: int, before: int, part: Range, of: Box | None) -> tuple[tuple[int, Axis, Axis], ...]:
    out: list[tuple[int, Axis, Axis]] = []
    for box in boxes(before + part[0], part[1], per_group):
        wanted = clip(box, of) if of else box
        if wanted:
            groups, channels = wanted
            out.append((groups[0] * per_group + channels[0] - before, interval(groups), interval(channels)))
    return tuple(out)


def regions(made: FeatureMap, view: View, lines: int, columns: int = 0, tile: Tile | None = None) -> Iterator[Region]:
    """Lines of a map as regions of an operand.

    Args:
        columns: mask of columns; 0 for all.
    """
    across: Axis = axis(tuple(lines_of(columns))) if columns else span(0, made.geometry.columns)
    for image, rows in by_image(made, lines):
        for _, groups, channels in channels_of(made, view, tile and (tile.groups, tile.planes)):
            yield interval((image, 1)), axis(rows), across, groups, channels


def whole_lines(made: FeatureMap, view: View, lines: int) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Lines of a map as (image, rows, columns) of a view, which may have one axis of pixels in place of both."""
    wide = made.geometry.columns
    for image, rows in by_image(made, lines):
        if view.shape[1:3] == made.geometry[1:3]:
            yield image, rows, tuple(range(wide))
        else:
            yield image, tuple(pixel for row in rows for pixel in range(row * wide, (row + 1) * wide)), (0,)


def whole_regions(made: FeatureMap, view: View, lines: int) -> Iterator[Region]:
    """The same as regions of all channels."""
    for image, rows, columns in whole_lines(made, view, lines):
        yield interval((image, 1)), axis(rows), axis(columns), span(0, view.shape[3]), span(0, view.shape[4])


def fetched(steps: Steps, step: Step, scene: Scene) -> Iterator[Source]:
    """What comes before a step of a section computes; what the one ahead of it reads, too, is there by then."""
    first = steps.steps[scene.steps[0]]
    there = () if step is first else _maps(first)
    return (source for source in scene.fetched if source.map in _maps(step) and source.map not in there)


def _maps(step: Step) -> tuple[int, ...]:
    return tuple(m for read in step.reads for m in read.maps)


def loads(steps: Steps, step: Step, scene: Scene) -> Iterator[tuple[Operand, tuple[Source, ...]]]:
    """What a step of a section loads, map by map: the operand that a map belongs to, and who gets which lines."""
    from_dram = (source for source in fetched(steps, step, scene) if source.from_unit < 0)
    for m, sources in groupby(from_dram, key=lambda source: source.map):
        yield reader(step, m), tuple(sources)


def loaded_regions(steps: Steps, operand: Operand, sources: Sequence[Source]) -> Iterator[Region]:
    """The regions of what is loaded of one map."""
    for source in sources:
        columns = next(iter(source.here.values())).columns
        yield from regions(steps.maps[source.map], operand.view, source.lines, columns)


def outputs(grouping: Grouping, scene: Scene) -> Iterator[tuple[int, int]]:
    """What a section computes: the group's number of the map or every piece, and the mask of its columns; 0: all."""
    assert scene.event is not None
    for out in grouping.group.parts[scene.event.section.part].outputs:
        yield out, grouping.pieces[out][1]


def stored_regions(
    grouping: Grouping, step: Step, scene: Scene, stored: int, tiles: Sequence[Tile]
) -> Iterator[Region]:  # fmt: skip
    """The regions of a section's output that go to DRAM: rows whole, what only passes through tile by tile."""
    assert scene.event is not None
    made, view = grouping.steps.maps[step.map], output_of(step).view
    for unit, block in enumerate(scene.event.section.output):
        for out, columns in outputs(grouping, scene):
            rows = with_rows(scene.event, out, unit)
            yield from regions(made, view, block & rows & stored, columns)
            for tile in tiles:
                for _, some in _runs(block & ~rows, stored):
                    yield from regions(made, view, some, columns, tile)


def _runs(lines: int, stored: int) -> Iterator[tuple[bool, int]]:
    """Lines that are listed one after the other and all go to DRAM, as a mask."""
    for goes, some in groupby(lines_of(lines), key=lambda line: bool(stored >> line & 1)):
        mask = sum(1 << line for line in some)
        if goes:
            yield goes, mask
