"""What of a machine matters to tensors that stay on chip: the units that share rows, and their memories."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from dnnc.layer import Shape
from dnnc.places import Dealt
from dnnc.schedule import Deal, deals
from dnnc_runtime.machine import Machine

MAPS = ("input", "second", "residual", "output", "partial_sums")
"""The machine's roles that feature maps on chip have in turn."""


@dataclass(frozen=True)
class Chip:
    """A machine as its feature maps see it.

    A map on chip is spread over the units of the outermost level by rows: every unit computes a block of the rows of
    a strip, and holds them. A row that another unit needs is sent to it.
    """

    machine: Machine

    @cached_property
    def why(self) -> str:
        """Why nothing can stay on chip from layer to layer; empty if it can."""
        machine = self.machine
        homes = {machine.memory_of(role).name for role in MAPS}
        if len(homes) > 1:
            return (
                f"{machine.name} holds inputs and outputs of layers in different memories ({', '.join(sorted(homes))})"
            )
        if machine.memory(homes.pop()).level != 0:
            return f"{machine.name} holds feature maps in memories inside its outermost units"
        if machine.levels[0].count > 1 and not machine.units_can_send:
            return f"the units of {machine.name} cannot send rows to each other"
        return ""

    @property
    def units(self) -> int:
        """Units of the outermost level."""
        return self.machine.levels[0].count

    @cached_property
    def memory(self) -> str:
        """The memory that feature maps lie in."""
        return self.machine.memory_of("output").name

    @cached_property
    def bytes(self) -> int:
        """Bytes of one unit's memory for feature maps."""
        return self.machine.memory(self.memory).bytes

    def deals(self, shape: Shape) -> tuple[Deal, ...]:
        """The modes that may run a layer by rows: every unit of the outermost level has rows of its own."""
        return _deals(shape, self.machine)


@lru_cache(maxsize=4096)
def _deals(shape: Shape, machine: Machine) -> tuple[Deal, ...]:
    by_rows = (deal for deal in deals(shape, machine) if deal.rows == machine.levels[0].count)
    return tuple(deal for deal in by_rows if len(Dealt(deal, machine).instances(0)) == deal.rows)
