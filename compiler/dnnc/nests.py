"""A layer under its own loop nest, with operands on chip: as rows of feature maps that others leave or find there.

What is on chip is neither moved nor held by the nest: its rows are the plan's. Finished words of an output on chip go
straight into its rows, whose words hold accumulators before, as many as fit there. So the schedules of such a layer are
those of its space, for a shape that says what is on chip, on a machine that has as much memory for feature maps as the
plan leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dnnc.axis import pointwise
from dnnc.chip import Chip
from dnnc.enumerate import best, structures
from dnnc.layer import HostLayer, Layer, Shape
from dnnc.least import Least
from dnnc.points import Found, all_trips, at, held, length, listed, optimist
from dnnc.schedule import Schedule
from dnnc.search import Figures, figures
from dnnc.segments import Alone, Segment
from dnnc.space import ANYTHING, Limits, Space, schedule_of
from dnnc.steps import Steps
from dnnc.strips import kept
from dnnc.structure import Array, Structure, Tiles
from dnnc.traffic import Model, compulsory
from dnnc_runtime.program import Role

Roles = tuple[Role, ...]
"""Operands, in alphabetical order."""


@dataclass(frozen=True)
class Nested:
    """A layer as a segment runs it under its own loop nest.

    Attributes:
        layer: its shape says which operands are on chip.
        maps: of the operands that are.
        output: the map that it computes.
    """

    layer: Layer
    schedule: Schedule
    maps: Mapping[Role, tuple[int, ...]]
    output: int
    figures: Figures


def nested(steps: Steps, chip: Chip, segment: Alone) -> Nested:
    """What a segment with a schedule of its own runs."""
    assert segment.schedule is not None
    position = segment.position
    maps = maps_on_chip(steps, chip, segment)
    layer = on_chip(layer_of(steps, chip, position), maps)
    made = figures(layer.shape, chip.machine, segment.schedule)
    return Nested(layer, segment.schedule, maps, output_of(steps, position), made)


def maps_on_chip(steps: Steps, chip: Chip, segment: Alone) -> dict[Role, tuple[int, ...]]:
    """The maps of the operands that are on chip: of which all is there that the layer reads, or computes."""
    before, after = dict(segment.entering), dict(segment.leaving)

    def there(role: Role, m: int) -> bool:
        lines, each = steps.maps[m].lines, (after if role == "output" else before).get(m, 0)
        wanted = (1 << lines) - 1 if role == "output" else steps.touched(segment.position, m)
        return not wanted & ~kept(lines, chip.units, each)

    may = operands(steps, chip, segment.position).items()
    return {role: maps for role, maps in may if all(there(role, m) for m in maps)}


def output_of(steps: Steps, position: int) -> int:
    """The map that a layer computes: of its pool, where one is fused."""
    return steps.steps[steps.at[position][-1]].map


def layer_of(steps: Steps, chip: Chip, position: int) -> Layer:
    """A layer as its nest runs it: where units share rows, with rows and columns apart, as the maps are shared."""
    members = [steps.steps[number] for number in steps.at[position]]
    layer = members[0].layer if chip.units > 1 and len(members) == 1 else steps.layers[position]
    assert not isinstance(layer, HostLayer)
    return layer


def on_chip(layer: Layer, roles: Collection[Role]) -> Layer:
    """A layer of which some operands are on chip."""
    return replace(layer, shape=replace(layer.shape, on_chip=tuple(sorted(roles))))


def operands(steps: Steps, chip: Chip, position: int) -> dict[Role, tuple[int, ...]]:
    """The maps of every operand of a layer that may be on chip while it runs under its own nest.

    Where units share rows, these are operands of which every unit needs the rows of its own block alone: of a single
    image, without a fused pool, and the input only where a row is computed of the same row.
    """
    members = [steps.steps[number] for number in steps.at[position]]
    if not members or any(step.why for step in members) or chip.why:
        return {}
    shape = members[0].layer.shape
    if chip.units > 1 and (len(members) > 1 or shape.n > 1 or not chip.deals(shape)):
        return {}
    found: dict[Role, tuple[int, ...]] = {"output": (members[-1].map,)}
    for read in members[0].reads:
        if chip.units == 1 or pointwise(read.rows):
            found[read.role] = read.maps
    return {role: maps for role, maps in found.items() if not any(steps.maps[m].why for m in maps)}


@dataclass
class Nests:
    """The best schedules of a network's layers with operands on chip; equal layers are searched once.

    Attributes:
        searched: structures of the schedules that were looked for, and not known before.
        rooms: of segments that may be in a plan the bytes that their nests may take.
    """

    steps: Steps
    chip: Chip
    searched: int = 0
    rooms: dict[Segment, int] = field(default_factory=dict[Segment, int])
    _known: dict[Shape, Known] = field(default_factory=dict["Shape", "Known"])
    _may: dict[int, dict[Role, tuple[int, ...]]] = field(default_factory=dict[int, dict[Role, tuple[int, ...]]])
    _least: dict[tuple[int, Roles], int] = field(default_factory=dict[tuple[int, "Roles"], int])

    def operands(self, position: int) -> Mapping[Role, tuple[int, ...]]:
        """The maps of every operand of a layer that may be on chip."""
        if position not in self._may:
            self._may[position] = operands(self.steps, self.chip, position)
        return self._may[position]

    def least(self, position: int, roles: Roles) -> int:
        """Bytes that no schedule of a layer with these operands on chip goes below."""
        key = position, roles
        if key not in self._least:
            layer = on_chip(layer_of(self.steps, self.chip, position), roles)
            self._least[key] = compulsory(layer.shape, self.chip.machine)
        return self._least[key]

    def best(self, position: int, roles: Roles, room: int, below: int | None = None) -> Nest | None:
        """The schedule of fewest DRAM bytes, and of those the one that takes least memory.

        Args:
            roles: the operands on chip, each of ``operands``.
            room: bytes of a unit's memory for feature maps that the nest may take, besides the rows of what is on chip.
            below: DRAM bytes; a schedule is only looked for if it is not known that all move as many.

        Returns:
            None if no schedule does with so little.
        """
        shape = on_chip(layer_of(self.steps, self.chip, position), roles).shape
        if shape not in self._known:
            self._known[shape] = Known(shape, self.chip)
        known = self._known[shape]
        nest = known.known(room)
        if nest is None and known.may(room, below):
            self.searched += len(known.structures)
            nest = known.search(room)
        return nest

    def cycles(self, position: int, roles: Roles, nest: Nest) -> int:
        """Cycles of a schedule that ``best`` found, in closed form."""
        shape = on_chip(layer_of(self.steps, self.chip, position), roles).shape
        return figures(shape, self.chip.machine, nest.schedule).cycles

    def settled(self, segment: Segment) -> Segment:
        """A segment with the fastest of the schedules that move as little in the room that it may take."""
        if segment not in self.rooms:
            return segment
        assert isinstance(segment, Alone)
        found = self.segment(segment.position, segment.entering, segment.leaving, self.rooms[segment])
        assert found is not None
        return found

    def segment(
        self, position: int, entering: Sequence[tuple[int, int]], leaving: Sequence[tuple[int, int]], room: int
    ) -> Alone | None:
        """The segment of a layer that reads what is on chip before and leaves what is after; None if it has no room.

        Args:
            entering, leaving: see :class:`dnnc.segments.Alone`.
            room: as of ``best``; the fewer bytes, the easier it is to place everything, the more, the faster it is.
        """
        plain = Alone(position, None, tuple(entering), tuple(leaving))
        found = self._settled(position, tuple(sorted(maps_on_chip(self.steps, self.chip, plain))), room)
        return plain._replace(schedule=found.schedule) if found else None

    def _settled(self, position: int, roles: Roles, room: int) -> Nest | None:
        """The schedule that ``best`` finds, exchanged for the fastest of those that move as little in the same room."""
        nest = self.best(position, roles, room)
        if nest is None:
            return None
        shape = on_chip(layer_of(self.steps, self.chip, position), roles).shape
        found = best(space(shape, self.chip, room), seed=Found(nest.schedule, nest.bytes, 0, nest.tiles))
        assert found is not None
        used = figures(shape, self.chip.machine, found.schedule).memory[self.chip.memory]
        return Nest(found.bytes, used, found.tiles, found.schedule)


@dataclass(frozen=True, slots=True)
class Nest:
    """A schedule of a layer with operands on chip.

    Attributes:
        bytes: that it moves in DRAM; what is on chip moves none.
        used: bytes of a unit's memory for feature maps, besides the rows of what is on chip.
        tiles: of its loop nest.
    """

    bytes: int
    used: int
    tiles: int
    schedule: Schedule


@dataclass
class Known:
    """What was found of one shape: a schedule that takes less than there was room for is the best for less room, too.

    Attributes:
        found: (room, schedule), the best in that room.
        least: (room, DRAM bytes that no schedule in that room goes below; None if there is no schedule).
    """

    shape: Shape
    chip: Chip
    found: list[tuple[int, Nest]] = field(default_factory=list[tuple[int, Nest]])
    least: list[tuple[int, int | None]] = field(default_factory=list[tuple[int, "int | None"]])

    def known(self, room: int) -> Nest | None:
        """The best schedule that does with so many bytes, if it was found for another number of them."""
        return next((nest for most, nest in self.found if nest.used <= room <= most), None)

    def may(self, room: int, below: int | None = None) -> bool:
        """Whether there may be a schedule that does with so many bytes of room, and moves fewer than that."""
        bounds = (least for most, least in self.least if room <= most)
        return all(least is not None and (below is None or least < below) for least in bounds)

    def search(self, room: int) -> Nest | None:
        """The best schedule that does with so many bytes; None if there is none."""
        # What does with less room is a beginning.
        begin = min((nest for _, nest in self.found if nest.used <= room), key=lambda nest: nest.bytes, default=None)
        best = fewest(space(self.shape, self.chip, room), self.chip.memory, self.structures, begin)
        if best is None or best.used > room:
            self.least.append((room, None))
            return None
        self.found.append((room, best))
        self.least.append((room, best.bytes))
        return best

    @cached_property
    def structures(self) -> Sequence[Bounded]:
        """Those of all its schedules, in whatever room."""
        return bounded(space(self.shape, self.chip, self.chip.bytes))


def space(shape: Shape, chip: Chip, room: int) -> Space:
    """The schedules of a layer with operands on chip that fit into so many bytes for feature maps."""
    word = chip.machine.word_bytes
    machine = chip.machine.with_memory(chip.memory, max(room // word, 1) * word)
    modes = tuple(deal.mode for deal in chip.deals(shape))
    return Space(shape, machine, ANYTHING if chip.units == 1 else Limits(modes=modes))


class Bounded(NamedTuple):
    """A structure, the grid of its tiles, and bytes that none of them goes below."""

    bytes: int
    structure: Structure
    tiles: Tiles
    least: Least


def bounded(of: Space) -> list[Bounded]:
    """The structures of a space, those first that may move fewest bytes."""
    found: list[Bounded] = []
    for follow in (False, True) if of.shape.parameters else (False,):
        for deal in of.deals:
            for structure, tiles, least in structures(of, deal, follow, frugal=True):
                model = Model(of.shape, of.machine, structure)
                found.append(Bounded(least.bytes(model, False), structure, tiles, least))
    return sorted(found, key=lambda one: one.bytes)


def fewest(of: Space, memory: str, those: Sequence[Bounded] | None = None, found: Nest | None = None) -> Nest | None:
    """The schedule that moves fewest bytes, and of those the one that takes least of a memory; None if none fits.

    Args:
        those: structures of the space that it takes, in the order of their bytes, if they are known.
        found: a schedule of the space that is known already.
    """
    floor = compulsory(of.shape, of.machine)
    for one in bounded(of) if those is None else those:
        model = Model(of.shape, of.machine, one.structure)
        if found:
            if one.bytes > found.bytes or (found.bytes <= floor and not found.used):
                break
            if found.bytes <= floor and not one.least.may_load_once(model):
                continue
        for points in _candidates(of, model, one.tiles, found, memory):
            found = _better(model, points, memory, found)
    return found


def _candidates(of: Space, model: Model, tiles: Tiles, found: Nest | None, memory: str) -> Iterator[Tiles]:
    """The points of a grid that fit and may be better."""
    wanted: Array = np.asarray(True)
    if found:
        moved = np.asarray(model.bytes(optimist(model, tiles)))
        wanted = moved <= found.bytes
        if not model.structure.pin and np.any(wanted):
            used = model.memory(tiles)[memory]
            wanted = wanted & ((moved < found.bytes) | (used < found.used))
    for points in listed(of, model.structure, tiles, wanted):
        fitting = held(of, model, points)
        if fitting is not None:
            yield fitting


def _better(model: Model, points: Tiles, memory: str, found: Nest | None) -> Nest:
    """The better of what was found and the best of some points."""
    none = np.zeros(length(points), np.int64)
    moved, used, trips = model.bytes(points) + none, model.memory(points)[memory] + none, all_trips(points) + none
    point = int(np.lexsort((trips, used, moved))[0])
    this = moved[point], used[point], trips[point]
    if found and (found.bytes, found.used, found.tiles) <= this:
        return found
    moves, takes, tiles = map(int, this)
    return Nest(moves, takes, tiles, schedule_of(model.structure, at(points, point)))
