"""Emits the loads of weights and parameters, and finds the pieces of them that a share of planes needs."""

from __future__ import annotations

from collections.abc import Iterator

from dnnc.nest import Index, Nest
from dnnc.places import Range, Unit, interval
from dnnc_runtime.program import Instruction, Load, Role
from dnnc_runtime.tensor import Piece, span

Box = tuple[Range, Range]
"""(groups, planes) that a unit holds."""


def shares(nest: Nest, role: str, index: Index) -> list[tuple[tuple[Unit, ...], list[Box]]]:
    """Units that hold the same planes of a (g, k) tile, and the boxes that these are."""
    level = nest.model.level(role)
    g, k = nest.plane("g", index["g"]), nest.plane("k", index["k"])
    by_share: dict[tuple[int, int], list[Unit]] = {}
    for unit in nest.homes[role]:
        by_share.setdefault((unit.plane, unit.group), []).append(unit)
    out = [(tuple(units), nest.dealt.planes(units[0], level, g, k)) for units in by_share.values()]
    return [(units, boxes) for units, boxes in out if boxes]


def clip(box: Box, to: Box) -> Box | None:
    """The part of a box inside another, None if they are disjoint."""
    parts: list[Range] = []
    for (a, n), (b, m) in zip(box, to, strict=True):
        first, stop = max(a, b), min(a + n, b + m)
        if first >= stop:
            return None
        parts.append((first, stop - first))
    return parts[0], parts[1]


Meeting = tuple[tuple[int, ...], int, Box, Box]
"""A memory instance, planes before a box that it holds, that box, and the part of it that is wanted."""


def meetings(nest: Nest, role: str, index: Index, unit: Unit, of: str, box: Box) -> Iterator[Meeting]:
    """Where a box of planes of a (g, k) tile lies, in the memories of a unit or of the units in it."""
    g, k = nest.plane("g", index["g"]), nest.plane("k", index["k"])
    homes, level = nest.homes[role], nest.model.level(role)
    for other in nest.related(unit, of, role):
        if other in homes:
            for at, held in _placed(nest.dealt.planes(other, level, g, k)):
                if part := clip(box, held):
                    yield (homes[other],), at, held, part


