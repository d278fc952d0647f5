"""How full the memory is in the course of a group that runs by strips on one unit, in closed form.

Every line of a map is on chip from one section to another. Which ones, of lines that neither enter nor leave, is known
once for a cut; lines that do are there from the start, or to the end. So every map adds some bytes to each section by
itself, whatever the other maps do, but for two things at the moment when a line is computed: it may be written over a
line of an operand, and if nobody is going to need it, it only passes through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise, product

import numpy as np
from numpy.typing import NDArray

from dnnc.axis import readers, touched
from dnnc.strip_run import Run
from dnnc.strips import Walk
from dnnc_runtime.program import Window

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Peaks:
    """The memory in every section of a walk on one unit."""

    way: Walk

    def run(self, entering: Mapping[int, int], leaving: Mapping[int, int]) -> Run:
        """The same as of ``strip_run.run``: the peak, and what is loaded."""
        changed = entering.keys() | leaving.keys()
        full = self._bare.copy()
        for m in changed:
            full += self._rows(m, entering.get(m, 0), leaving.get(m, 0))
        for out in {out for m in leaving for out in self._meets[m]}:
            full += self._moment(out, tuple(leaving.get(m, 0) for m in (out, *self._over[out])))
        loaded = {m: lines & ~entering.get(m, 0) for m, lines in self._read.items() if lines & ~entering.get(m, 0)}
        return Run(int(full.max()), loaded)

    @cached_property
    def _made(self) -> Ints:
        """Rows of every part's output (parts x strips) computed by the end of each strip."""
        return np.array(self.way.group.cumulative(self.way.bounds), np.int64)

    @cached_property
    def _at(self) -> Ints:
        """Sections of an image (parts x strips) by their numbers; -1 where a part computes nothing."""
        parts, strips = np.nonzero(np.diff(self._made, prepend=0))
        blocks = np.array([part.block for part in self.way.group.parts])[parts]
        order = np.lexsort((parts, strips, blocks))
        at = np.full(self._made.shape, -1, np.int64)
        at[parts[order], strips[order]] = np.arange(len(order))
        return at

    @cached_property
    def _of_image(self) -> int:
        """Sections of an image."""
        return int(self._at.max()) + 1

    @property
    def _ends(self) -> int:
        """Sections of all images."""
        return self._of_image * self.way.group.images

    def _when(self, i: int, rows: Ints) -> Ints:
        """The sections of an image in which a part computes rows of its output."""
        at: Ints = self._at[i, np.searchsorted(self._made[i], rows, side="right")]
        return at

    @cached_property
    def _read(self) -> dict[int, int]:
        """Of every map that the group reads and does not compute the lines."""
        return {m: lines for m, lines in self.way.needed.items() if m not in self.way.group.computed}

    @cached_property
    def _slices(self) -> tuple[slice, ...]:
        """Where every map's lines are among those of all."""
        ends = [*accumulate(self.way.group.lines, initial=0)]
        return tuple(slice(first, stop) for first, stop in pairwise(ends))

    @cached_property
    def _lives(self) -> tuple[Ints, Ints]:
        """For every line of every map the sections in which it is first computed or read, and last read, or -1."""
        group = self.way.group
        first, last = np.full(sum(group.lines), self._ends, np.int64), np.full(sum(group.lines), -1, np.int64)
        for i, part in enumerate(self.way.group.parts):
            for m, window, _, _ in part.reads:
                lines, begin, end = _users(window)
                begin, end = self._when(i, begin), self._when(i, end)
                for image in range(self.way.group.images):
                    at, before = self._slices[m].start + image * window.size + lines, image * self._of_image
                    first[at] = np.minimum(first[at], before + begin)
                    last[at] = np.maximum(last[at], before + end)
        for i, part in enumerate(self.way.group.parts):
            computed = self._when(i, np.arange(part.rows))
            for out, image in product(part.outputs, range(self.way.group.images)):
                start = self._slices[out].start + image * part.rows
                first[start : start + part.rows] = image * self._of_image + computed
        first[first == self._ends] = -1
        return first, last

    @cached_property
    def _spills(self) -> tuple[Ints, Ints]:
        """For every line that goes to DRAM and comes back the section in which it does; and in which it is last read
        in the strip that computes it, or -1; the number of sections for all other lines."""
        group, ends = self.way.group, self._ends
        back, before = (np.full(sum(group.lines), ends, np.int64) for _ in range(2))
        of = np.full(sum(group.lines), -1, np.int64)
        for t, (i, image, strip, start, stop) in enumerate(group.steps(self.way.bounds)):
            now = image * len(self.way.bounds) + strip
            for out in group.spilled.intersection(group.parts[i].outputs):
                begin = self._slices[out].start + image * group.parts[i].rows
                of[begin + start : begin + stop] = now
                before[begin + start : begin + stop] = -1
            for at in self._read_at(i, image, start, stop):
                before[at[of[at] == now]] = t
                again = at[of[at] != now]
                back[again] = np.minimum(back[again], t)
        before[back == ends] = ends
        return back, before

    def _read_at(self, i: int, image: int, start: int, stop: int) -> Iterator[Ints]:
        """Where the lines are that a section reads of maps that are spilled, map by map."""
        for m, rows, known in self._looks[i]:
            if m in self.way.group.spilled:
                if (start, stop) not in known:
                    known[start, stop] = np.flatnonzero(flags(touched(rows, start, stop), rows.size))
                yield self._slices[m].start + image * rows.size + known[start, stop]

    @cached_property
    def _looks(self) -> tuple[tuple[tuple[int, Window, dict[tuple[int, int], Ints]], ...], ...]:
        """For every part the maps that it reads, by which windows, and the rows touched as far as they are known."""
        parts = self.way.group.parts
        return tuple(tuple((m, rows, _touches(rows)) for m, rows, _, _ in part.reads) for part in parts)

    @property
    def _over(self) -> dict[int, tuple[int, ...]]:
        """For every map computed those that it may be written over."""
        return self.way.group.overlays

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
        group, (first, last) = self.way.group, self._lives
        rows, there = np.diff(self._made, prepend=0), self._at >= 0
        full = np.zeros(self._of_image, np.int64)
        full[self._at[there]] = (rows * np.array([[part.sums] for part in self.way.group.parts]))[there]
        full = np.tile(full, self.way.group.images)
        sizes = np.repeat(np.array(group.sizes, np.int64), group.lines)
        full += self._spans(first, last, last >= 0, sizes)
        if group.spilled:
            # Between two strips a line that is spilled is not there; nor if nobody reads it in the first.
            back, before = self._spills
            full -= self._spans(np.maximum(before, first - 1) + 1, back - 1, back < self._ends, sizes)
        for out in (out for part in self.way.group.parts for out in part.outputs):
            over = self._over[out]
            if over or np.any(last[self._slices[out]] < 0) or out in group.spilled:
                full += self._first_moment(out, (0,) * (1 + len(over)))
        return full

    def _spans(self, start: Ints, end: Ints, there: Flags, size: Ints | int) -> Ints:
        """Bytes in every section of lines that are on chip from one to another."""
        ends = self._ends + 1
        if isinstance(size, int):
            change = np.bincount(start[there], minlength=ends) - np.bincount(end[there] + 1, minlength=ends)
            return np.cumsum(change)[:-1] * size
        change = np.bincount(start[there], size[there], ends) - np.bincount(end[there] + 1, size[there], ends)
        return np.cumsum(change)[:-1].astype(np.int64)

    @cached_property
    def _known(self) -> dict[object, Ints]:
        return {}

    def _rows(self, m: int, entering: int, leaving: int) -> Ints:
        """Bytes that a map takes more in every section than when it neither enters nor leaves."""
        key = m, entering, leaving
        if key not in self._known:
            if m not in self._idle:
                self._idle[m] = self._span(m, 0, 0)
            self._known[key] = self._span(m, entering, leaving) - self._idle[m]
        return self._known[key]

    @cached_property
    def _idle(self) -> dict[object, Ints]:
        """What belongs to a map, or to the moments in which it is computed, if nothing enters or leaves."""
        return {}

    def _span(self, m: int, entering: int, leaving: int) -> Ints:
        group, ends = self.way.group, self._ends
        first, last = (lives[self._slices[m]] for lives in self._lives)
        enters, leaves = flags(entering, group.lines[m]), flags(leaving, group.lines[m])
        # A line that enters and that nobody needs goes when its map is first looked at.
        looked_at = int(first[first >= 0].min(initial=ends - 1))
        end = np.where(leaves, ends - 1, np.where(last < 0, looked_at, last))
        there = (leaves & (first >= 0)) | (last >= 0) if m in group.computed else enters | (first >= 0)
        return self._spans(np.where(enters, 0, first), end, there, group.sizes[m])

    def _moment(self, out: int, leaving: tuple[int, ...]) -> Ints:
        """What is more or less in the sections that compute a map than when nothing leaves."""
        key = out, leaving
        if key not in self._known:
            nothing = (0,) * len(leaving)
            if (out, nothing) not in self._idle:
                self._idle[out, nothing] = self._first_moment(out, nothing)
            self._known[key] = self._first_moment(out, leaving) - self._idle[out, nothing]
        return self._known[key]

    def _first_moment(self, out: int, leaving: tuple[int, ...]) -> Ints:
        """Of lines in the sections that compute them: some lie over others, some only pass through."""
        group, lines = self.way.group, self.way.group.lines[out]
        first, last = (lives[self._slices[out]] for lives in self._lives)
        rows = (last >= 0) | flags(leaving[0], lines)
        if out in group.spilled:
            rows &= self._spills[1][self._slices[out]] >= 0
        over = np.zeros(lines, np.bool_)
        for m, leaves in zip(self._over[out], leaving[1:], strict=True):
            over |= (self._lives[1][self._slices[m]] == first) & ~flags(leaves, lines)
            if m in group.spilled:
                over |= self._spills[1][self._slices[m]] == first
        weights = np.where(rows, np.where(over, -group.sizes[out], 0), np.where(over, 0, group.passing[out]))
        return np.bincount(first, weights, self._ends).astype(np.int64)


def flags(mask: int, lines: int) -> Flags:
    """A mask of lines as an array."""
    packed = np.frombuffer(mask.to_bytes(lines // 8 + 1, "little"), np.uint8)
    return np.unpackbits(packed, bitorder="little")[:lines].view(np.bool_)


@lru_cache(maxsize=1024)
def _users(window: Window) -> tuple[Ints, Ints, Ints]:
    """The rows that a window touches, and of each the first and the last row of the output for which it does."""
    found = readers(window)
    ends = np.array([*found.values()], np.int64).reshape(-1, 2)
    return np.array([*found], np.int64), ends[:, 0], ends[:, 1]


@lru_cache(maxsize=1024)
def _touches(window: Window) -> dict[tuple[int, int], Ints]:
    """For rows of the output the rows that they touch: filled by whoever asks."""
    return {}
