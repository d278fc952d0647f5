"""Goes through a plan of all layers without its search: what is on chip, whether there is room for it, and what moves.

Every plan is held against it before anybody uses it, whether it was just found or read from a file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from dnnc.chip import Chip
from dnnc.documents import Damaged
from dnnc.grouping import Grouping, group_of
from dnnc.nests import nested
from dnnc.orders import mask_of
from dnnc.plan import Plan
from dnnc.segments import Alone, Segment, Strips, staying
from dnnc.steps import Steps
from dnnc.strip_run import Run, run
from dnnc.strips import Walk, home, kept, walk


def moved_bytes(
    segments: Sequence[Segment], steps: Steps, chip: Chip, alone: Sequence[tuple[int, int]]
) -> int:  # fmt: skip
    """DRAM bytes of a plan, found without giving anything its place. Raises Damaged if it cannot run."""
    return _Replay(steps, chip, segments, alone).bytes()


def check_network(plan: Plan, steps: Steps, chip: Chip, alone: Sequence[tuple[int, int]]) -> None:
    """A plan of all layers can run, and moves what it is said to: by segments, and by layers.

    Args:
        alone: for every position the DRAM bytes of its layer by itself, and the bytes of feature maps in a unit.

    Raises:
        Damaged: it cannot, or does not.
    """
    network = plan.network
    assert network is not None
    by_segments, by_layers = moved_bytes(network.segments, steps, chip, alone), plan.totals.dram_bytes
    if network.bytes != by_segments:
        raise Damaged(f"the plan is said to move {network.bytes:,} bytes, its segments move {by_segments:,}")
    if network.bytes != by_layers:
        raise Damaged(f"the plan is said to move {network.bytes:,} bytes, its layers move {by_layers:,}")


@dataclass
class _Replay:
    """A plan gone through: which lines are on chip, whether there is room for them, and what moves.

    Attributes:
        present: by map and unit the lines on chip.
        loaded: by map the lines that are read from DRAM; ``moved``: bytes, without those that are written by strips.
        left: maps that layers under their own schedules have left on chip.
        done: mask of the layers that have been gone through.
    """

    steps: Steps
    chip: Chip
    segments: Sequence[Segment]
    alone: Sequence[tuple[int, int]]
    present: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    moved: int = 0
    left: list[int] = field(default_factory=list[int])
    done: int = 0

    def bytes(self) -> int:
        """DRAM bytes of the plan. Raises Damaged if it cannot run."""
        for number, (segment, stay) in enumerate(zip(self.segments, staying(self.segments), strict=False)):
            left = {
                (m, unit): lines & self._block(m, unit, stay.get(m, 0)) & self.steps.wanted(m, self.done)
                for (m, unit), lines in self.present.items()
            }
            self.present = {key: lines for key, lines in left.items() if lines}
            try:
                if isinstance(segment, Strips):
                    self._strips(segment)
                elif segment.schedule is None:
                    self._alone(segment)
                else:
                    self._nest(segment)
            except Damaged as wrong:
                raise Damaged(f"segment {number}: {wrong}") from None
        by_strips = (s.positions for s in self.segments if isinstance(s, Strips))
        numbers = (number for positions in by_strips for position in positions for number in self.steps.at[position])
        written = [*(self.steps.steps[number].map for number in numbers), *self.left]
        return self.moved + sum(self._stored(m) for m in written)

    def _stored(self, m: int) -> int:
        made = self.steps.maps[m]
        lines = made.lines if made.must_store else self.loaded.get(m, 0).bit_count()
        return lines * self._line(m)

    def _line(self, m: int) -> int:
        return self.steps.maps[m].words * self.chip.machine.word_bytes

    def _block(self, m: int, unit: int, each: int) -> int:
        """The lines of a unit's block of a map, if it keeps so many."""
        lines, units = self.steps.maps[m].lines, self.chip.units
        return kept(lines, units, each) & home(lines, units, unit)

    def _held(self, without: Collection[int] = ()) -> int:
        """Bytes on chip in the unit that holds most."""
        held = [0] * self.chip.units
        for (m, unit), lines in self.present.items():
            held[unit] += 0 if m in without else lines.bit_count() * self._line(m)
        return max(held)

    def _alone(self, segment: Alone) -> None:
        self.done |= mask_of(segment.positions)
        moved, taken = self.alone[segment.position]
        if taken + self._held() > self.chip.bytes and self.present:
            raise Damaged("there is no room for the rows that stay on chip")
        for m in self.steps.reads[segment.position]:
            self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        self.moved += moved

    def _begin(self, entering: Sequence[tuple[int, int]]) -> None:
        """What a segment starts with is there."""
        for m, each in entering:
            wanted = self.steps.wanted(m, self.done)
            if any(self._block(m, u, each) & wanted & ~self.present.get((m, u), 0) for u in range(self.chip.units)):
                raise Damaged(f"{each} lines of map {m} are not on chip when it starts")

    def _nest(self, segment: Alone) -> None:
        self._begin(segment.entering)
        self.done |= mask_of(segment.positions)
        made = nested(self.steps, self.chip, segment)
        if "output" in made.maps:
            lines, units = self.steps.maps[made.output].lines, self.chip.units
            self.present.update({(made.output, unit): home(lines, units, unit) for unit in range(units)})
            self.left.append(made.output)
        if made.figures.memory[self.chip.memory] + self._held() > self.chip.bytes:
            raise Damaged("there is no room for the rows that stay on chip")
        here = {m for maps in made.maps.values() for m in maps}
        for m in self.steps.reads[segment.position]:
            if m not in here:
                self.loaded[m] = self.loaded.get(m, 0) | self.steps.touched(segment.position, m)
        self.moved += made.figures.dram_bytes

    def _strips(self, segment: Strips) -> None:
        grouping = group_of(self.steps, self.chip, segment)
        maps = self.steps.maps
        self._begin(segment.entering)
        self.done |= mask_of(segment.positions)
        entering = dict.fromkeys(range(len(grouping.maps)), 0)
        for (m, _), lines in self.present.items():
            if m in grouping.local:
                entering[grouping.local[m]] |= lines
        leaving = {
            grouping.local[m]: kept(maps[m].lines, self.chip.units, each) & self.steps.wanted(m, self.done)
            for m, each in segment.leaving
            if m in grouping.local
        }
        room = self.chip.bytes - grouping.holding.maps - self._held(grouping.local)
        way = walk(grouping.group, segment.bounds)
        found = run(way, entering, leaving, record=True, room=room)
        if not found.whole:
            raise Damaged("there is no room for its rows on chip")
        if not segment.columns:
            self._after(grouping, found)
        self._count(grouping, way, found)

    def _after(self, grouping: Grouping, found: Run) -> None:
        """What is on chip when a segment ends."""
        now = {(grouping.local[m], u): lines for (m, u), lines in self.present.items() if m in grouping.local}
        for event in found.events:
            more = [*event.loads, *((m, to, lines) for m, _, to, lines in (*event.moves, *event.homing))]
            more += [*event.rows, *((out, unit, lines) for _, out, unit, lines in event.over)]
            for m, unit, lines in more:
                now[m, unit] = now.get((m, unit), 0) | lines
            for m, unit, lines in event.dead:
                now[m, unit] &= ~lines
        for (i, unit), lines in now.items():
            m = grouping.maps[i]
            # A row that is loaded has the columns that this group reads.
            torn = found.loaded.get(i, 0) if i in found.loaded and grouping.touched(m) else 0
            self.present[m, unit] = lines & ~torn & home(self.steps.maps[m].lines, self.chip.units, unit)

    def _count(self, grouping: Grouping, way: Walk, found: Run) -> None:
        word = self.chip.machine.word_bytes
        for times, (once, again) in zip(way.sections, grouping.kernels, strict=True):
            self.moved += once + (times - 1) * again
        for event in found.events:
            for i, _, lines in event.loads:
                m = grouping.maps[i]
                self.loaded[m] = self.loaded.get(m, 0) | lines
                self.moved += lines.bit_count() * grouping.loaded_bytes(i, word)
