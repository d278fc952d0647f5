"""How full the memory is in the course of a group that runs by strips on one unit, in closed form.

Every line of a map is on chip from one section to another. Which ones, of lines that neither enter nor leave, is known
once for a cut; lines that do are there from the start, or to the end. So every map adds some bytes to each section by
itself, whatever the other maps do, but for two things at the moment when a line is computed: it may be written over a
line of an operand, and if nobody is going to need it, it only passes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnc.axis import touched
from dnnc.strips import Run, Walk

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Peaks:
    """The memory in every section of a walk on one unit."""

    way: Walk

    def run(self, entering: Mapping[int, int], leaving: Mapping[int, int]) -> Run:
        """The same as of ``strips.run``: the peak, and what is loaded."""
        changed = entering.keys() | leaving.keys()
        full = self._bare.copy()
        for m in changed:
            full += self._rows(m, entering.get(m, 0), leaving.get(m, 0)) - self._rows(m, 0, 0)
        for out in {out for m in changed for out in self._meets[m]}:
            there = tuple((m, leaving.get(m, 0)) for m in (out, *self._over[out]))
            nothing = tuple((m, 0) for m, _ in there)
            full += self._moment(out, there) - self._moment(out, nothing)
        loaded = {m: lines & ~entering.get(m, 0) for m, lines in self._read.items() if lines & ~entering.get(m, 0)}
        return Run(int(full.max()), loaded)

    @cached_property
    def _steps(self) -> tuple[tuple[int, int, int, int, int], ...]:
        return tuple(self.way.group.steps(self.way.bounds))

    @cached_property
    def _read(self) -> dict[int, int]:
        """Of every map that the group reads and does not compute the lines."""
        return {m: lines for m, lines in self.way.needed.items() if m not in self.way.group.computed}

    @cached_property
    def _lives(self) -> tuple[tuple[Ints, Ints], ...]:
        """For every line of every map the sections in which it is first computed or read, and last read, or -1."""
        group = self.way.group
        first = [np.full(lines, -1, np.int64) for lines in group.lines]
        last = [np.full(lines, -1, np.int64) for lines in group.lines]
        for t, (i, image, _, start, stop) in reversed([*enumerate(self._steps)]):
            part = group.parts[i]
            for m, rows, _ in part.reads:
                begin = image * rows.size
                read = flags(touched(rows, start, stop), rows.size)
                first[m][begin : begin + rows.size][read] = t
                of_image = last[m][begin : begin + rows.size]
                of_image[read & (of_image < 0)] = t
            first[part.output][image * part.rows + start : image * part.rows + stop] = t
        return tuple(zip(first, last, strict=True))

    @cached_property
    def _over(self) -> dict[int, tuple[int, ...]]:
        """For every map computed those that it may be written over."""
        group = self.way.group
        return {part.output: overlays for part, overlays in zip(group.parts, group.overlays, strict=True)}

    @cached_property
    def _meets(self) -> tuple[tuple[int, ...], ...]:
        """For every map those whose lines' first moments depend on whether it leaves."""
        return tuple(
            tuple(out for out, over in self._over.items() if m == out or m in over)
            for m in range(len(self.way.group.lines))
        )

    @cached_property
    def _bare(self) -> Ints:
        """Bytes in every section when nothing enters or leaves."""
        group = self.way.group
        full = np.array([(stop - start) * group.parts[i].sums for i, _, _, start, stop in self._steps], np.int64)
        for m in range(len(group.lines)):
            full += self._rows(m, 0, 0)
        for out, over in self._over.items():
            full += self._moment(out, tuple((m, 0) for m in (out, *over)))
        return full

    @cached_property
    def _known(self) -> dict[object, Ints]:
        return {}

    def _rows(self, m: int, entering: int, leaving: int) -> Ints:
        """Bytes of a map in every section."""
        key = m, entering, leaving
        if key not in self._known:
            self._known[key] = self._count(m, entering, leaving) * self.way.group.sizes[m]
        return self._known[key]

    def _count(self, m: int, entering: int, leaving: int) -> Ints:
        group, ends = self.way.group, len(self._steps)
        first, last = self._lives[m]
        enters, leaves = flags(entering, group.lines[m]), flags(leaving, group.lines[m])
        # A line that enters and that nobody needs goes when its map is first looked at.
        looked_at = int(first[first >= 0].min(initial=ends - 1))
        start = np.where(enters, 0, first)
        end = np.where(leaves, ends - 1, np.where(last < 0, looked_at, last))
        there = enters | (first >= 0)
        if m in group.computed:
            there &= leaves | (last >= 0)
        change = np.bincount(start[there], minlength=ends + 1) - np.bincount(end[there] + 1, minlength=ends + 1)
        return np.cumsum(change)[:ends]

    def _moment(self, out: int, leaving: tuple[tuple[int, int], ...]) -> Ints:
        """What is more or less in a section that computes lines: some lie over others, some only pass through."""
        key = out, leaving
        if key not in self._known:
            group, lines = self.way.group, self.way.group.lines[out]
            first, last = self._lives[out]
            rows = (last >= 0) | flags(leaving[0][1], lines)
            over = np.zeros(lines, np.bool_)
            for m, leaves in leaving[1:]:
                over |= (self._lives[m][1] == first) & ~flags(leaves, lines)
            passing = group.parts[group.computed[out]].passing
            weights = np.where(over & rows, -group.sizes[out], 0) + np.where(~over & ~rows, passing, 0)
            found = np.bincount(first, weights, minlength=len(self._steps)).astype(np.int64)
            self._known[key] = found
        return self._known[key]


def flags(mask: int, lines: int) -> Flags:
    """A mask of lines as an array."""
    packed = np.frombuffer(mask.to_bytes(lines // 8 + 1, "little"), np.uint8)
    return np.unpackbits(packed, bitorder="little")[:lines].astype(np.bool_)
