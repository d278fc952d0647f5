"""The cuts of a group into strips and blocks of columns, and what it takes to run by each.

A group is cut into strips of equal height, but for the first and the last, and into some numbers of blocks of columns,
equally wide but for the first and the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from math import ceil
from typing import NamedTuple

from dnnc.axis import touched
from dnnc.columns import halo, in_blocks, parts_of
from dnnc.peaks import Peaks
from dnnc.strip_run import Run, run
from dnnc.strips import Group, Walk, walk

BLOCKS = (2, 3, 4, 6, 8, 12, 16)
"""Numbers of blocks of columns that are tried."""


BEGIN = 2
"""Blocks of columns that are gone through to see whether there is room at all: from the second on all are alike."""


class Cut(NamedTuple):
    """Rows (and columns) of the last step's output computed by the end of every strip (and block; none for one)."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass
class Meter:
    """The work done so far: sections gone through, for each unit; of one unit alone, maps that change."""

    work: int = 0


@dataclass
class Cuts:
    """The cuts of a group, and what it takes to run by each: known once for all groups that are equal."""

    group: Group
    meter: Meter
    _groups: dict[int, Group] = field(default_factory=dict[int, Group])
    _bares: dict[tuple[int, int], int | None] = field(default_factory=dict[tuple[int, int], "int | None"])
    _may: dict[tuple[int, int], bool] = field(default_factory=dict[tuple[int, int], bool])
    _halos: dict[int, int] = field(default_factory=dict[int, int])
    _walks: dict[int, Walk] = field(default_factory=dict[int, Walk])
    _peaks: dict[int, Peaks] = field(default_factory=dict[int, Peaks])
    _runs: dict[tuple[int, _Lines, _Lines], Run] = field(default_factory=dict[tuple[int, "_Lines", "_Lines"], Run])

    @cached_property
    def strips(self) -> tuple[tuple[int, ...], ...]:
        """The cuts into strips, fewest first.

        The first strip takes more rows of the earlier steps than the others, by what the windows reach over; so it
        is as much shorter.
        """
        group = self.group
        rows = group.parts[-1].rows
        ahead = group.cumulative((1, rows))[0][0] * rows // group.parts[0].rows if rows > 1 else 0
        shares = (ceil(rows / strips) for strips in range(1, rows + 1))
        heights = dict.fromkeys(min(rows, ceil(share / group.units) * group.units) for share in shares)
        return tuple(_bounds(rows, height, ahead) for height in heights)

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The cuts into blocks of columns: one block, and then several; the first is narrower for the same reason."""
        group = self.group
        columns = group.parts[-1].columns[1]
        ahead = group.cumulative_columns((1, columns))[0][0] * columns // group.parts[0].columns[1]
        widths = dict.fromkeys(ceil(columns / blocks) for blocks in BLOCKS)
        return ((), *(_bounds(columns, width, ahead) for width in widths if width < columns))

    @property
    def levels(self) -> tuple[Cut, ...]:
        """All cuts, those into strips alone first; elsewhere they go by their number (``level``)."""
        return tuple(Cut(rows, columns) for columns in self.blocks for rows in self.strips)

    def level(self, blocks: int, strips: int) -> int:
        """The number of a cut."""
        return blocks * len(self.strips) + strips

    def cut(self, level: int) -> Cut:
        """A cut by its number."""
        blocks, strips = divmod(level, len(self.strips))
        return Cut(self.strips[strips], self.blocks[blocks])

    def in_blocks(self, blocks: int) -> Group:
        """The group cut into blocks of columns."""
        if blocks not in self._groups:
            self._groups[blocks] = in_blocks(self.group, self.blocks[blocks])
        return self._groups[blocks]

    def halo(self, blocks: int) -> int:
        """Bytes that all units together keep at least from one block of columns to the next."""
        if blocks not in self._halos:
            self._halos[blocks] = halo(self.in_blocks(blocks)) if blocks else 0
        return self._halos[blocks]

    def walk(self, level: int) -> Walk:
        """The sections of a cut."""
        if level not in self._walks:
            blocks, strips = divmod(level, len(self.strips))
            self._walks[level] = walk(self.in_blocks(blocks), self.strips[strips])
        return self._walks[level]

    def sections(self, level: int) -> tuple[int, ...]:
        """How many sections every step has in a cut, found without cutting maps into pieces."""
        blocks, strips = divmod(level, len(self.strips))
        times = parts_of(self.group, self.blocks[blocks])
        return tuple(a * b for a, b in zip(times, self.walk(strips).sections, strict=True))

    def run(self, level: int, entering: _Lines, leaving: _Lines, room: int | None = None) -> Run:
        """What a cut takes with these lines on chip before and behind it; no further than there is room."""
        key = level, entering, leaving
        found = self._runs.get(key)
        if found is None or not found.settles(room):
            found = self._runs[key] = self._run(level, dict(entering), dict(leaving), room)
        return found

    def _run(self, level: int, entering: Mapping[int, int], leaving: Mapping[int, int], room: int | None) -> Run:
        way = self.walk(level)
        sections = sum(way.sections)
        if self.group.units > 1:
            self.meter.work += sections * self.group.units
            return run(way, entering, leaving, room=room)
        self.meter.work += 1 + len(entering) + len(leaving)
        if level not in self._peaks:
            self._peaks[level] = Peaks(way)
            self.meter.work += len(self.group.parts)
        return self._peaks[level].run(entering, leaving)

    def needs(self, level: int) -> int:
        """Bytes that a unit needs at least: for what some section of the first strips reads, and computes for others.

        Of what it computes, lines that may be written over those of an operand, or spilled, do not count.
        """
        way = self.walk(level)
        group, needed = way.group, way.needed
        most = 0
        for i, image, _, first, stop in islice(group.steps(way.bounds), 2 * len(self.group.parts)):
            part, rows = group.parts[i], ceil((stop - first) / group.units)
            lines: dict[int, int] = {}
            for m, window, _, _ in part.reads:
                lines[m] = lines.get(m, 0) | touched(window, first, first + rows) << image * window.size
            for m in part.outputs:
                if not group.overlays[m] and m not in group.spilled:
                    lines[m] = needed.get(m, 0) & ((1 << rows) - 1) << (image * part.rows + first)
            most = max(most, sum(mask.bit_count() * group.sizes[m] for m, mask in lines.items()))
        return most

    def bare(self, level: int, room: int) -> int | None:
        """Bytes at the fullest moment with nothing on chip before or behind it; None if there is no room for that."""
        key = level, room
        if key not in self._bares:
            peak = self.run(level, (), (), room).peak if self.may_fit(level, room) else room + 1
            self._bares[key] = peak if peak <= room else None
        return self._bares[key]

    def may_fit(self, level: int, room: int) -> bool:
        """Whether what is known with little work leaves room."""
        key = level, room
        if key not in self._may:
            self._may[key] = self._find_may_fit(level, room)
        return self._may[key]

    def _find_may_fit(self, level: int, room: int) -> bool:
        blocks = level // len(self.strips)
        if self.halo(blocks) > room * self.group.units or self.needs(level) > room:
            return False
        if not blocks or self.group.units == 1:
            return True
        begin = replace(self.walk(level), blocks=BEGIN)
        self.meter.work += len(begin.visits) * self.group.units
        return run(begin, {}, {}, room=room).whole


_Lines = tuple[tuple[int, int], ...]
"""Masks of lines by map."""


def _bounds(size: int, each: int, ahead: int) -> tuple[int, ...]:
    """An axis cut into equal shares, of which the first is smaller by what the windows reach ahead."""
    first = each - ahead if ahead < each < size else each
    return *range(first, size, each), size
