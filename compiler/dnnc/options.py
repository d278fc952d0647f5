"""What is known of a group whatever is on chip when it starts: the cuts that fit, and what those move at least.

A cut that takes as much memory as one that moves no more kernels is passed over. Where strips alone do not fit, neither
in this group nor in a shorter one that starts with the same layer, it is also cut into blocks of columns. Then it reads
all of its inputs from DRAM, and writes there all that is wanted behind it: only maps that it has nothing to do with
stay. Such a cut is passed over if it moves no fewer bytes than the layers do by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from dnnc.cuts import Cuts
from dnnc.layer import Shape
from dnnc.strips import Group, kept


@dataclass(frozen=True)
class Block:
    """All that decides which ways there are to run a group, with its own numbers of maps.

    Attributes:
        kernels: for every step the bytes of kernels and parameters for one section, and for every further one.
        room: bytes of a unit's memory for feature maps.
        loads: for every map the bytes of a line that are loaded.
        wanted: for every map the lines that steps behind the group read, and in how many positions they do first.
        demanded: maps computed that have to be in DRAM.
        stays: maps that may be on chip behind the group, if all that is wanted of them is computed or loaded in it.
        narrow: for every map the bytes of a line that every reader in the network loads at least.
        alone: bytes that its layers move by themselves.
        by_rows: whether shorter groups that start with the same layer can be cut into strips alone.
        spills: for every map the bytes that a line of it moves that does not wait for the next strip.
        shapes: of its steps, where time has a price.
    """

    group: Group
    kernels: tuple[tuple[int, int], ...]
    room: int
    loads: tuple[int, ...]
    wanted: tuple[tuple[int, int], ...]
    demanded: frozenset[int]
    stays: frozenset[int]
    narrow: tuple[int, ...]
    alone: int
    by_rows: bool
    spills: tuple[int, ...]
    shapes: tuple[Shape, ...]

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Maps that the group reads and does not compute."""
        return tuple(m for m in range(len(self.group.lines)) if m not in self.group.computed)

    def mask(self, m: int, each: int) -> int:
        """The lines of a map that are on chip if every unit keeps so many of its block."""
        return kept(self.group.lines[m], self.group.units, each)

    def kernels_moved(self, sections: Sequence[int]) -> int:
        """Bytes of kernels and parameters."""
        return sum(once + (times - 1) * again for (once, again), times in zip(self.kernels, sections, strict=True))

    @cached_property
    def stored(self) -> int:
        """Bytes of what has to be in DRAM in any case."""
        return sum(self.group.lines[m] * self.group.sizes[m] for m in self.demanded)


