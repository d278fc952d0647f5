"""What a plan's time is worth in bytes, where not bytes alone count: for every cycle that a segment takes longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from dnnc.chip import Chip
from dnnc.cuts import Cuts
from dnnc.grouping import Grouping
from dnnc.layer import Shape
from dnnc.weights import Grain, cycles


@dataclass(frozen=True)
class Price:
    """The price of time.

    Attributes:
        bytes: that a cycle is worth by which a segment takes longer than its layers by themselves.
        cycles: by position, those of its layer by itself.
    """

    chip: Chip
    bytes: float
    cycles: tuple[int, ...]

    def of_group(self, grouping: Grouping, cuts: Cuts) -> Callable[[int], int]:
        """The price of running a group, by the number of its cut: its transfers are taken to hide behind the array.

        Blocks of columns take as long together as whole rows.
        """
        layers = [grouping.steps.steps[number].layer.shape for number in grouping.numbers]
        alone = sum(self.cycles[position] for position in grouping.positions)

        @cache
        def price(strips: int) -> int:
            took = 0
            for section in cuts.group.sections(cuts.strips[strips]):
                cuts.meter.work += 1
                blocks = tuple(block for block in section.blocks if block[1] > block[0])
                for step in cuts.group.parts[section.part].steps:
                    took += _cycles(layers[step], grouping.grains[step], self.chip, blocks, section.columns)
            return self._worth(took - alone)

        return lambda level: price(level % len(cuts.strips))

    def of_nest(self, position: int, took: int) -> int:
        """The price of a layer that takes so many cycles with operands on chip."""
        return self._worth(took - self.cycles[position])

    def _worth(self, longer: int) -> int:
        return round(max(0, longer) * self.bytes)


@lru_cache(maxsize=65536)
def _cycles(
    shape: Shape, cut: Grain, chip: Chip, blocks: tuple[tuple[int, int], ...], columns: tuple[int, int]
) -> int:  # fmt: skip
    return cycles(shape, cut, chip, blocks, columns)
