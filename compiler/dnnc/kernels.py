"""Kernels and parameters of a group that runs by strips: their tiles, and where each lies in the weights memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from dnnc.grouping import Grouping
from dnnc.layer import Layer
from dnnc.lives import Scene
from dnnc.places import Dealt, Range, Unit, interval
from dnnc.steps import Steps
from dnnc.weights import PARAMETERS, Grain
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Load, Role
from dnnc_runtime.tensor import Piece, Region, span


class Tile(NamedTuple):
    """Planes that are computed at once.

    Attributes:
        groups, planes: (first, count).
        base: first word of its kernels in every unit's memory; ``stays``: whether they are there for all strips.
        parameters: words of parameters before its own, of each role.
    """

    groups: Range
    planes: Range
    base: int
    stays: bool
    parameters: int


@dataclass(frozen=True)
class Kernels:
    """The kernels and parameters of one step.

    Attributes:
        most: planes (or groups) of a tile at most.
        pinned: planes (or groups) that stay.
        first: word at which what stays begins; ``parameters``: the same for parameters.
        buffers: words at which each buffer for what is loaded again begins; ``room``: words of one.
        stays: words, from the first, of all that the group keeps; ``apart``: likewise in the memory for parameters, if
            that is another one.
        place: the number of the step at whose place they are: the first with the same ones in the group.
        beside: of a step whose tiles are handed over one by one, or handed to it: the other's kernels; they are cut
            into the same tiles.
    """

    layer: Layer
    cut: Grain
    machine: Machine
    most: int
    pinned: int
    first: int
    parameters: int
    buffers: tuple[int, ...]
    room: int
    stays: int
    apart: int
    place: int
    beside: tuple[Kernels, ...] = ()
    _known: dict[tuple[object, ...], tuple[Piece, ...]] = field(
        default_factory=dict[tuple[object, ...], "tuple[Piece, ...]"], compare=False, repr=False
    )
    _planes: dict[tuple[object, ...], list[tuple[Range, Range]]] = field(
        default_factory=dict[tuple[object, ...], "list[tuple[Range, Range]]"], compare=False, repr=False
    )

    @property
    def used(self) -> int:
        """Words of the memory for kernels that the group takes in the unit that holds most."""
        return self.buffers[-1] + self.room

    @cached_property
    def dealt(self) -> Dealt:
        """Which unit has which planes."""
        return Dealt(self.cut.deal, self.machine)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The parameters that the layer has."""
        return tuple(role for role in PARAMETERS if self.layer.operand(role))

    @cached_property
    def _levels(self) -> tuple[int, int]:
        return self.machine.memory_of("weights").level, self.machine.memory_of("parameters").level

    @cached_property
    def _taps(self) -> int:
        return self.layer.shape.y.kernel * self.layer.shape.x.kernel

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles of the layer in order: those that stay first."""
        shape, cut = self.layer.shape, self.cut
        out: list[Tile] = []
        at = self.first
        held = 0
        start = 0
        while start < cut.total:
            stays = start < self.pinned
            count = min(kernels.at_once(start) for kernels in (self, *self.beside))
            part = start, count
            groups, planes = (part, (0, shape.k)) if cut.along == "g" else ((0, shape.g), part)
            out.append(Tile(groups, planes, at if stays else -1, stays, held))
            if stays:
                words = int(cut.deal.held_planes(groups[1], planes[1], self._levels[0]))
                at += words * shape.c * self._taps
            held += int(cut.deal.held_planes(groups[1], planes[1], self._levels[1]))
            start += count
        return tuple(out)

    def granules(self, tile: Tile) -> int:
        """Granules of a tile, the last of which may be smaller."""
        _, count = tile.groups if self.cut.along == "g" else tile.planes
        return -(-count // self.cut.planes)

    def at_once(self, start: int) -> int:
        """Planes (or groups) from one on that may be a tile."""
        cut = self.cut
        if start < self.pinned:
            return min(self.most, self.pinned - start)
        granule = cut.tile // self.machine.word_bytes
        stream = max(1, self.room // granule) * cut.planes if granule else cut.total
        return min(self.most, stream, cut.total - start)

    @cached_property
    def held_parameters(self) -> int:
        """Words of each role's parameters in one unit's memory."""
        last = self.tiles[-1]
        return last.parameters + int(self.cut.deal.held_planes(last.groups[1], last.planes[1], self._levels[1]))

    def channels(self) -> Iterator[Range]:
        """The input channels that are summed at once."""
        total = self.layer.shape.c
        for first in range(0, total, self.cut.channels):
            yield first, min(self.cut.channels, total - first)

    @property
    def all_planes(self) -> Region:
        """The region of a parameter."""
        return span(0, self.layer.shape.g), span(0, self.layer.shape.k)

    def region(self, tile: Tile, channels: Range) -> Region:
        """The region of a tile's kernels."""
        shape = self.layer.shape
        taps = span(0, shape.y.kernel), span(0, shape.x.kernel)
        return interval(tile.groups), interval(tile.planes), *taps, interval(channels)

    def load(self, tile: Tile, channels: Range, turn: int) -> tuple[Load, int]:
        """The load of a tile's kernels, and the word that it goes to: the buffers take turns."""
        base = tile.base if tile.stays else self.buffers[turn % len(self.buffers)]
        pieces = self._once(
            ("load", tile, channels, base),
            (
                self._kernels(instances, base, at, box, channels)
                for instances, boxes in self._shares(tile, self._levels[0])
                for at, box in _numbered(boxes)
            ),
        )
        memory = self.machine.memory_of("weights").name
        whole = self.region(tile, channels)
        return Load("weights", memory, "word", (whole,), pieces, self.layer.shape.packed), base

    def pieces(self, tile: Tile, channels: Range, base: int, row: int) -> tuple[Piece, ...]:
        """The kernels of a tile in the memories of one unit of rows."""
        return self._once(
            (tile, channels, base, row),
            (
                self._kernels((instance,), base, at, box, channels)
                for instance, boxes in self._of_row(tile, self._levels[0], row)
                for at, box in _numbered(boxes)
            ),
        )

    def load_parameters(self) -> Iterator[Load]:
        """Loads of all parameters."""
        memory = self.machine.memory_of("parameters").name
        for role in self.roles:
            pieces = [
                self._parameter(instances, role, tile, at, box)
                for tile in self.tiles
                for instances, boxes in self._shares(tile, self._levels[1])
                for at, box in _numbered(boxes)
            ]
            yield Load(role, memory, "word", (self.all_planes,), tuple(pieces))

    def parameter_pieces(self, role: Role, tile: Tile, row: int) -> tuple[Piece, ...]:
        """The parameters of a tile in the memories of one unit of rows."""
        return self._once(
            (role, tile, row),
            (
                self._parameter((instance,), role, tile, at, box)
                for instance, boxes in self._of_row(tile, self._levels[1], row)
                for at, box in _numbered(boxes)
            ),
        )

    def _once(self, key: tuple[object, ...], made: Iterator[Piece]) -> tuple[Piece, ...]:
        """Every strip uses the same kernels at the same places: pieces that are one object are checked quickly."""
        if key not in self._known:
            self._known[key] = tuple(made)
        return self._known[key]

    def _kernels(
        self, instances: tuple[int, ...], base: int, at: int, box: tuple[Range, Range], channels: Range
    ) -> Piece:
        rows, columns = self.layer.shape.y.kernel, self.layer.shape.x.kernel
        plane = rows * columns * channels[1]
        region = interval(box[0]), interval(box[1]), span(0, rows), span(0, columns), interval(channels)
        pitch = box[1][1] * plane, plane, columns * channels[1], channels[1], 1
        return Piece(instances, base + at * plane, pitch, region)

    def _parameter(
        self, instances: tuple[int, ...], role: Role, tile: Tile, at: int, box: tuple[Range, Range]
    ) -> Piece:
        base = self.parameters + self.roles.index(role) * self.held_parameters + tile.parameters
        return Piece(instances, base + at, (box[1][1], 1), (interval(box[0]), interval(box[1])))

    def _shares(self, tile: Tile, level: int) -> Iterator[tuple[tuple[int, ...], list[tuple[Range, Range]]]]:
        """Memories that hold the same planes of a tile, and these."""
        alike: dict[tuple[int, int], list[Unit]] = {}
        homes = self._homes[level]
        for unit in homes:
            alike.setdefault((unit.plane, unit.group), []).append(unit)
        for units in alike.values():
            boxes = self._boxes(tile, level, units[0])
            if boxes:
                yield tuple(homes[unit] for unit in units), boxes

    def _of_row(self, tile: Tile, level: int, row: int) -> Iterator[tuple[int, list[tuple[Range, Range]]]]:
        for unit, instance in self._homes[level].items():
            if unit.row == row:
                boxes = self._boxes(tile, level, unit)
                if boxes:
                    yield instance, boxes

    def _boxes(self, tile: Tile, level: int, unit: Unit) -> list[tuple[Range, Range]]:
        """The planes of a tile that a unit has: units of different rows have the same."""
        key = tile.groups, tile.planes, level, unit.plane, unit.group
        if key not in self._planes:
            self._planes[key] = self.dealt.planes(unit, level, tile.groups, tile.planes)
        return self._planes[key]

    @cached_property
    def _homes(self) -> dict[int, dict[Unit, int]]:
        return {level: self.dealt.instances(level) for level in self._levels}