@dataclass(eq=False)
class Options:
    """The cuts of a block, and what is known of them whatever is on chip when it starts.

    Attributes:
        price: what the time is worth in bytes that a cut takes longer than its layers by themselves.
    """

    block: Block
    cuts: Cuts
    price: Callable[[int], int]

    @cached_property
    def in_blocks(self) -> bool:
        """Whether it is only cut into blocks of columns, for strips alone do not fit."""
        if self.block.group.strips_only:
            return False
        return not self.block.by_rows or next(self._fitting(range(len(self.cuts.strips))), None) is None

    @property
    def floor(self) -> int:
        """Bytes that no cut goes below, nor any of the same layers where rows take less room."""
        return self.kernels(self._in_strips[0])

    def levels(self, below: int | None = None) -> Iterator[int]:
        """The cuts (as levels) that fit at all when everything else is in DRAM, without those that take as much memory
        as one that moves no more kernels.

        Args:
            below: only those that move fewer kernels; the others are not even looked at.
        """
        if below is None or self.floor < below:
            yield from self._fitting(self._in_blocks if self.in_blocks else self._in_strips, below)

    def _fitting(self, levels: Iterable[int], below: int | None = None) -> Iterator[int]:
        least: int | None = None
        for level in levels:
            if below is not None and self.kernels(level) >= below:
                return
            peak = self.cuts.bare(level, self.block.room)
            if peak is not None and (least is None or peak < least):
                least = peak
                yield level

    @cached_property
    def _in_strips(self) -> tuple[int, ...]:
        """The cuts into strips alone: those that move fewest kernels first.

        These need not be those of fewest strips: an early layer has nothing left to do in the last strips where those
        ahead of them already take all of it.
        """
        return tuple(sorted(range(len(self.cuts.strips)), key=self.kernels))

    @cached_property
    def _in_blocks(self) -> tuple[int, ...]:
        """The cuts into blocks of columns that pay: those that move fewest kernels first.

        One pays if it moves fewer bytes than the layers do by themselves.
        """
        block, cuts = self.block, self.cuts
        needed = cuts.walk(0).needed
        fixed = sum(needed[m].bit_count() * block.loads[m] for m in block.inputs)
        fixed += sum(block.wanted[m][0].bit_count() * block.group.sizes[m] for m in self._only_wanted)
        spare, strips = block.alone - fixed, range(len(cuts.strips))
        # In blocks it moves no fewer kernels than without.
        if self.floor >= spare:
            return ()
        levels = (cuts.level(blocks, each) for blocks in range(1, len(cuts.blocks)) for each in strips)
        pay = [level for level in levels if self.kernels(level) < spare]
        return tuple(sorted(pay, key=lambda level: (self.kernels(level), sum(cuts.sections(level)), level)))

    @cached_property
    def fits(self) -> bool:
        """Whether there is room for some cut; in blocks, as far as is known with little work."""
        if not self.in_blocks:
            return next(self.levels(), None) is not None
        # There most likely is for the finest.
        return any(self.cuts.may_fit(level, self.block.room) for level in reversed(self._in_blocks))

    @property
    def hopeless(self) -> bool:
        """Whether no cut fits, though some into blocks of columns would pay: no longer group is looked at then."""
        return not self.fits and bool(self._in_blocks)

    @property
    def _only_wanted(self) -> Iterator[int]:
        """Maps computed that are in DRAM only for layers behind the group."""
        return (m for m in self.block.group.later if m not in self.block.demanded)

    def kernels(self, level: int) -> int:
        """Bytes of kernels, of what has to be in DRAM in any case, and of what does not wait for the next strip; and
        what the time is worth."""
        if level not in self._kernels:
            moved = self.block.kernels_moved(self.cuts.sections(level)) + self.block.stored
            if self.block.group.spilled:
                moved += sum(mask.bit_count() * self.block.spills[m] for m, mask in self.cuts.walk(level).again.items())
            self._kernels[level] = moved + self.price(level)
        return self._kernels[level]

    @cached_property
    def _kernels(self) -> dict[int, int]:
        return {}

    def moved(self, level: int, loaded: Mapping[int, int]) -> int:
        """Bytes of kernels, of these lines of maps (or of their pieces), and of what has to be in DRAM in any case."""
        loads = self.cuts.walk(level).group.sizes if self.in_blocks else self.block.loads
        return self.kernels(level) + sum(lines.bit_count() * loads[m] for m, lines in loaded.items())

    def least(self, level: int) -> int:
        """Bytes that a cut moves whatever the state: also what there is no room for, written and read once."""
        if level not in self._least:
            self._least[level] = self.kernels(level) + self._gone(level)
        return self._least[level]

    @cached_property
    def _least(self) -> dict[int, int]:
        return {}

    def _gone(self, level: int) -> int:
        block, group = self.block, self.block.group
        rows = {m: block.wanted[m][0] for m in self._only_wanted}
        if not rows:
            return 0
        if self.in_blocks:
            return sum(lines.bit_count() * (group.sizes[m] + block.narrow[m]) for m, lines in rows.items())
        if group.units == 1:
            excess = self.cuts.run(level, (), tuple(sorted(rows.items()))).peak - block.room
        else:
            total = sum(lines.bit_count() * group.sizes[m] for m, lines in rows.items())
            excess = total - group.units * block.room
        return max(0, excess) + min(max(0, excess) * block.narrow[m] // group.sizes[m] for m in rows)

    def least_of_all(self, below: int) -> int:
        """Likewise with the cut that moves the least, if it is less than that; else that."""
        if self.floor >= below:
            return below
        if self.in_blocks:
            # What a cut into blocks of columns moves beside kernels is the same for all.
            levels = takewhile(lambda level: self.kernels(level) < below, self._in_blocks)
            level = next((level for level in levels if self.cuts.may_fit(level, self.block.room)), None)
            return below if level is None else min(below, self.least(level))
        for level in self.levels(below):
            if self.kernels(level) >= below:
                break
            below = min(below, self.least(level))
        return below
