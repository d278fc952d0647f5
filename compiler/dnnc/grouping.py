"""Layers as a group that runs by strips: its steps, how their kernels are cut, and what of those stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dnnc.axis import touched_by_any
from dnnc.chip import Chip
from dnnc.columns import in_blocks
from dnnc.orders import mask_of
from dnnc.steps import Steps
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
    def local(self) -> dict[int, int]:
        """The group's number of every map, of a piece of it if it is cut."""
        return {m: i for i, m in enumerate(self.maps)}

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
        found: dict[int, list[Window]] = {}
        for number in self.numbers:
            for read in self.steps.steps[number].reads:
                for m in read.maps:
                    found.setdefault(m, []).append(read.columns)
        return {m: tuple(dict.fromkeys(windows)) for m, windows in found.items()}

    def touched(self, m: int) -> int:
        """Mask of the columns of a map that the group reads; 0 if these are all."""
        mask = touched_by_any(self.columns[m])
        return 0 if mask.bit_count() == self.steps.maps[m].geometry.columns else mask

    def line_bytes(self, m: int, word: int) -> int:
        """Bytes of the columns of a line that are loaded."""
        return touched_by_any(self.columns[m]).bit_count() * self.steps.maps[m].channels * word

    def loaded_bytes(self, number: int, word: int) -> int:
        """The same of a map, or of a piece of it, by the group's number."""
        m, columns = self.pieces[number]
        return columns.bit_count() * self.steps.maps[m].channels * word if columns else self.line_bytes(m, word)


def grouped(steps: Steps, chip: Chip, positions: tuple[int, ...], columns: Sequence[int] = ()) -> Grouping | None:
    """Some layers as a group, in the model's order; None where one of them cannot be run by strips.

    Args:
        columns: of the last step's output computed by the end of every block of columns; none for one block.
    """
    numbers = tuple(number for position in positions for number in steps.at[position])
    members = [steps.steps[number] for number in numbers]
    if not all(steps.at[position] for position in positions) or any(step.why for step in members):
        return None
    if len({step.layer.shape.n for step in members}) > 1:
        return None
    cuts = [grain(step.layer.shape, chip) for step in members]
    grains = tuple(cut for cut in cuts if cut is not None)
    holding = hold(grains, chip.machine) if len(grains) == len(cuts) else None
    if holding is None:
        return None
    word, wide = chip.machine.word_bytes, chip.machine.accumulator_bytes
    local: dict[int, int] = {}
    parts: list[Part] = []
    for number, (step, cut) in enumerate(zip(members, grains, strict=True)):
        reads = tuple(
            Reading(local.setdefault(m, len(local)), read.rows, read.columns, read.pointwise and len(read.maps) == 1)
            for read in step.reads
            for m in read.maps
        )
        tile = step.layer.shape.x.out * cut.passing
        sums = tile * wide if cut.tile < cut.bytes else 0
        output = local.setdefault(step.map, len(local))
        rows, wide_out = step.layer.shape.y.out, step.layer.shape.x.out
        parts.append(Part(number, 0, rows, (0, wide_out), reads, (output,), (tile * word,), sums))
    maps = tuple(local)
    computed = (step.map for step in members)
    later = tuple(sorted(m for m in computed if steps.maps[m].must_store or steps.wanted(m, mask_of(positions))))
    group = Group(
        tuple(parts),
        tuple(steps.maps[m].lines for m in maps),
        tuple(steps.maps[m].words * word for m in maps),
        tuple((1 << steps.maps[m].geometry.columns) - 1 for m in maps),
        frozenset(local[m] for m in later),
        members[0].layer.shape.n,
        chip.units,
    )
    made = Grouping(positions, steps, numbers, group, maps, later, grains, holding)
    return made.in_blocks(columns) if len(columns) > 1 else made
