"""Layers as a group that runs by strips: its steps, how their kernels are cut, and what of those stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dnnc.axis import touched_by_any
from dnnc.chip import Chip
from dnnc.columns import in_blocks
from dnnc.orders import mask_of
from dnnc.segments import Strips
from dnnc.steps import FeatureMap, Step, Steps
from dnnc.strips import Group, Part, Reading
from dnnc.weights import Grain, Holding, grain, hold
from dnnc_runtime.program import Window


@dataclass(frozen=True)
class Grouping:
    """A group of layers.

    Attributes:
        positions: of its layers, ascending.
        steps: of the network; ``numbers``: those of the group.
        group: the same with maps numbered by themselves, so that repeated blocks are equal, and cut into blocks of
            columns.
        maps: of the network, by the group's numbers; of one that is cut into pieces there are several numbers.
        later: maps computed in the group that a step behind it reads, or that have to be in DRAM.
        grains, holding: how the steps' kernels are cut, and what of them stays.
    """

    positions: tuple[int, ...]
    steps: Steps
    numbers: tuple[int, ...]
    group: Group
    maps: tuple[int, ...]
    later: tuple[int, ...]
    grains: tuple[Grain, ...]
    holding: Holding

    @cached_property
    def kernels(self) -> tuple[tuple[int, int], ...]:
        """For every step the bytes of kernels and parameters for its first section, and for every further one; those
        that steps share are counted for the first of them, whichever runs first."""
        holding, out = self.holding, list[tuple[int, int]]()
        for step, (cut, first, pinned) in enumerate(zip(self.grains, holding.first, holding.pinned, strict=True)):
            again = cut.whole - pinned * cut.each
            out.append((cut.once + cut.whole if first == step else again, again))
        return tuple(out)

    @cached_property
    def local(self) -> dict[int, int]:
        """The group's number of every map, of a piece of it if it is cut."""
        return {m: i for i, m in enumerate(self.maps)}

    @cached_property
    def handed(self) -> tuple[int, ...]:
        """Maps that go tile by tile from the step that computes them to the one that adds them."""
        ahead = (part.ahead for part in self.group.parts)
        return tuple(self.steps.steps[self.numbers[step]].map for step in ahead if step is not None)

    @cached_property
    def entering(self) -> tuple[int, ...]:
        """Maps read that are not computed in the group."""
        computed = {self.steps.steps[number].map for number in self.numbers}
        return tuple(m for m in self.local if m not in computed)

    @cached_property
    def pieces(self) -> tuple[tuple[int, int], ...]:
        """By the group's numbers the map of the network, and the mask of the columns that a piece of it has; 0: all."""
        columns = self.group.columns if self.group.whole else (0,) * len(self.maps)
        return tuple(zip(self.maps, columns, strict=True))

    def in_blocks(self, bounds: Sequence[int]) -> Grouping:
        """The same cut into blocks of columns: columns of the last step's output computed by the end of each."""
        cut = in_blocks(self.group, bounds)
        return replace(self, group=cut, maps=tuple(self.maps[m] for m in cut.of))

    @cached_property
    def columns(self) -> dict[int, tuple[Window, ...]]:
        """Of every map read the windows of columns."""
        return _windows(self.steps.steps[number] for number in self.numbers)

    def touched(self, m: int) -> int:
        """Mask of the columns of a map that the group reads; 0 if these are all."""
        mask = touched_by_any(self.columns[m])
        return 0 if mask.bit_count() == self.steps.maps[m].geometry.columns else mask

    @cached_property
    def partly(self) -> frozenset[int]:
        """Maps of which the group reads some columns alone."""
        return frozenset(m for m in self.entering if self.touched(m))

    def line_bytes(self, m: int, word: int) -> int:
        """Bytes of the columns of a line that are loaded."""
        return touched_by_any(self.columns[m]).bit_count() * self.steps.maps[m].channels * word

    def loaded_bytes(self, number: int, word: int) -> int:
        """The same of a map, or of a piece of it, by the group's number."""
        m, columns = self.pieces[number]
        return columns.bit_count() * self.steps.maps[m].channels * word if columns else self.line_bytes(m, word)


