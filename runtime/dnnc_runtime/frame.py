"""A section's frame: what each role's tensor is, where it lives on chip, and what an instruction reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import get_args

import numpy as np

from dnnc_runtime.addressing import Bank, banks
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Compute, Kernel, Load, Move, Part, Pool, Role, Section, Store, Window
from dnnc_runtime.regions import Integers, listed
from dnnc_runtime.tensor import Axis, Piece, Region, View, coordinates, runs, span

OPERANDS: dict[str, tuple[tuple[Role, ...], tuple[Role, ...]]] = {
    "conv": (("input", "weights"), ("bias", "residual", "slope")),
    "pool": (("input",), ("slope",)),
    "add": (("input", "second"), ("slope",)),
    "sub": (("input", "second"), ("slope",)),
    "mul": (("input", "second"), ("slope",)),
    "scale": (("input", "scale", "bias"), ("slope",)),
    "identity": (("input",), ("slope",)),
}
"""Operation -> operands that every visit reads, and those that the last visit reads if the section has them."""

_HOME: dict[Role, str] = {
    "bias": "parameters", "scale": "parameters", "slope": "parameters", "accumulator": "partial_sums",
    "tile": "output", "pending": "output",
}  # fmt: skip
_ALIAS: dict[Role, Role] = {"partial_sums": "accumulator"}

Access = tuple[Role, tuple[Piece, ...], Region]
"""A role, the pieces named for it, and the region that they have to hold."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What holds for all instructions of one section on the array."""

    name: str
    kernel: Kernel
    views: dict[Role, View]
    homes: dict[Role, Bank]
    shapes: dict[Role, tuple[int, ...]]
    widths: dict[Role, int]
    seen: dict[tuple[int, int], tuple[Axis, Axis]] = field(default_factory=dict[tuple[int, int], tuple[Axis, Axis]])

    @property
    def fused_pool(self) -> Pool | None:
        """The pool behind the operation, if it is not the operation itself."""
        return None if self.kernel.operation == "pool" else self.kernel.pool

    def reads(self, compute: Compute, part: Part) -> list[Access]:
        """The operands that a part of a compute instruction reads."""
        held = dict(part.operands)
        visit, last = OPERANDS[self.kernel.operation]
        roles: tuple[Role, ...] = (
            visit if not compute.last else (*visit, *(role for role in last if role in self.views))
        )
        if not compute.first:
            roles = (*roles, "accumulator")
        needs = self.needs(part.region, compute.reduce)
        return [(role, self._pieces(held, role), needs.get(role, part.region)) for role in roles]

    def input(self, compute: Compute, part: Part) -> Access:
        """The input that a part of a compute instruction reads."""
        need = self.needs(part.region, compute.reduce)["input"]
        return "input", self._pieces(dict(part.operands), "input"), need

    def needs(self, region: Region, reduce: tuple[int, int]) -> dict[Role, Region]:
        """What an output region needs of the operands that are not indexed as it is itself."""
        n, y, x, g, k = region
        rows, columns = self._touched(1, self.kernel.y, y), self._touched(2, self.kernel.x, x)
        if self.kernel.operation != "conv":
            sizes = self.shapes.get("second", ())
            second = tuple(_ONE if size == 1 else axis for axis, size in zip(region, sizes, strict=False))
            return {
                "input": (n, rows, columns, g, k),
                "second": second,
                "scale": (g, k),
                "bias": (g, k),
                "slope": (g, k),
            }
        channels = span(reduce[0], reduce[1] - reduce[0])
        weights = g, k, span(0, self.kernel.y.kernel), span(0, self.kernel.x.kernel), channels
        return {"input": (n, rows, columns, g, channels), "weights": weights, "bias": (g, k), "slope": (g, k)}

    def _touched(self, which: int, window: Window, outputs: Axis) -> Axis:
        """:func:`touched`, remembered by the identity of the axis: programs share their axes."""
        key = which, id(outputs)
        if key not in self.seen:
            self.seen[key] = outputs, touched(window, outputs)
        return self.seen[key][1]

    def writes(self, compute: Compute, part: Part) -> Access:
        """What a part of a compute instruction writes."""
        role: Role = "accumulator" if not compute.last else "tile" if self.fused_pool else "output"
        return role, self._pieces(dict(part.operands), role), part.region

    def pool_reads(
        self, part: Part, before: tuple[Piece, ...], after: tuple[Piece, ...]
    ) -> tuple[Access, list[Access]]:
        """The tile, at the rows that its windows read, and the partial results of before, one by one."""
        assert self.fused_pool is not None
        n, y, x, g, k = part.region
        seen = touched(self.fused_pool.y, self.windows(part, after))
        tile: Region = (n, runs(sorted({*coordinates(seen)} & {*coordinates(y)})), x, g, k)
        return ("tile", self._pieces(dict(part.operands), "tile"), tile), [
            ("pending", (piece,), piece.region) for piece in before
        ]

    def pool_writes(self, part: Part, after: tuple[Piece, ...]) -> list[Access]:
        """The windows that the tile completes, and those that it leaves pending."""
        done = self.completed(part)
        return [
            ("output", done, self.pooled(part, _rows(done))),
            ("pending", after, self.pooled(part, _rows(after))),
        ]

    def windows(self, part: Part, after: tuple[Piece, ...]) -> Axis:
        """The pooled rows that a part completes or leaves pending."""
        return _rows((*self.completed(part), *after))

    def pooled(self, part: Part, rows: Axis) -> Region:
        """Pooled rows of a part's tile."""
        n, _, _, g, k = part.region
        return n, rows, span(0, self.shapes["output"][2]), g, k

    @staticmethod
    def completed(part: Part) -> tuple[Piece, ...]:
        """The pieces of the windows that a part completes; it may complete none."""
        return next((pieces for role, pieces in part.operands if role == "output"), ())

    def _pieces(self, held: dict[Role, tuple[Piece, ...]], role: Role) -> tuple[Piece, ...]:
        if role not in held:
            raise DisagreementFault(f"a part names no pieces of {role}, which {self.kernel.operation} needs")
        return held[role]