def lay_out(machine: Machine, steps: Steps, grouping: Grouping, scenes: Sequence[Scene]) -> dict[int, Kernels]:
    """Where a group's kernels lie: parameters first, then what stays, then the buffers for the rest."""
    word = machine.word_bytes
    weights, parameters = machine.memory_of("weights"), machine.memory_of("parameters")
    shared = weights.name == machine.memory_of("output").name
    holding, one_memory = grouping.holding, parameters.name == weights.name
    places = {number: grouping.numbers[first] for number, first in zip(grouping.numbers, holding.first, strict=True)}
    bases, top = _stacked([cut.parameters // word for cut in grouping.grains], holding.first, 0)
    # What is used once needs no place to stay: its room goes to the buffers.
    turns = Counter(places[step] for scene in scenes for step in scene.steps)
    once = not shared and all(count == 1 for count in turns.values())
    pinned = tuple(0 if once else planes for planes in holding.pinned)
    sizes = [-(-planes // cut.planes) * cut.bytes // word for cut, planes in zip(grouping.grains, pinned, strict=True)]
    firsts, stays = _stacked(sizes, holding.first, top if one_memory else 0)
    apart = 0 if one_memory else top
    words = (holding.maps if shared else weights.bytes) // word
    most = _most(grouping, scenes, places)
    streams = [
        (number, cut, -(-min(most[number], cut.total - stay) // cut.planes) * cut.tile // word)
        for number, cut, stay in zip(grouping.numbers, grouping.grains, pinned, strict=True)
        if cut.each and stay < cut.total
    ]
    largest = max((cut.tile for _, cut, _ in streams), default=0) // word
    # Nothing is on its way beside the only tile that there is.
    whole = len(streams) == 1 and all(
        turns[places[number]] == 1 and cut.tile == cut.bytes and most[number] >= cut.total and tile <= words - stays
        for number, cut, tile in streams
    )
    count = (2 if 2 * largest <= words - stays and not whole else 1) if once else holding.buffers
    room = min((words - stays) // count, max((tile for _, _, tile in streams), default=0))
    buffers = tuple(stays + i * room for i in range(count))
    made = {
        number: Kernels(
            *(steps.steps[number].layer, cut, machine, most[number], stay, first, base, buffers, room, stays, apart),
            place=places[number],
        )
        for number, cut, stay, first, base in zip(grouping.numbers, grouping.grains, pinned, firsts, bases, strict=True)
    }
    for one, two in {scene.steps for scene in scenes if scene.ahead is not None}:
        made[one], made[two] = replace(made[one], beside=(made[two],)), replace(made[two], beside=(made[one],))
    return made


def _stacked(sizes: Sequence[int], first: Sequence[int], base: int) -> tuple[list[int], int]:
    """Where the words of every step begin, one behind the other, those of steps that share them at one place; and where
    the last ends.

    Args:
        first: see :class:`dnnc.weights.Holding`.
    """
    out: list[int] = []
    for step, (size, place) in enumerate(zip(sizes, first, strict=True)):
        out.append(base if place == step else out[place])
        base += size if place == step else 0
    return out, base


def _most(grouping: Grouping, scenes: Sequence[Scene], places: Mapping[int, int]) -> dict[int, int]:
    """Planes (or groups) of a tile for which there is room in every section of a step, and of those at its place."""
    cuts = dict(zip(grouping.numbers, grouping.grains, strict=True))
    out = {number: cut.total for number, cut in cuts.items()}
    for scene in scenes:
        for plot in [*scene.stage.values(), *scene.sums.values()]:
            for step in scene.steps:
                out[step] = min(out[step], plot.words // plot.granule * cuts[step].planes)
    return {number: min(out[other] for other in out if places[other] == places[number]) for number in out}


def _numbered(boxes: list[tuple[Range, Range]]) -> Iterator[tuple[int, tuple[Range, Range]]]:
    """Every box with the planes before it."""
    at = 0
    for box in boxes:
        yield at, box
        at += box[0][1] * box[1][1]