def grouped(
    steps: Steps, chip: Chip, positions: tuple[int, ...], columns: Sequence[int] = (),
    spilled: Collection[int] = (), handed: Collection[int] = (), there: Collection[int] = (),
) -> Grouping | None:  # fmt: skip
    """Some layers as a group, in the model's order; None where one of them cannot be run by strips.

    Args:
        columns: of the last step's output computed by the end of every block of columns; none for one block.
        spilled: maps that they compute of which no line waits for the next strip.
        handed: maps that go tile by tile from the step that computes them to the one that adds them.
        there: maps of which rows are on chip when the group starts; of others a row has the columns that are read.
    """
    numbers = tuple(number for position in positions for number in steps.at[position])
    members = [steps.steps[number] for number in numbers]
    if not all(steps.at[position] for position in positions) or any(step.why for step in members):
        return None
    if len({step.layer.shape.n for step in members}) > 1:
        return None
    cuts = [grain(step.layer.shape, chip) for step in members]
    grains = tuple(cut for cut in cuts if cut is not None)
    if len(grains) < len(cuts):
        return None
    holding = hold(grains, tuple(_first_alike(members, grains)), chip.machine)
    if holding is None:
        return None
    local: dict[int, int] = {}
    parts = tuple(_parts(members, grains, chip, handed, local))
    maps = tuple(local)
    computed = {step.map for step in members}
    later = tuple(sorted(m for m in computed if steps.maps[m].must_store or steps.wanted(m, mask_of(positions))))
    read = _windows(members)
    seen = [_seen(steps.maps[m], () if m in computed or m in there else read.get(m, ())) for m in maps]
    group = Group(
        parts,
        tuple(steps.maps[m].lines for m in maps),
        tuple(
            some.bit_count() * steps.maps[m].channels * chip.machine.word_bytes
            for m, some in zip(maps, seen, strict=True)
        ),
        tuple(seen),
        frozenset(local[m] for m in later),
        members[0].layer.shape.n,
        chip.units,
        spilled=frozenset(local[m] for m in spilled),
    )
    made = Grouping(positions, steps, numbers, group, maps, later, grains, holding)
    return made.in_blocks(columns) if len(columns) > 1 else made


def _first_alike(members: Sequence[Step], grains: Sequence[Grain]) -> Iterator[int]:
    """For every step the first one with the same kernels and parameters, cut alike."""
    seen: dict[object, int] = {}
    for number, (step, cut) in enumerate(zip(members, grains, strict=True)):
        alike = (step.constants, step.layer.shape.packed, cut) if step.constants else number
        yield seen.setdefault(alike, number)


def group_of(steps: Steps, chip: Chip, segment: Strips) -> Grouping:
    """The layers of a segment as a group."""
    there = {m for m, _ in segment.entering}
    made = grouped(steps, chip, segment.positions, segment.columns, segment.spilled, segment.handed, there)
    assert made is not None
    return made


def _parts(
    members: Sequence[Step], grains: Sequence[Grain], chip: Chip, handed: Collection[int], local: dict[int, int]
) -> Iterator[Part]:
    """The steps of a group in order; one that hands its tiles over is part of the one that takes them.

    Args:
        local: gets the group's number of every map.
    """
    word, wide = chip.machine.word_bytes, chip.machine.accumulator_bytes
    ahead: dict[int, tuple[int, tuple[Reading, ...], int]] = {}
    for number, (step, cut) in enumerate(zip(members, grains, strict=True)):
        before = next((ahead[m] for read in step.reads for m in read.maps if m in ahead), None)
        own = tuple(
            Reading(local.setdefault(m, len(local)), read.rows, read.columns, read.pointwise and len(read.maps) == 1)
            for read in step.reads
            for m in read.maps
            if m not in ahead
        )
        reads = (*before[1], *own) if before else own
        rows, columns = step.layer.shape.y.out, step.layer.shape.x.out
        tile = columns * cut.passing
        if step.map in handed:
            ahead[step.map] = number, reads, tile * word
            continue
        sums = (tile * wide if cut.tile < cut.bytes else 0) + (before[2] if before else 0)
        output = local.setdefault(step.map, len(local))
        yield Part(number, 0, rows, (0, columns), reads, (output,), (tile * word,), sums, before[0] if before else None)


def spillable(grouping: Grouping) -> Iterator[int]:
    """Maps that need not wait for the next strip: several steps read them, and either nobody behind the group does or
    they are in DRAM in any case."""
    group = grouping.group
    for m in group.computed:
        readers = sum(any(read.map == m for read in part.reads) for part in group.parts)
        if readers > 1 and (m not in group.later or grouping.steps.maps[grouping.maps[m]].must_store):
            yield grouping.maps[m]


def handable(grouping: Grouping) -> Iterator[int]:
    """Maps that may go tile by tile from the step that computes them to the one that adds them, and that alone reads
    them: if both are cut alike into planes, with all input channels at once, and have kernels of their own."""
    steps, first = grouping.steps, grouping.holding.first
    cuts = {
        number: cut
        for number, cut, place in zip(grouping.numbers, grouping.grains, first, strict=True)
        if cut.whole_planes and first.count(place) == 1
    }
    for number, one in cuts.items():
        m = steps.steps[number].map
        takes = [(taker, read) for taker in cuts for read in steps.steps[taker].reads if m in read.maps]
        if steps.maps[m].must_store or len(takes) != 1 or len(steps.readers[m]) != 1:
            continue
        two, read = cuts[takes[0][0]], takes[0][1]
        alike = (one.deal, one.planes, one.total) == (two.deal, two.planes, two.total)
        if alike and read.role != "input" and read.maps == (m,):
            yield m


def _windows(members: Iterable[Step]) -> dict[int, tuple[Window, ...]]:
    """Of every map read the windows of columns."""
    found: dict[int, list[Window]] = {}
    for step in members:
        for read in step.reads:
            for m in read.maps:
                found.setdefault(m, []).append(read.columns)
    return {m: tuple(dict.fromkeys(windows)) for m, windows in found.items()}


def _seen(made: FeatureMap, windows: tuple[Window, ...]) -> int:
    """Mask of the columns of a row: those that are read through some windows; all, if there are none."""
    return touched_by_any(windows) if windows else (1 << made.geometry.columns) - 1
