"""Finds the pieces of operands that are rows of feature maps on chip, whatever a tile of a loop nest takes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dnnc.emit_planes import Box
from dnnc.layer import Layer
from dnnc.lives import Plot, Rows
from dnnc.places import axis, interval
from dnnc.steps import FeatureMap
from dnnc.strip_regions import channels_of, whole_lines, whole_regions
from dnnc_runtime.program import Instruction, Release, Role, Store
from dnnc_runtime.tensor import Piece, Region, View

Line = tuple[tuple[int, int, int, int], ...]
"""(first column, stop, words from one to the next, address) of runs of columns that lie evenly apart."""


class Boxed(NamedTuple):
    """Rows and columns that lie evenly apart: the address of the first, and the words from row to row and column."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    address: int
    pitch: tuple[int, int]


@dataclass
class RowSide:
    """The operands of one layer that are on chip.

    Attributes:
        layer: which may have one axis of pixels in place of the maps' rows and columns.
        maps: by role, in the order of their channels, each with its number.
        rows: where everything lies, by map and unit.
    """

    layer: Layer
    maps: Mapping[Role, Sequence[tuple[int, FeatureMap]]]
    rows: Mapping[tuple[int, int], Rows]
    _found: dict[tuple[object, ...], tuple[Boxed, ...]] = field(
        default_factory=dict[tuple[object, ...], "tuple[Boxed, ...]"]
    )

    def pieces(
        self, role: Role, unit: int, image: int, rows: tuple[int, ...], columns: tuple[int, ...], box: Box,
        words: int = 1,
    ) -> tuple[Piece, ...]:  # fmt: skip
        """Where rows, columns and a box of channels of an operand lie in a unit's memory.

        Args:
            words: from one channel to the next.
        """
        return tuple(self._pieces(role, unit, image, rows, columns, box, words))

    def leave(self, memory: str, stored: int, held: Collection[int]) -> Iterator[Instruction]:
        """Lines of the output go to DRAM when all are computed; those that neither go nor stay are dropped.

        Args:
            stored: lines that go to DRAM; ``held``: identities of the rows that stay.
        """
        ((m, made),) = self.maps["output"]
        view = self._view("output")
        pieces: list[Piece] = []
        lost: list[Piece] = []
        wanted: list[Region] = []
        for unit in sorted(unit for of, unit in self.rows if of == m):
            rows = self.rows[m, unit]
            going = sum(1 << line for line in rows) & stored
            dead = sum(1 << line for line, plot in rows.items() if not going >> line & 1 and id(plot) not in held)
            pieces += self._whole(made, unit, going)
            lost += self._whole(made, unit, dead)
            wanted += whole_regions(made, view, going)
        if pieces:
            yield Store("output", memory, "word", tuple(wanted), tuple(pieces))
        if lost:
            yield Release(memory, "word", tuple(lost))

    def _whole(self, made: FeatureMap, unit: int, lines: int) -> Iterator[Piece]:
        """Lines of the output with all their planes."""
        view = self._view("output")
        for image, rows, columns in whole_lines(made, view, lines):
            yield from self._pieces("output", unit, image, rows, columns, ((0, view.shape[3]), (0, view.shape[4])), 1)

    def _view(self, role: Role) -> View:
        operand = self.layer.operand(role)
        assert operand is not None
        return operand.view

    def _pieces(
        self, role: Role, unit: int, image: int, rows: tuple[int, ...], columns: tuple[int, ...], box: Box, words: int
    ) -> Iterator[Piece]:
        view = self._view(role)
        for m, made in self.maps[role]:
            parts = channels_of(made, view, box)
            if not parts:
                continue
            key = m, unit, image, rows, columns
            if key not in self._found:
                self._found[key] = tuple(self._boxes(made, view, self.rows[m, unit], image, rows, columns))
            for some in self._found[key]:
                for word, groups, channels in parts:
                    points = axis(some.rows), axis(some.columns)
                    region = (interval((image, 1)), *points, interval(groups), interval(channels))
                    yield Piece((unit,), some.address + word, (0, *some.pitch, view.shape[4], words), region)

    def _boxes(
        self, made: FeatureMap, view: View, held: Rows, image: int, rows: Sequence[int], columns: Sequence[int]
    ) -> Iterator[Boxed]:
        """Rows that lie alike and evenly apart together."""
        lines = [self._line(made, view, held, image, row, columns) for row in rows]
        first = 0
        while first < len(lines):
            stop, apart = first + 1, 0
            while stop < len(lines) and (step := _apart(lines[stop - 1], lines[stop])) and apart in (0, step):
                apart, stop = step, stop + 1
            for start, end, step, address in lines[first]:
                yield Boxed(tuple(rows[first:stop]), tuple(columns[start:end]), address, (apart, step))
            first = stop

    def _line(self, made: FeatureMap, view: View, held: Rows, image: int, row: int, columns: Sequence[int]) -> Line:
        if view.shape[1:3] != made.geometry[1:3]:
            # Pixels of all rows, one after the other.
            row, column = divmod(row, made.geometry.columns)
            columns = (column,)
        plot = held[image * made.geometry.rows + row]
        return tuple(_even([_address(plot, column) for column in columns]))


def _address(plot: Plot, column: int) -> int:
    """Where a pixel of a row lies that has all columns."""
    assert not plot.columns
    before, _, address = next(chunk for chunk in plot.chunks if chunk[0] <= column < chunk[0] + chunk[1])
    return address + (column - before) * plot.pixel


def _even(addresses: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of addresses that lie evenly apart, upwards."""
    first = 0
    while first < len(addresses):
        stop, step = first + 1, 0
        while stop < len(addresses):
            next_step = addresses[stop] - addresses[stop - 1]
            if next_step <= 0 or step not in (0, next_step):
                break
            step, stop = next_step, stop + 1
        yield first, stop, step, addresses[first]
        first = stop


def _apart(one: Line, two: Line) -> int:
    """Words from a line to one that lies alike; 0 if it does not, or lies before it."""
    if [run[:3] for run in one] != [run[:3] for run in two]:
        return 0
    steps = {b[3] - a[3] for a, b in zip(one, two, strict=True)}
    return max(0, steps.pop()) if len(steps) == 1 else 0