class WeightSide:
    """The weights of one layer: current tile, spare buffer and pinned tiles."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        shape, model, t = nest.layer.shape, nest.model, nest.tiles
        self.memory = nest.machine.memory_of("weights").name
        self.level = model.level("weights")
        self.kernel = shape.y.kernel, shape.x.kernel
        self.pin = nest.schedule.pin if nest.schedule.pin and nest.schedule.pin.operand == "weights" else None
        dim = self.pin.dim if self.pin else None
        g, k, c = (model.unpinned(t, d, dim) for d in ("g", "k", "c"))
        tile = int(model.structure.deal.held_planes(g, k, self.level) * c) * self.kernel[0] * self.kernel[1]
        self._base = nest.places.base["weights"]
        pinned = int(model.pinned_words(t)) if self.pin else 0
        self._spare = self._base + tile
        self._room = nest.places.words["weights"] - tile - pinned
        self._pinned = self._base + nest.places.words["weights"] - pinned
        self._at, self._loads = self._base, 0
        self._current: tuple[int, int, int] | None = None
        self._pin_key: object = None
        self._pin_planes: dict[tuple[int, int], int] = {}
        self._pin_top = 0
        self._pinned_tiles: set[tuple[int, int, int]] = set()
        self._memo: dict[tuple[object, ...], tuple[Piece, ...]] = {}
        self._meetings: dict[tuple[object, ...], list[Meeting]] = {}

    def visit(self, index: Index) -> Iterator[Instruction]:
        """The load before the tile of an index is used, if it is not there."""
        tile = index["g"], index["k"], index["c"]
        if self._is_pinned(index):
            assert self.pin
            key = self.nest.outside(self.pin.loop, index)
            if key != self._pin_key:
                self._pin_key, self._pin_planes, self._pin_top = key, {}, 0
                self._pinned_tiles = set()
                self._memo = {}
            if tile not in self._pinned_tiles:
                self._pinned_tiles.add(tile)
                yield self._load(index)
        elif tile != self._current:
            self._current = tile
            words = self._held(index) * self.nest.plane("c", index["c"])[1] * self.kernel[0] * self.kernel[1]
            self._at = self._spare if self._loads % 2 and words <= self._room else self._base
            self._loads += 1
            yield self._load(index)

    def _held(self, index: Index) -> int:
        g, k = self.nest.plane("g", index["g"])[1], self.nest.plane("k", index["k"])[1]
        return int(self.nest.model.structure.deal.held_planes(g, k, self.level))

    def _is_pinned(self, index: Index) -> bool:
        return self.pin is not None and index[self.pin.dim] < self.pin.tiles

    def _load(self, index: Index) -> Load:
        g, k, c = (self.nest.plane(d, index[d]) for d in ("g", "k", "c"))
        rows, columns = self.kernel
        whole = (interval(g), interval(k), span(0, rows), span(0, columns), interval(c))
        homes = self.nest.homes["weights"]
        pieces: list[Piece] = []
        for units, boxes in shares(self.nest, "weights", index):
            instances = tuple(homes[u] for u in units)
            pieces.extend(self._piece(instances, index, at, box, box, c) for at, box in _placed(boxes))
        return Load("weights", self.memory, "word", (whole,), tuple(pieces), self.nest.layer.shape.packed)

    def _piece(self, instances: tuple[int, ...], index: Index, at: int, held: Box, box: Box, c: Range) -> Piece:
        """The piece of a box inside a held box, which starts ``at`` planes into the tile's share."""
        rows, columns = self.kernel
        if self._is_pinned(index):
            base, depth, first = self._pinned_place(index)
            c0 = c[0] - first
        else:
            base, depth = self._at, self.nest.plane("c", index["c"])[1]
            c0 = c[0] - self.nest.plane("c", index["c"])[0]
        plane = rows * columns * depth
        planes = at + (box[0][0] - held[0][0]) * held[1][1] + box[1][0] - held[1][0]
        region = (interval(box[0]), interval(box[1]), span(0, rows), span(0, columns), interval(c))
        pitch = (held[1][1] * plane, plane, columns * depth, depth, 1)
        return Piece(instances, base + planes * plane + c0, pitch, region)

    def _pinned_place(self, index: Index) -> tuple[int, int, int]:
        """(address of the tile's first plane, channels of a plane that stay, first of them)."""
        assert self.pin
        nest = self.nest
        if self.pin.dim == "c":
            depth, first = self.pin.tiles * nest.schedule.c, 0
        elif nest.model.structure.inside("c", self.pin.loop):
            depth, first = nest.layer.shape.c, 0
        else:
            first, depth = nest.plane("c", index["c"])[0], nest.schedule.c
        key = index["g"], index["k"]
        if key not in self._pin_planes:
            self._pin_planes[key] = self._pin_top
            self._pin_top += self._held(index)
        return self._pinned + self._pin_planes[key] * self.kernel[0] * self.kernel[1] * depth, depth, first

    def pieces(self, index: Index, unit: Unit, role: str, box: Box) -> tuple[Piece, ...]:
        """The pieces, in the memories of a unit (or of the units in it), of the weights of a box of planes."""
        # The same tile at the same address is used by many output tiles.
        key = index["g"], index["k"], index["c"], self._at, unit, box
        if key not in self._memo:
            self._memo[key] = tuple(self._found(index, unit, role, box))
        return self._memo[key]

    def _found(self, index: Index, unit: Unit, role: str, box: Box) -> Iterator[Piece]:
        # Tiles of all channels lie alike.
        key = index["g"], index["k"], unit, box
        if key not in self._meetings:
            self._meetings[key] = list(meetings(self.nest, "weights", index, unit, role, box))
        c = self.nest.plane("c", index["c"])
        for instances, at, held, part in self._meetings[key]:
            yield self._piece(instances, index, at, held, part, c)


