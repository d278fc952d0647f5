"""A listener that turns instructions into jobs: which unit works on each, for how long, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

from dnnc_runtime.counters import Bytes, transferred
from dnnc_runtime.durations import Durations, Work
from dnnc_runtime.frame import Frame, frame, space
from dnnc_runtime.hazards import Hazards, Held, Use
from dnnc_runtime.program import Compute, Instruction, Load, Move, PoolTile, Program, Role, Section, Store
from dnnc_runtime.tensor import Piece, Region, View

Unit = Literal["dram", "array", "vector", "links"]
UNITS: tuple[Unit, ...] = get_args(Unit)
"""The DRAM channel, the MAC array, the vector unit (pools, elementwise), the links between units."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an instruction asks of a unit.

    Attributes:
        unit: the unit; ``name``: what it does there, such as "load weights".
        section, instruction: where it stands in the program.
        ticks: how long it takes, in the clock of :class:`Jobs`.
        moved: DRAM bytes.
        work: cycles of the array or the vector unit, and what they are made of.
        after: jobs that have to end first.
        behind: the section that has to have ended first, -1 for none.
        uses: words on chip.
    """

    unit: Unit
    name: str
    section: int
    instruction: int
    ticks: int
    moved: Bytes
    work: Work
    after: frozenset[int]
    behind: int
    uses: tuple[Use, ...]

    @property
    def computes(self) -> bool:
        """Whether it is the layer's own operation, and not what is fused behind it."""
        return self.name == "compute"


@dataclass(slots=True)
class _Access:
    """The words that a job in the making uses, and the jobs that it therefore waits for."""

    job: int
    hazards: Hazards
    frame: Frame
    after: set[int] = field(default_factory=set[int])
    uses: dict[int, Use] = field(default_factory=dict[int, Use])

    def read(self, role: Role, pieces: Sequence[Piece], queue: object) -> None:
        """Words are read; see :meth:`Hazards.read` for the queue."""
        held = self._held(role, pieces)
        self.after |= self.hazards.read(self.job, held, queue)
        self.uses.update({id(use): use for use in held.uses(False)})

    def write(self, role: Role, pieces: Sequence[Piece]) -> None:
        """Words are overwritten."""
        held = self._held(role, pieces)
        self.after |= self.hazards.write(self.job, held)
        self.uses.update({id(use): use for use in held.uses(True)})

    def _held(self, role: Role, pieces: Sequence[Piece]) -> Held:
        return self.hazards.held(self.frame.homes[space(role)].name, pieces, self.frame.widths[role])