_ONE = span(0, 1)


def _rows(pieces: tuple[Piece, ...]) -> Axis:
    """The rows that pieces hold."""
    return runs(sorted({row for piece in pieces for row in coordinates(piece.region[1])}))


@lru_cache(maxsize=4096)
def touched(window: Window, outputs: Axis) -> Axis:
    """The input coordinates that a set of outputs touches; padding is not among them."""
    points = _taps(window, outputs)
    return runs(np.unique(points[(points >= 0) & (points < window.size)]).tolist())


@lru_cache(maxsize=4096)
def taps(window: Window, outputs: Axis, inputs: Axis) -> Integers:
    """[output, tap] -> position in the list of inputs; taps that are not among them are one after the last."""
    held = listed(inputs)
    points = _taps(window, outputs)
    place = np.searchsorted(held, points)
    found = place < len(held)
    found[found] = held[place[found]] == points[found]
    return np.where(found, place, len(held))


def _taps(window: Window, outputs: Axis) -> Integers:
    out = listed(outputs)[:, None] * window.stride
    return out + np.arange(window.kernel)[None, :] * window.dilation - window.pad


def frame(machine: Machine, section: Section) -> Frame:
    """The frame of a section that runs on the array."""
    assert section.kernel is not None
    views = dict(section.views)
    allowed = {role for roles in OPERANDS[section.kernel.operation] for role in roles} | {"output", "partial_sums"}
    if extra := sorted(set(views) - allowed):
        raise DisagreementFault(f"layer {section.name!r}: {section.kernel.operation} takes no {', '.join(extra)}")
    shapes, widths = _shapes(section.kernel, views), _widths(machine, section.kernel)
    return Frame(section.name, section.kernel, views, _homes(machine, section), shapes, widths)


def _widths(machine: Machine, kernel: Kernel) -> dict[Role, int]:
    """Words of one element of every role."""
    wide: set[Role] = {"accumulator", "partial_sums"}
    if kernel.pool is not None and kernel.pool.kind == "average":
        wide.add("pending")
    return {role: machine.accumulator_bits // machine.word_bits if role in wide else 1 for role in get_args(Role)}


def _homes(machine: Machine, section: Section) -> dict[Role, Bank]:
    """Where each role lives: as the transfers of the section say, else as the machine's roles say."""
    named: dict[Role, str] = {}
    for instruction in section.instructions:
        if isinstance(instruction, Load | Store | Move):
            role = _ALIAS.get(instruction.role, instruction.role)
            if named.setdefault(role, instruction.memory) != instruction.memory:
                raise DisagreementFault(
                    f"layer {section.name!r}: {role} lies in memory {instruction.memory!r}, expected {named[role]!r}"
                )
    for role in ("tile", "pending"):
        if "output" in named:
            named.setdefault(role, named["output"])
    roles, known = dict(machine.roles), banks(machine)
    everything: dict[Role, str] = {role: roles[_HOME.get(role, role)] for role in SPACES}
    everything |= named
    for role, memory in everything.items():
        if memory not in known:
            raise DisagreementFault(f"layer {section.name!r}: {role} lies in {memory!r}, which is no memory")
    return {role: known[memory] for role, memory in everything.items()}


SPACES: tuple[Role, ...] = (
    "input", "second", "weights", "bias", "scale", "slope", "residual", "output", "accumulator", "tile", "pending",
)  # fmt: skip
"""Roles that words on chip can belong to; partial sums are accumulators that went to DRAM."""


def space(role: Role) -> Role:
    """The role under which words on chip are known."""
    return _ALIAS.get(role, role)


def _shapes(kernel: Kernel, views: dict[Role, View]) -> dict[Role, tuple[int, ...]]:
    """The logical shape of every role; accumulators and unpooled tiles lie at the operation's rows and columns."""
    shapes: dict[Role, tuple[int, ...]] = {role: view.shape for role, view in views.items()}
    n, _, _, g, k = shapes["output"]
    shapes["accumulator"] = shapes["tile"] = (n, kernel.y.out, kernel.x.out, g, k)
    shapes["pending"] = shapes["output"]
    return shapes
