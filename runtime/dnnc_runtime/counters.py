"""Counts the DRAM bytes of a program while it is walked or executed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Host, Instruction, Load, Program, Role, Section, Store
from dnnc_runtime.tensor import View, bursts, elements

Direction = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes moved between DRAM and the chip: what the program asked for, and what the bus carried in bursts."""

    payload: int = 0
    bus: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.payload + other.payload, self.bus + other.bus)


class Counters:
    """A listener that adds up bytes by section, role and direction; host bytes are apart."""

    def __init__(self, program: Program) -> None:
        self._machine = program.machine
        self._placed = {value.name: prod(value.shape) for value in program.values}
        self._traffic: dict[tuple[str, Role, Direction], Bytes] = defaultdict(Bytes)
        self._host: dict[tuple[str, Direction], int] = defaultdict(int)
        self._section = ""
        self._views: dict[Role, View] = {}

    @property
    def traffic(self) -> Mapping[tuple[str, Role, Direction], Bytes]:
        """Bytes by section name, role and direction; what was not moved is not a key."""
        return dict(self._traffic)

    @property
    def host(self) -> Mapping[tuple[str, Direction], int]:
        """Payload bytes that host instructions read and write, by section name and direction."""
        return dict(self._host)

    def total(self, direction: Direction | None = None) -> Bytes:
        """All bytes moved by the array's layers, in one direction or both."""
        counted = (b for (_, _, way), b in self._traffic.items() if direction in (None, way))
        return sum(counted, Bytes())

    def begin(self, section: Section) -> None:
        """Start a section."""
        self._section = section.name
        self._views = dict(section.views)

    def step(self, index: int, instruction: Instruction) -> None:
        """Count a transfer or a host instruction; others move nothing."""
        if isinstance(instruction, Load | Store):
            way: Direction = "read" if isinstance(instruction, Load) else "write"
            view = self._views[instruction.role]
            self._traffic[self._section, instruction.role, way] += transferred(self._machine, view, instruction)
        elif isinstance(instruction, Host):
            word = self._machine.word_bytes
            self._host[self._section, "read"] += word * sum(self._placed[name] for name in instruction.inputs if name)
            self._host[self._section, "write"] += word * sum(self._placed[name] for name in instruction.outputs if name)

    def end(self, section: Section) -> None:
        """Nothing is left to count at the end of a section."""


def transferred(machine: Machine, view: View, transfer: Load | Store) -> Bytes:
    """The bytes of one transfer from or to a tensor in DRAM."""
    burst = machine.dram.burst_bytes
    size = machine.word_bytes if transfer.width == "word" else machine.accumulator_bytes
    payload = [elements(region) * size for region in transfer.transfers]
    if isinstance(transfer, Load) and transfer.packed:
        return Bytes(sum(payload), sum(-(-length // burst) * burst for length in payload))
    if transfer.width == "accumulator":
        units = size // machine.word_bytes
        view = View(view.tensor, view.offset // units, view.shape, tuple(s // units for s in view.strides))
    return Bytes(sum(payload), burst * sum(bursts(view, region, size, burst) for region in transfer.transfers))
