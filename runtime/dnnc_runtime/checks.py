"""The structural checks: every word on chip is tagged with the element it holds, every word in DRAM with a valid bit.

A tag is the element's identity as one number, zero where a word holds nothing. A read compares the tags it finds
with those of the region it wants, so a forgotten load, an overwritten resident, a wrong halo or a buffer that runs into
another one is found without computing anything. What a section computes is computed once in the whole program, and by
the section's end it is in DRAM, among the words that are kept, or given up by a release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Bank, Integers, Taken, banks, emptied, taken
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import Access, frame, space
from dnnc_runtime.memo import Memo, Outlines, Shared
from dnnc_runtime.pooling import Rows, Windows
from dnnc_runtime.program import (
    Compute,
    Host,
    Instruction,
    Load,
    Move,
    Part,
    PoolTile,
    Program,
    Release,
    Role,
    Section,
    Store,
    Width,
)
from dnnc_runtime.regions import covers, inside, partitions, stacked, stacks
from dnnc_runtime.tags import Tags
from dnnc_runtime.tensor import Piece, Region, View
from dnnc_runtime.written import Lost, Written


class Checks:
    """A listener that raises :class:`DisagreementFault` at the first instruction that cannot mean what it says."""

    def __init__(self, program: Program) -> None:
        self._of, self._finished = _structure(program), False
        self._machine = program.machine
        self._banks = banks(program.machine)
        self._levels = {memory.name: memory.level for memory in program.machine.memories}
        self._outputs = program.outputs
        self._words = {tensor.name: tensor.words for tensor in program.tensors}
        # Words that are in DRAM, and that were computed.
        self._written, self._computed = Written(program), Written(program)
        self._layers: dict[str, Section] = {}
        # Single pieces that hold all of a region.
        self._whole: Shared[bool] = Shared()
        self._covered, self._taken_up = Outlines(covers), Outlines(lambda parts, whole: partitions([whole], parts))
        self._tags = Tags(program.machine, program.tensors)
        self._section = ""
        self._checks: dict[type[Instruction], Callable[[Any], None]] = {
            Load: self._load,
            Store: self._store,
            Move: self._move,
            Release: self._release,
            Compute: self._compute,
            PoolTile: self._pool_tile,
            Host: self._host,
        }

    def hold(self, program: Program) -> bool:
        """Whether they are finished, and were those of all that a program does."""
        return self._finished and all(map(is_, self._of, _structure(program)))

    def valid(self, view: View) -> bool:
        """Whether every word of a view in DRAM has been written."""
        return self._written.holds(view)

    def computed(self, view: View) -> bool:
        """Whether every word of a view is an input or was computed, be it in DRAM or not."""
        return self._computed.holds(view)

    def stored(self, tensor: str) -> NDArray[np.bool_]:
        """Which words of a tensor have been written in DRAM."""
        return self._written.words(tensor)

    def begin(self, section: Section) -> None:
        """Start a section, with the words on chip that the one before kept."""
        self._section = section.name
        self._keepable(section)
        if section.kernel is None:
            if not all(isinstance(instruction, Host) for instruction in section.instructions):
                raise DisagreementFault(f"layer {section.name!r} computes nothing: expected host instructions alone")
            return
        known = self._layers.setdefault(section.name, section)
        if (known.kernel, known.views) != (section.kernel, section.views):
            raise DisagreementFault(f"layer {section.name!r}: sections of one name need equal kernels and views")
        self._frame = frame(self._machine, section)
        for role, view in section.views:
            self._bounds(role, view)
        source, kernel = self._frame.shapes["input"], section.kernel
        if source[1:3] != (kernel.y.size, kernel.x.size):
            raise DisagreementFault(f"layer {section.name!r}: input of shape {source}, which its kernel does not take")
        self._tags.begin(self._frame)
        self._summed: dict[Region, int] = {}
        # What the section has computed, and in which pieces; all words it was ever put to; the words of DRAM of what it
        # has given up.
        self._made = list[tuple[Region, Sequence[Piece]]]()
        self._put, self._released = list[Taken](), list[Integers]()
        self._windows = Windows(self._frame)
        self._memo: Memo[bool] = Memo()
        self._inner = self._units()

    def step(self, index: int, instruction: Instruction) -> None:
        """Check one instruction and tag what it writes."""
        try:
            self._checks[type(instruction)](instruction)
        except DisagreementFault as fault:
            kind = type(instruction).__name__
            raise DisagreementFault(f"layer {self._section!r}, instruction {index} ({kind}): {fault}") from None

    def end(self, section: Section) -> None:
        """What was computed is stored, kept or released by now; all that is not kept is emptied."""
        if section.kernel is not None:
            self._settle(section)
        self._tags.end(section.kept)

    def _settle(self, section: Section) -> None:
        view, bank = self._frame.views["output"], self._frame.homes["output"]
        away = [made for made in self._made if not self._written.holds(view, made[0])]
        stays = self._tags.staying(bank, section.kept) if away else None
        left = [region for region, pieces in away if not (stays and all(map(stays, pieces)))]
        if not left:
            return
        lost = Lost(view, left)
        lost.stored(self._written.words(view.tensor))
        lost.found(self._released)
        if section.kept and lost.any():
            lost.found(self._tags.in_ranges(bank, section.kept))
        if lost.any():
            raise DisagreementFault(
                f"layer {section.name!r}: output element {_first(lost.elements())} (n, y, x, g, k) was never stored, "
                "kept or released"
            )

    def finish(self) -> None:
        """Every layer has computed all of its output by now, and every output of the program is in DRAM."""
        for name, section in self._layers.items():
            computed = self._computed.all(dict(section.views)["output"])
            if not computed.all():
                raise DisagreementFault(
                    f"layer {name!r}: output element {_first(~computed)} (n, y, x, g, k) was never computed"
                )
        for name in self._outputs:
            if not self.valid(self._written.place(name).view):
                raise DisagreementFault(f"output {name!r} of the program was never written whole")
        self._finished = True

    def _load(self, load: Load) -> None:
        self._transfer(load)
        view, width = self._frame.views[load.role], self._frame.widths[load.role]
        for region in load.transfers:
            if not self._written.holds(view, region, width):
                raise DisagreementFault(f"{_show(region)} of DRAM tensor {view.tensor!r} was never written whole")
        self._write(space(load.role), self._banks[load.memory], load.pieces)

    def _store(self, store: Store) -> None:
        self._transfer(store)
        self._single(store.role, store.pieces)
        self._tags.read(space(store.role), self._banks[store.memory], store.pieces)
        view = self._frame.views[store.role]
        for region in store.transfers:
            if store.role != "output":
                self._written.fill(view, region, self._frame.widths[store.role])
            elif not self._written.once(view, region):
                raise DisagreementFault(f"an output element of {_show(region)} is stored a second time")

    def _transfer(self, transfer: Load | Store) -> None:
        """The pieces hold exactly what is transferred, inside the tensor, at the width of the role."""
        role, view = transfer.role, self._frame.views.get(transfer.role)
        if view is None:
            raise DisagreementFault(f"the layer has no {role} in DRAM")
        self._width(role, transfer.width)
        # Units that both need a row may each load it.
        repeat = isinstance(transfer, Load)
        if not partitions(transfer.transfers, [piece.region for piece in transfer.pieces], repeat):
            raise DisagreementFault(f"the pieces of {role} do not hold each element transferred exactly once")
        for region in transfer.transfers:
            if not inside(region, view.shape):
                raise DisagreementFault(f"{role} region {_show(region)} is outside its tensor's shape {view.shape}")

    def _width(self, role: Role, width: Width) -> None:
        words = 1 if width == "word" else self._frame.widths["accumulator"]
        if words != self._frame.widths[role]:
            raise DisagreementFault(f"{role} at {width} width, expected {self._frame.widths[role]} words an element")

    def _move(self, move: Move) -> None:
        if [piece.region for piece in move.source] != [piece.region for piece in move.target]:
            raise DisagreementFault(f"moved pieces of {move.role} do not correspond one to one")
        self._width(move.role, move.width)
        memory, role = self._banks[move.memory], space(move.role)
        self._single(role, move.source)
        self._tags.read(role, memory, move.source)
        words = self._write(role, memory, move.target)
        if role == "output":
            self._put.append(words)
        if role == "pending":
            self._windows.move(move.source, move.target)

    def _release(self, release: Release) -> None:
        width = 1 if release.width == "word" else self._frame.widths["accumulator"]
        bank = self._banks[release.memory]
        if bank == self._frame.homes["output"]:
            words = taken(bank, release.pieces, width)
            if any(map(words.meets, self._put)):
                self._released += self._tags.in_pieces(bank, release.pieces, width)
        self._clear(bank, release.pieces, width)

    def _compute(self, compute: Compute) -> None:
        reads: list[Access] = []
        for part in compute.parts:
            self._check_units(part)
            self._check_sum(compute, part)
            reads += self._frame.reads(compute, part)
        self._access(reads)
        for part in compute.parts:
            if compute.last and not compute.first:
                self._consume("accumulator", dict(part.operands)["accumulator"])
        self._emit([self._frame.writes(compute, part) for part in compute.parts])

    def _check_sum(self, compute: Compute, part: Part) -> None:
        """Every input channel is summed exactly once, in ascending order."""
        if self._frame.kernel.operation != "conv":
            if not (compute.first and compute.last):
                raise DisagreementFault(f"{self._frame.kernel.operation} accumulates nothing: expected first and last")
            return
        start, stop = compute.reduce
        expected = 0 if compute.first else self._summed.get(part.region, 0)
        channels = self._frame.shapes["input"][4]
        if start != expected or stop <= start or (stop == channels) != compute.last:
            raise DisagreementFault(
                f"sums channels {start}..{stop} of {_show(part.region)}, expected to go on at {expected} and be "
                f"{'the last' if stop == channels else 'not the last'} visit of {channels} channels"
            )
        if not (compute.first and compute.last):
            self._summed[part.region] = stop

    def _units(self) -> dict[Role, int]:
        """How many units of each role's memory there are in one unit of the outermost level that holds any of them."""
        levels = self._machine.levels
        level: dict[Role, int] = {role: self._levels[bank.name] for role, bank in self._frame.homes.items()}
        outer = min(level.values())
        return {role: prod(x.count for x in levels[outer + 1 : at + 1]) for role, at in level.items()}

    def _check_units(self, part: Part) -> None:
        """All memories that a part touches belong to one unit of the outermost of their levels."""
        owners = {unit // self._inner[role] for role, pieces in part.operands for p in pieces for unit in p.instances}
        if len(owners) > 1:
            raise DisagreementFault(f"one part reads memories of units {sorted(owners)}, expected those of one unit")

    def _pool_tile(self, pool: PoolTile) -> None:
        if self._frame.fused_pool is None or not len(pool.parts) == len(pool.before) == len(pool.after):
            raise DisagreementFault("a pooled tile needs a fused pool, and pending windows listed for every part")
        shares = list(zip(pool.parts, pool.before, pool.after, strict=True))
        rows = [self._pool_part(part, before, after) for part, before, after in shares]
        for part, before, _ in shares:
            self._consume("tile", dict(part.operands)["tile"])
            self._consume("pending", before)
        self._emit([access for part, _, after in shares for access in self._frame.pool_writes(part, after)])
        for (_, _, after), seen in zip(shares, rows, strict=True):
            self._windows.keep(after, seen)

    def _pool_part(self, part: Part, before: tuple[Piece, ...], after: tuple[Piece, ...]) -> dict[int, Rows]:
        """What a part reads is there; the rows that its windows have seen."""
        self._check_units(part)
        tile, begun = self._frame.pool_reads(part, before, after)
        self._access([tile, *begun])
        for _, _, region in begun:
            if region != self._frame.pooled(part, region[1]):
                raise DisagreementFault(f"partial results {_show(region)} are not whole rows of their tile")
        return self._windows.combined(part, before, after)

    def _host(self, host: Host) -> None:
        for name in filter(None, host.inputs):
            if not self.valid(self._written.place(name).view):
                raise DisagreementFault(f"{host.node!r} reads {name!r}, which was never written whole")
        for name in filter(None, host.outputs):
            view = self._written.place(name).view
            self._computed.once(view)
            if not self._written.once(view):
                raise DisagreementFault(f"{host.node!r} writes {name!r}, of which an element was stored before")

    def _keepable(self, section: Section) -> None:
        """All that the section keeps lies in memories, once."""
        for kept in section.kept:
            if kept.memory not in self._banks:
                raise DisagreementFault(f"layer {section.name!r} keeps words of {kept.memory!r}, which is no memory")
        for bank in self._banks.values():
            try:
                emptied(bank, section.kept)
            except DisagreementFault as fault:
                raise DisagreementFault(f"layer {section.name!r} keeps what it cannot: {fault}") from None

    def _bounds(self, role: Role, view: View) -> None:
        words, last = self._words.get(view.tensor), view.offset
        last += sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
        if words is None:
            raise DisagreementFault(f"layer {self._section!r}: {role} lies in unknown tensor {view.tensor!r}")
        if view.offset < 0 or min(view.strides) < 0 or last + self._frame.widths[role] > words:
            raise DisagreementFault(
                f"layer {self._section!r}: {role} ends at word {last}, tensor {view.tensor!r} has {words}"
            )

    def _access(self, accesses: Iterable[Access]) -> None:
        """The pieces hold their regions, and together what is needed."""
        for role, group in _by_role(accesses):
            bank = self._frame.homes[role]
            if self._memo.get(bank.name, group):
                continue
            for _, pieces, need in group:
                if self._whole.get(pieces, need):
                    continue
                self._single(role, pieces)
                if not self._covered.hold([piece.region for piece in pieces], need):
                    raise DisagreementFault(f"the pieces of {role} do not hold all of {_show(need)}")
                self._whole.put(pieces, need, True)
            self._memo.put(bank.name, group, self._tags.read(role, bank, _pieces(group)), True)

    def _emit(self, accesses: Iterable[Access]) -> None:
        """The pieces take up exactly the regions written."""
        for role, group in _by_role(accesses):
            for _, pieces, region in group:
                self._single(role, pieces)
                if all(region) and not self._taken_up.hold([piece.region for piece in pieces], region):
                    raise DisagreementFault(f"the pieces of {role} do not take up {_show(region)} exactly once")
            if role == "output":
                self._compute_once(group)
            words = self._write(role, self._frame.homes[role], _pieces(group))
            if role == "output":
                self._put.append(words)

    def _compute_once(self, group: Sequence[Access]) -> None:
        view = self._frame.views["output"]
        for _, _, region in group:
            if not inside(region, view.shape):
                raise DisagreementFault(f"output region {_show(region)} is outside its tensor's shape {view.shape}")
        # Units mostly compute rows next to each other.
        done = 0
        for some in stacks([region for _, _, region in group]):
            region = stacked(some)
            if not self._computed.once(view, region):
                raise DisagreementFault(f"an output element of {_show(region)} is computed a second time")
            self._made.append((region, _pieces(group[done : done + len(some)])))
            done += len(some)

    def _write(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Taken:
        words = self._tags.write(role, bank, pieces)
        self._memo.written(bank.name, words)
        return words

    def _clear(self, bank: Bank, pieces: Sequence[Piece], width: int) -> None:
        self._memo.written(bank.name, self._tags.clear(bank, pieces, width))

    def _consume(self, role: Role, pieces: Sequence[Piece]) -> None:
        self._clear(self._frame.homes[role], pieces, self._frame.widths[role])

    def _single(self, role: Role, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if len(piece.instances) != 1:
                raise DisagreementFault(f"a piece of {role} names units {piece.instances}; only loads broadcast")


def _structure(program: Program) -> tuple[object, ...]:
    """All that the checks of a program look at."""
    p = program
    return p.machine, p.tensors, p.sections, p.values, p.inputs, p.outputs


def _by_role(accesses: Iterable[Access]) -> list[tuple[Role, list[Access]]]:
    """The accesses of each role, which are looked at together."""
    groups: dict[Role, list[Access]] = {}
    for access in accesses:
        groups.setdefault(access[0], []).append(access)
    return list(groups.items())


def _pieces(accesses: Iterable[Access]) -> list[Piece]:
    return [piece for _, pieces, _ in accesses for piece in pieces]


def _first(elements: NDArray[np.bool_]) -> tuple[int, ...]:
    """The coordinates of the first element that is set."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(elements)), elements.shape))


def _show(region: Region) -> str:
    return "[" + " ".join(",".join(str(run) for run in axis) or "-" for axis in region) + "]"
