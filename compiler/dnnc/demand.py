"""What is wanted of every map at every moment, and the bytes of that: true whatever the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from dnnc.axis import touched_by_any
from dnnc.chip import Chip
from dnnc.orders import Orders
from dnnc.steps import Steps
from dnnc.strips import fullest, kept
from dnnc_runtime.program import Window


class Held(NamedTuple):
    """A map between two segments: lines on chip of every unit's block, and whether all of it is in DRAM, too.

    One that is not mentioned is in DRAM alone.
    """

    map: int
    each: int
    stored: bool


State = tuple[Held, ...]


@dataclass(frozen=True)
class Demand:
    """What is wanted of a network's maps."""

    steps: Steps
    chip: Chip

    @cached_property
    def orders(self) -> Orders:
        """The orders in which layers may be executed; moments have the numbers that they have there."""
        return Orders(self.steps.needs)

    # -- maps -------------------------------------------------------------------------------------------------------

    def computed(self, position: int) -> tuple[int, ...]:
        """The maps that a position computes."""
        return self.steps.computed(position)

    def mask(self, m: int, each: int) -> int:
        """The lines of a map that are on chip if every unit keeps so many of its block."""
        return kept(self.steps.maps[m].lines, self.chip.units, each)

    def line(self, m: int) -> int:
        """Bytes of a line."""
        return self.steps.maps[m].words * self.chip.machine.word_bytes

    def demanded(self, m: int) -> int:
        """Bytes of a map that has to be in DRAM in any case; none of another."""
        made = self.steps.maps[m]
        return made.lines * self.line(m) if made.must_store else 0

    def whole(self, m: int) -> int:
        """Bytes of all lines of a unit's block of a map."""
        return -(-self.steps.maps[m].lines // self.chip.units) * self.line(m)

    def narrow(self, m: int) -> int:
        """Bytes of a line that every reader loads at least."""
        if m not in self._narrow:
            made = self.steps.maps[m]
            widths = [self._columns(position, m) for position in self.steps.readers.get(m, ())]
            columns = min(widths, default=made.geometry.columns)
            self._narrow[m] = columns * made.channels * self.chip.machine.word_bytes
        return self._narrow[m]

    @cached_property
    def _narrow(self) -> dict[int, int]:
        return {}

    def _columns(self, position: int, m: int) -> int:
        windows: list[Window] = []
        for number in self.steps.at[position]:
            windows += [read.columns for read in self.steps.steps[number].reads if m in read.maps]
        return touched_by_any(tuple(windows)).bit_count() if windows else self.steps.maps[m].geometry.columns

    # -- maps at a moment -------------------------------------------------------------------------------------------

    def wanted(self, m: int, moment: int) -> int:
        """Lines of a map that layers read which are not done."""
        key = m, moment
        if key not in self._wanted:
            self._wanted[key] = self.steps.wanted(m, self.orders.moments[moment])
        return self._wanted[key]

    @cached_property
    def _wanted(self) -> dict[tuple[int, int], int]:
        return {}

    def readers(self, m: int, moment: int) -> Iterator[int]:
        """The positions that read a map and are not done."""
        done = self.orders.moments[moment]
        return (reader for reader in self.steps.readers.get(m, ()) if not done >> reader & 1)

    def until(self, m: int, moment: int) -> int:
        """In how many layers a map is read next, in the model's order."""
        key = m, moment
        if key not in self._until:
            done = self.orders.moments[moment].bit_count()
            self._until[key] = min((abs(reader - done) for reader in self.readers(m, moment)), default=0)
        return self._until[key]

    @cached_property
    def _until(self) -> dict[tuple[int, int], int]:
        return {}

    def kept(self, m: int, each: int, moment: int) -> int:
        """Bytes of the lines on chip that are still read."""
        key = m, each, moment
        if key not in self._kept:
            self._kept[key] = (self.mask(m, each) & self.wanted(m, moment)).bit_count() * self.line(m)
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[tuple[int, int, int], int]:
        return {}

    def rows(self, m: int, each: int, moment: int) -> int:
        """Bytes of the lines on chip that are still read, in the unit that has most."""
        return fullest(self.steps.maps[m].lines, self.chip.units, each, self.wanted(m, moment)) * self.line(m)

    def lacking(self, m: int, each: int, moment: int) -> int:
        """Bytes of what is wanted of a map and not on chip: all of it is loaded at least once."""
        key = m, each, moment
        if key not in self._lacking:
            lines = self.wanted(m, moment) & ~self.mask(m, each)
            self._lacking[key] = lines.bit_count() * self.narrow(m)
        return self._lacking[key]

    @cached_property
    def _lacking(self) -> dict[tuple[int, int, int], int]:
        return {}

    def missing(self, state: Iterable[Held], moment: int) -> int:
        """The same of all maps that there are."""
        there = sum(self.lacking(m, each, moment) - self.lacking(m, 0, moment) for m, each, _ in state if each)
        return self.all_missing[moment] + there

    @cached_property
    def all_missing(self) -> tuple[int, ...]:
        """For every moment the same if nothing is on chip."""
        computed = {m for position in range(len(self.steps.at)) for m in self.computed(position)}
        given = (m for m in range(len(self.steps.maps)) if m not in computed)
        found = {0: sum(self.lacking(m, 0, 0) for m in given)}
        for moment in range(len(self.orders.moments) - 1):
            for position, stop in self.orders.next(moment):
                if stop not in found:
                    made = {*self.computed(position)}
                    read = {*self.steps.reads[position]} - made
                    less = sum(self.lacking(m, 0, moment) - self.lacking(m, 0, stop) for m in read)
                    found[stop] = found[moment] - less + sum(self.lacking(m, 0, stop) for m in made)
        return tuple(found[moment] for moment in range(len(self.orders.moments)))

    def last_read(self, m: int, moment: int, stop: int) -> int:
        """Bytes of a map that count as missing at a moment, and that nobody behind another one reads."""
        return (self.wanted(m, moment) & ~self.wanted(m, stop)).bit_count() * self.narrow(m)
