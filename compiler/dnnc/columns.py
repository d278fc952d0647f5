"""Groups cut into blocks of columns: what every step computes in each, and the pieces that maps fall into.

A block is some columns of what the group's last step computes. Of every other step it takes the columns that nobody
needed before and that somebody needs now, so that each is computed once; those that a later block needs again stay on
chip until then. So a map falls into pieces: columns that are computed in the same block and read in the same ones. A
piece is to the group what a map is, and what a step does in a block is a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from dnnc.axis import touched
from dnnc.strips import Group, Part, Reading

Span = tuple[int, int]
"""Columns [first, stop)."""


def in_blocks(group: Group, bounds: Sequence[int]) -> Group:
    """A group cut into blocks of columns, its maps into pieces.

    Args:
        group: in one block.
        bounds: columns of the last step's output computed by the end of every block; none for one block.
    """
    return _Blocks(group, tuple(bounds)).group if len(bounds) > 1 else group


def parts_of(group: Group, bounds: Sequence[int]) -> tuple[int, ...]:
    """In how many of the blocks every step has something to do."""
    if len(bounds) < 2:
        return (1,) * sum(len(part.steps) for part in group.parts)
    return tuple(len({*ends} - {0}) for ends in group.cumulative_columns(bounds))


def halo(group: Group) -> int:
    """Bytes of an image that all units together keep from one block of columns to the next, at most."""
    blocks: dict[int, list[int]] = {m: [part.block] for part in group.parts for m in part.outputs}
    lines = [0] * len(group.lines)
    for part in group.parts:
        for m, rows, _, _ in part.reads:
            blocks.setdefault(m, []).append(part.block)
            lines[m] |= touched(rows, 0, part.rows)
    held = [0] * (group.parts[-1].block + 1)
    for m, some in blocks.items():
        for block in range(min(some), max(some)):
            held[block] += lines[m].bit_count() * group.sizes[m]
    return max(held)


@dataclass(frozen=True)
class _Blocks:
    whole: Group
    bounds: tuple[int, ...]

    @cached_property
    def group(self) -> Group:
        pieces, whole = self._pieces, self.whole
        wide = {m: columns.bit_count() for m, columns in enumerate(whole.columns)}
        return Group(
            tuple(self._parts()),
            tuple(whole.lines[m] for m, _ in pieces),
            tuple(whole.sizes[m] // wide[m] * columns.bit_count() for m, columns in pieces),
            tuple(columns for _, columns in pieces),
            frozenset(i for i, (m, _) in enumerate(pieces) if m in whole.later),
            whole.images,
            whole.units,
            whole,
            tuple(m for m, _ in pieces),
        )

    @cached_property
    def _spans(self) -> list[list[Span]]:
        """For every step its columns in each block."""
        return [list(pairwise((0, *ends))) for ends in self.whole.cumulative_columns(self.bounds)]

    @cached_property
    def _pieces(self) -> tuple[tuple[int, int], ...]:
        """(map, columns) of all pieces."""
        marks: list[list[int]] = [[] for _ in self.whole.lines]
        for part, spans in zip(self.whole.parts, self._spans, strict=True):
            for first, stop in spans:
                marks[part.outputs[0]].append(_mask(first, stop))
                for read in part.reads:
                    marks[read.map].append(touched(read.columns, first, stop))
        return tuple((m, columns) for m, some in enumerate(marks) for columns in _classes(some))

    def _parts(self) -> Iterator[Part]:
        for block in range(len(self.bounds)):
            for part, spans in zip(self.whole.parts, self._spans, strict=True):
                first, stop = spans[block]
                if first < stop:
                    yield self._part(part, block, first, stop)

    def _part(self, part: Part, block: int, first: int, stop: int) -> Part:
        outputs = tuple(self._of(part.outputs[0], _mask(first, stop)))
        reads = tuple(
            Reading(i, read.rows, read.columns, read.pointwise)
            for read in part.reads
            for i in self._of(read.map, touched(read.columns, first, stop))
        )
        wide = part.columns[1]
        column = part.passing[0] // wide
        passing = tuple(column * self._pieces[i][1].bit_count() for i in outputs)
        sums = part.sums // wide * (stop - first)
        return Part(part.step, block, part.rows, (first, stop), reads, outputs, passing, sums)

    def _of(self, m: int, columns: int) -> Iterator[int]:
        """The pieces of a map that some columns consist of."""
        return (i for i, some in self._by_map[m] if some & columns)

    @cached_property
    def _by_map(self) -> dict[int, list[tuple[int, int]]]:
        out: dict[int, list[tuple[int, int]]] = {}
        for i, (m, columns) in enumerate(self._pieces):
            out.setdefault(m, []).append((i, columns))
        return out


def _mask(first: int, stop: int) -> int:
    return ((1 << stop - first) - 1) << first


def _classes(marks: Iterable[int]) -> list[int]:
    """The columns of some sets, those that are in the same ones together; the first ones first."""
    found: list[int] = []
    for mark in marks:
        rest = mark
        for columns in found:
            rest &= ~columns
        halves = (half for columns in found for half in (columns & mark, columns & ~mark))
        found = [columns for columns in (*halves, rest) if columns]
    return sorted(found, key=lambda columns: columns & -columns)