class Jobs:
    """A listener that collects a program's jobs, in program order.

    Times are in ticks of an exact clock: ``ticks_per_cycle`` to a cycle of the machine, ``ticks_per_byte`` to a byte
    on the DRAM channel.

    Args:
        program: that is walked, executed, or only told (:func:`dnnc_runtime.walk.tell`).
        ahead: whether constants may be loaded before what the section waits for has ended, as far as there is room.

    Raises:
        UsageFault: a section names no mode of the machine.
    """

    def __init__(self, program: Program, ahead: bool = False) -> None:
        self.machine, self.sections, self.jobs = program.machine, list[str](), list[Job]()
        speed = Fraction(self.machine.clock_hz) / Fraction(self.machine.dram.bytes_per_second)
        per_byte = speed.limit_denominator(10_000)
        self.ticks_per_cycle, self.ticks_per_byte = per_byte.denominator, per_byte.numerator
        self._early = {tensor.name for tensor in program.tensors if tensor.constant} if ahead else set[str]()
        self._hazards, self._before = Hazards(), Hazards()
        self._kept = self._hosted = False
        # By section, the one that has to have ended first, -1 for none; that which constants loaded ahead wait for.
        self.behind, self._far_behind = list[int](), -1
        # Of the section: jobs that store and load partial sums.
        self._spilled, self._reloaded = set[int](), set[int]()
        # Since all had to end, by tensor: jobs that used it for partial sums; words stored, and by which job.
        self._scratch, self._stored = dict[str, set[int]](), dict[str, list[tuple[int, int, int]]]()
        self._make: dict[type[Instruction], Callable[[int, Any], None]] = {
            Load: self._load,
            Store: self._store,
            Move: self._move,
            Compute: self._compute,
            PoolTile: self._pool,
        }

    def begin(self, section: Section) -> None:
        """A section starts: when the one before has ended, unless that kept anything."""
        last = len(self.sections) - 1
        if not self._kept:
            self._before, self._hazards = self._hazards, Hazards()
        # What the host does is not timed: what it reads is stored before, what it writes is there after.
        if not self._kept or self._hosted:
            self._far_behind = self.behind[-1] if self.behind else -1
            self._scratch, self._stored = {}, {}
            self.behind.append(last)
        else:
            self.behind.append(self.behind[-1])
        self.sections.append(section.name)
        self._kept, self._hosted = bool(section.kept), section.kernel is None
        self._spilled, self._reloaded = set(), set()
        if section.kernel is not None:
            self._frame = frame(self.machine, section)
            self._durations = Durations(self.machine, section)

    def step(self, index: int, instruction: Instruction) -> None:
        """An instruction becomes a job; what the host does is not timed, and to release words takes no time."""
        if make := self._make.get(type(instruction)):
            make(index, instruction)

    def end(self, section: Section) -> None:
        """What the section leaves matters to the next one."""
        if self._kept:
            self._hazards.tidy()
        if self._spilled:
            self._scratch[self._frame.views["partial_sums"].tensor] = self._spilled | self._reloaded

    def _access(self) -> _Access:
        return _Access(len(self.jobs), self._hazards, self._frame)

    def _load(self, index: int, load: Load) -> None:
        view, access = self._frame.views[load.role], self._access()
        access.write(load.role, load.pieces)
        if load.role == "partial_sums":
            access.after |= self._spilled
            self._reloaded.add(len(self.jobs))
        if stored := self._stored.get(view.tensor):
            read = [_hull(view, region) for region in load.transfers]
            access.after.update(job for a, b, job in stored if any(a < end and first < b for first, end in read))
        if early := view.tensor in self._early:
            held = self._before.held(load.memory, load.pieces, self._frame.widths[load.role])
            access.after |= self._before.users(held)
        self._transfer(index, "load", load, access, early)

    def _store(self, index: int, store: Store) -> None:
        view, access, job = self._frame.views[store.role], self._access(), len(self.jobs)
        access.read(store.role, store.pieces, ("dram", job))
        if store.role == "partial_sums":
            access.after |= self._scratch.get(view.tensor, set())
            self._spilled.add(job)
        else:
            stored = self._stored.setdefault(view.tensor, [])
            stored += [(*_hull(view, region), job) for region in store.transfers]
        self._transfer(index, "store", store, access, False)

    def _transfer(self, index: int, verb: str, transfer: Load | Store, access: _Access, early: bool) -> None:
        moved = transferred(self.machine, self._frame.views[transfer.role], transfer)
        name = f"{verb} {transfer.role.replace('_', ' ')}"
        self._add("dram", name, index, moved.bus * self.ticks_per_byte, moved, Work(), access, early)

    def _move(self, index: int, move: Move) -> None:
        access = self._access()
        access.read(move.role, move.source, "links")
        access.write(move.role, move.target)
        sent: dict[tuple[int, ...], int] = {}
        for piece in move.source:
            sent[piece.instances] = sent.get(piece.instances, 0) + piece.size * self._frame.widths[move.role]
        cycles = -(-max(sent.values(), default=0) // self.machine.words_sent_per_cycle)
        ticks = cycles * self.ticks_per_cycle
        self._add("links", f"move {move.role}", index, ticks, Bytes(), Work(), access)

    def _compute(self, index: int, compute: Compute) -> None:
        unit: Unit = "array" if self._frame.kernel.operation == "conv" else "vector"
        target: Role = "accumulator" if not compute.last else "tile" if self._frame.fused_pool else "output"
        access = self._access()
        for part in compute.parts:
            for role, pieces in part.operands:
                if role != target or (role == "accumulator" and not compute.first):
                    access.read(role, pieces, unit)
        for part in compute.parts:
            access.write(target, dict(part.operands)[target])
        self._work(unit, "compute", index, self._durations.compute(compute), access)

    def _pool(self, index: int, pool: PoolTile) -> None:
        access = self._access()
        for part, before in zip(pool.parts, pool.before, strict=True):
            access.read("tile", dict(part.operands)["tile"], "vector")
            access.read("pending", before, "vector")
        for part, after in zip(pool.parts, pool.after, strict=True):
            access.write("output", self._frame.completed(part))
            access.write("pending", after)
        self._work("vector", "pool", index, self._durations.pool(pool), access)

    def _work(self, unit: Unit, name: str, index: int, work: Work, access: _Access) -> None:
        self._add(unit, name, index, work.cycles * self.ticks_per_cycle, Bytes(), work, access)

    def _add(
        self, unit: Unit, name: str, index: int, ticks: int, moved: Bytes, work: Work, access: _Access,
        early: bool = False,
    ) -> None:  # fmt: skip
        section, behind = len(self.sections) - 1, self._far_behind if early else self.behind[-1]
        after, uses = frozenset(access.after), tuple(access.uses.values())
        self.jobs.append(Job(unit, name, section, index, ticks, moved, work, after, behind, uses))


def _hull(view: View, region: Region) -> tuple[int, int]:
    """The first word of a region in DRAM, and one past the last."""
    first = end = view.offset
    for axis, stride in zip(region, view.strides, strict=True):
        if axis:
            first += axis[0].start * stride
            end += (axis[-1].start + (axis[-1].count - 1) * axis[-1].step) * stride
    return first, end + 1
