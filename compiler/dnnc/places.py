"""Where a layer's tiles lie on chip: how units share planes, and buffers whose axes map to slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod
from typing import NamedTuple

from dnnc.schedule import Deal
from dnnc.structure import Tiles
from dnnc.traffic import MEMORY_ROLE, Model
from dnnc_runtime.machine import Machine
from dnnc_runtime.tensor import Axis, Piece, runs, span

Range = tuple[int, int]
"""(start, count) of consecutive coordinates."""


class Unit(NamedTuple):
    """A unit that holds a share: its block of rows, its place among the units that share planes, and groups."""

    row: int
    plane: int
    group: int


@dataclass(frozen=True)
class Dealt:
    """A mode's deal on a machine, unit by unit."""

    deal: Deal
    machine: Machine

    def instances(self, level: int) -> dict[Unit, int]:
        """The memory instance of every unit at a level that works; of idle twins the first."""
        levels = self.machine.levels[: level + 1]
        out: dict[Unit, int] = {}
        for instance in range(prod(lv.count for lv in levels)):
            row = plane = group = 0
            rest = instance
            digits: list[int] = []
            for lv in reversed(levels):
                digits.append(rest % lv.count)
                rest //= lv.count
            for depth, digit in enumerate(reversed(digits)):
                planes, groups = self.deal.planes[depth], self.deal.groups[depth]
                plane = plane * planes + (digit if planes > 1 else 0)
                group = group * groups + (digit if groups > 1 else 0)
                if depth == 0 and self.deal.rows > 1:
                    row = digit
            out.setdefault(Unit(row, plane, group), instance)
        return out

    def planes(self, unit: Unit, level: int, g: Range, k: Range) -> list[tuple[Range, Range]]:
        """The (groups, planes) boxes of a (g, k) tile that a unit's share of planes consists of."""
        if not self.deal.joint:
            mine = (
                self._block(g, self.deal.groups, level, unit.group),
                self._block(k, self.deal.planes, level, unit.plane),
            )
            return [mine] if mine[0][1] and mine[1][1] else []
        per_group = self.deal.k_per_group
        first, count = self._block((0, g[1] * per_group), self.deal.planes, level, unit.plane)
        return [((g[0] + gs, gc), ks) for (gs, gc), ks in boxes(first, count, per_group)]

    def groups(self, unit: Unit, level: int, g: Range) -> Range:
        """The groups of a g tile whose input a unit holds."""
        if not self.deal.joint:
            return self._block(g, self.deal.groups, level, unit.group)
        return self._block(g, self.deal.planes, level, unit.plane) if self.deal.k_per_group == 1 else g

    @staticmethod
    def _block(whole: Range, units: tuple[int, ...], level: int, place: int) -> Range:
        share = -(-whole[1] // prod(units)) * prod(units[level + 1 :])
        first = min(place * share, whole[1])
        return whole[0] + first, min(share, whole[1] - first)


def boxes(first: int, count: int, per_group: int) -> Iterator[tuple[Range, Range]]:
    """A run of planes, numbered group by group, as boxes of (groups, planes in each)."""
    while count:
        group, inside = divmod(first, per_group)
        if inside == 0 and count >= per_group:
            whole = count // per_group
            yield (group, whole), (0, per_group)
            taken = whole * per_group
        else:
            taken = min(count, per_group - inside)
            yield (group, 1), (inside, taken)
        first, count = first + taken, count - taken


def axis(points: tuple[int, ...]) -> Axis:
    """A sorted tuple of coordinates as runs."""
    if points and points[-1] - points[0] == len(points) - 1:
        return span(points[0], len(points))
    return _scattered(points)


@lru_cache(maxsize=65536)
def _scattered(points: tuple[int, ...]) -> Axis:
    return runs(points)


@lru_cache(maxsize=65536)
def interval(part: Range) -> Axis:
    """A range as an axis."""
    return span(*part)


@dataclass(slots=True)
class Area:
    """A buffer of pixels: rows and columns lie at slots, each pixel holds ``channels`` words.

    ``rows`` maps (image, row) to a slot, ``columns`` a column; a row has room for ``width`` pixels.
    """

    base: int
    width: int
    channels: int
    rows: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    columns: dict[int, int] = field(default_factory=dict[int, int])

    def boxes(
        self, n: int, rows: Sequence[int], columns: Sequence[int], other: Area | None = None
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Rows x columns split into boxes that lie at consecutive slots, here and in another area too."""
        areas = (self,) if other is None else (self, other)
        across = list(_consecutive(columns, [[a.columns[x] for x in columns] for a in areas]))
        for ys in _consecutive(rows, [[a.rows[n, y] for y in rows] for a in areas]):
            for xs in across:
                yield ys, xs

    def piece(
        self, instances: tuple[int, ...], n: int, ys: tuple[int, ...], xs: tuple[int, ...], g: Range, c: Range,
        word: int, pitch: int,
    ) -> Piece:  # fmt: skip
        """The piece of one box; the channel part starts at ``word`` of the pixel, groups ``pitch`` words apart."""
        at = (self.rows[n, ys[0]] * self.width + self.columns[xs[0]]) * self.channels + word
        region = (interval((n, 1)), axis(ys), axis(xs), interval(g), interval(c))
        return Piece(instances, self.base + at, (0, self.width * self.channels, self.channels, pitch, 1), region)


def _consecutive(points: Sequence[int], slots: Sequence[list[int]]) -> Iterator[tuple[int, ...]]:
    """The points in runs that lie at consecutive slots in every map (a list of slots, point by point)."""
    if all(of == list(range(of[0], of[0] + len(of))) for of in slots if of):
        if points:
            yield tuple(points)
        return
    first = 0
    for i in range(1, len(points) + 1):
        if i == len(points) or any(of[i] != of[i - 1] + 1 for of in slots):
            yield tuple(points[first:i])
            first = i


class Ring:
    """Slots that are given out in turn, so that what leaves last is overwritten last."""

    def __init__(self, size: int) -> None:
        self.size, self._next = size, 0

    def take(self, count: int, held: set[int]) -> list[int]:
        """The next slots that are not held."""
        out: list[int] = []
        while len(out) < count:
            slot = self._next % self.size
            self._next += 1
            if slot not in held:
                out.append(slot)
        return out


@dataclass(frozen=True)
class Places:
    """Base addresses of a layer's residents in their memories, in words, one after the other.

    Attributes:
        first: by memory where the first of them starts; at 0, if not given.
    """

    model: Model
    tiles: Tiles
    first: Mapping[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def words(self) -> dict[str, int]:
        """Words of every resident."""
        return {role: int(words) for role, words in self.model.residents(self.tiles).items()}

    @cached_property
    def base(self) -> dict[str, int]:
        """Where every resident starts in its memory."""
        top: dict[str, int] = {}
        out: dict[str, int] = {}
        for role, words in self.words.items():
            name = self.model.machine.memory_of(MEMORY_ROLE[role]).name
            out[role] = top.get(name, self.first.get(name, 0))
            top[name] = out[role] + words
        return out