def _placed(boxes: list[Box]) -> Iterator[tuple[int, Box]]:
    """Every box with the planes before it."""
    at = 0
    for box in boxes:
        yield at, box
        at += box[0][1] * box[1][1]


class ParameterSide:
    """Bias, scale and slope vectors: resident for the layer, or following the k tile."""

    def __init__(self, nest: Nest, roles: tuple[Role, ...]) -> None:
        self.nest, self.roles = nest, roles
        self.memory = nest.machine.memory_of("parameters").name
        self.level = nest.model.level("parameters")
        self._base = nest.places.base.get("parameters", 0)
        self._tile: tuple[int, int] | None = None
        held = nest.model.structure.deal.held_planes
        every = not nest.schedule.follow
        self._offsets: dict[tuple[int, int], int] = {}
        top = 0
        for gi in range(nest.trips["g"] if every else 1):
            for ki in range(nest.trips["k"] if every else 1):
                self._offsets[gi, ki] = top
                top += int(held(nest.plane("g", gi)[1], nest.plane("k", ki)[1], self.level))
        self._memo: dict[tuple[object, ...], tuple[Piece, ...]] = {}
        self._stride = nest.places.words.get("parameters", 0) // max(1, len(roles))

    def start(self) -> Iterator[Instruction]:
        """Loads of the vectors that stay for the layer."""
        if self.nest.schedule.follow:
            return
        shape = self.nest.layer.shape
        whole = (span(0, shape.g), span(0, shape.k))
        for role in self.roles:
            pieces = [
                piece
                for gi in range(self.nest.trips["g"])
                for ki in range(self.nest.trips["k"])
                for piece in self._pieces(role, {"y": 0, "x": 0, "c": 0, "g": gi, "k": ki})
            ]
            yield Load(role, self.memory, "word", (whole,), tuple(pieces))

    def visit(self, index: Index) -> Iterator[Instruction]:
        """Loads of the vectors that follow the k tile."""
        tile = index["g"], index["k"]
        if not self.nest.schedule.follow or tile == self._tile:
            return
        self._tile = tile
        whole = interval(self.nest.plane("g", index["g"])), interval(self.nest.plane("k", index["k"]))
        for role in self.roles:
            yield Load(role, self.memory, "word", (whole,), tuple(self._pieces(role, index)))

    def _pieces(self, role: Role, index: Index) -> Iterator[Piece]:
        homes = self.nest.homes["parameters"]
        for units, boxes in shares(self.nest, "parameters", index):
            for at, box in _placed(boxes):
                yield self._piece(tuple(homes[u] for u in units), role, index, at, box, box)

    def _piece(self, instances: tuple[int, ...], role: Role, index: Index, at: int, held: Box, box: Box) -> Piece:
        key = (0, 0) if self.nest.schedule.follow else (index["g"], index["k"])
        base = self._base + self.roles.index(role) * self._stride + self._offsets[key]
        planes = at + (box[0][0] - held[0][0]) * held[1][1] + box[1][0] - held[1][0]
        return Piece(instances, base + planes, (held[1][1], 1), (interval(box[0]), interval(box[1])))

    def pieces(self, role: Role, index: Index, unit: Unit, of: str, box: Box) -> tuple[Piece, ...]:
        """The pieces of a vector for a box of planes, in the memory of a unit."""
        key = role, index["g"], index["k"], unit, box
        if key not in self._memo:
            self._memo[key] = tuple(self._found(role, index, unit, of, box))
        return self._memo[key]

    def _found(self, role: Role, index: Index, unit: Unit, of: str, box: Box) -> Iterator[Piece]:
        for instances, at, held, part in meetings(self.nest, "parameters", index, unit, of, box):
            yield self._piece(instances, role, index, at, held, part)
