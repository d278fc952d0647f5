"""Executes a program inside memories of the machine's real size.

DRAM is an array of words for each tensor, an on-chip memory an array of words for each of its units. Compute
instructions read and write only the latter. The structural checks run in step, ahead of the numbers: no word is
read here that they have not found to hold what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime import kernels
from dnnc_runtime.addressing import banks, extents, placed, row_major, shared, window
from dnnc_runtime.checks import Checks
from dnnc_runtime.dram import Dram, Result
from dnnc_runtime.frame import Access, frame, space
from dnnc_runtime.numbers import Float32, Numbers, Tally, Words
from dnnc_runtime.program import (
    Compute,
    Constants,
    Host,
    HostRun,
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
)
from dnnc_runtime.tensor import Piece, Region, span
from dnnc_runtime.walk import Listener, tell


def execute(
    program: Program,
    inputs: Mapping[str, NDArray[Any]],
    constants: Constants | None = None,
    numbers: Numbers | None = None,
    host: HostRun | None = None,
    listeners: Iterable[Listener] = (),
    keep_values: bool = False,
) -> Result:
    """Run a program.

    Args:
        inputs: values by name, of the shapes that the program's placements say.
        constants: a loader for each constant tensor, called when first needed; the program's own unless given.
        numbers: the number system; float32 unless given.
        host: runs the nodes that the array does not; only needed if there are any.
        listeners: told every instruction after it was checked and executed.
        keep_values: return every placed value, not only the outputs.

    Raises:
        UsageFault: an input or constant is absent or of another size, or a host node has nothing to run it.
        DisagreementFault: the program is not consistent with itself (see :mod:`dnnc_runtime.checks`).
    """
    checks, system = Checks(program), numbers or Float32()
    dram = Dram(program, program.constants if constants is None else constants, system)
    dram.feed(program.inputs, inputs)
    arithmetic = Arithmetic(program, dram, system, host or program.host)
    tell(program, [checks, arithmetic, *listeners])
    checks.finish()
    kept = [place.name for place in program.values if keep_values and checks.valid(place.view)]
    return dram.result(program, kept, arithmetic.tallies)


class Arithmetic:
    """A listener that moves and computes the numbers."""

    def __init__(self, program: Program, dram: Dram, numbers: Numbers, host: HostRun | None) -> None:
        self._machine = program.machine
        self._banks = banks(program.machine)
        self._dram = dram
        self._numbers = numbers
        self._run = host
        self.tallies: dict[str, Tally] = {}
        self._execute: dict[type[Instruction], Callable[[Any], None]] = {
            Load: self._load,
            Store: self._store,
            Move: self._move,
            Release: self._release,
            Compute: self._compute,
            PoolTile: self._pool_tile,
            Host: self._host,
        }

    def begin(self, section: Section) -> None:
        """Poison every memory: one array for each, its units' memories end to end."""
        self._tally = self.tallies.setdefault(section.name, Tally())
        if section.kernel is None:
            return
        self._frame = frame(self._machine, section)
        self._memories = {
            bank.name: np.full(bank.words * bank.units, self._numbers.poison, self._numbers.word)
            for bank in self._banks.values()
        }

    def step(self, index: int, instruction: Instruction) -> None:
        """Execute one instruction."""
        self._execute[type(instruction)](instruction)

    def end(self, section: Section) -> None:
        """Drop what only this section needed."""
        self._dram.drop_constants()

    def _load(self, load: Load) -> None:
        for there, here in self._transfer(load):
            here[...] = there

    def _store(self, store: Store) -> None:
        for there, here in self._transfer(store):
            there[...] = here

    def _transfer(self, transfer: Load | Store) -> Iterator[tuple[Words, Words]]:
        """The words in DRAM and on chip that a transfer connects."""
        view, memory = self._frame.views[transfer.role], self._memories[transfer.memory]
        words, dtype = self._dram.words(view.tensor), self._type(transfer.role)
        bank, width = self._banks[transfer.memory], self._frame.widths[transfer.role]
        for counts, here, pitch, there, strides in placed(
            bank, transfer.pieces, width, view.offset, view.strides
        ):
            yield window(words, counts, there, strides, dtype), window(memory, counts, here, pitch, dtype)

    def _move(self, move: Move) -> None:
        role = space(move.role)
        moved = [self._slots(role, piece).copy() for piece in move.source]
        for target, words in zip(move.target, moved, strict=True):
            for instance in target.instances:
                self._slots(role, replace(target, instances=(instance,)))[...] = words

    def _release(self, release: Release) -> None:
        """Released words keep their numbers here; that nobody reads them is checked."""

    def _compute(self, compute: Compute) -> None:
        results: list[tuple[Access, Words]] = []
        for part in self._merged(compute):
            held = self._operands(self._frame.reads(compute, part))
            results.append((self._frame.writes(compute, part), self._computed(compute, part, held)))
        for access, words in results:
            self._keep(access, words)

    def _computed(self, compute: Compute, part: Part, held: kernels.Operands) -> Words:
        kernel, numbers, tally = self._frame.kernel, self._numbers, self._tally
        if kernel.operation != "conv":
            return kernels.vector(kernel, numbers, held, part.region, tally)
        products = kernels.visit(kernel, numbers, held, part.region)
        sums = numbers.accumulate(held.get("accumulator"), products, tally)
        return kernels.finish(kernel, numbers, sums, held, tally) if compute.last else sums

    def _merged(self, compute: Compute) -> list[Part]:
        """The parts, those as one that compute neighbouring planes from inputs that hold the same words."""
        parts: list[Part] = []
        inputs: list[Words] = []
        for part in compute.parts:
            joined = join(parts[-1], part) if parts and self._frame.kernel.operation == "conv" else None
            need = self._frame.needs(part.region, compute.reduce)["input"]
            own = self._fetch(("input", dict(part.operands)["input"], need))
            if joined and np.array_equal(inputs[-1], own):
                parts[-1] = joined
            else:
                parts.append(part)
                inputs.append(own)
        return parts

    def _operands(self, accesses: Iterable[Access]) -> dict[Role, Words]:
        return {access[0]: self._fetch(access) for access in accesses}

    def _pool_tile(self, pool: PoolTile) -> None:
        results: list[tuple[Access, Words]] = []
        for part, before, after in zip(pool.parts, pool.before, pool.after, strict=True):
            partial = self._partial(part, before, after)
            whole = self._frame.pooled(part, self._frame.windows(part, after))
            done, left = self._frame.pool_writes(part, after)
            results += [(done, self._complete(done[2], partial[_within(done[2], whole)]))]
            results += [(left, partial[_within(left[2], whole)])]
        for access, words in results:
            self._keep(access, words)

    def _partial(self, part: Part, before: tuple[Piece, ...], after: tuple[Piece, ...]) -> Words:
        """What a part's windows combine: its tile, and the partial results of before."""
        pool = self._frame.fused_pool
        assert pool is not None
        tile, begun = self._frame.pool_reads(part, before, after)
        rows = self._frame.windows(part, after)
        whole = self._frame.pooled(part, rows)
        words = kernels.combine(pool, self._numbers, self._fetch(tile), (rows, whole[2]), (tile[2][1], tile[2][2]))
        for access in begun:
            kernels.include(pool, words, _within(access[2], whole), self._fetch(access))
        return words

    def _complete(self, region: Region, words: Words) -> Words:
        pool = self._frame.fused_pool
        assert pool is not None
        return kernels.close_pool(pool, self._numbers, words, region[1], region[2])

    def _host(self, host: Host) -> None:
        self._dram.run(host, self._run, self._tally)

    def _type(self, role: Role) -> np.dtype[Any]:
        return self._numbers.accumulator if self._frame.widths[role] > 1 else self._numbers.word

    def _slots(self, role: Role, piece: Piece) -> Words:
        """A piece's elements in its unit's memory, without a copy."""
        bank = self._frame.homes[role]
        base = piece.instances[0] * bank.words + piece.base
        return window(self._memories[bank.name], extents(piece.region), base, piece.pitch, self._type(role))

    def _fetch(self, access: Access) -> Words:
        """The needed region, assembled by coordinates; a single piece that is just that is not copied."""
        role, pieces, need = access
        if len(pieces) == 1 and pieces[0].region == need:
            return self._slots(role, pieces[0])
        whole = np.empty(extents(need), self._type(role))
        if within(pieces, need):
            for there, here in self._spread(role, pieces, need, whole):
                there[...] = here
            return whole
        for piece in pieces:
            common = [shared(held, wanted) for held, wanted in zip(piece.region, need, strict=True)]
            slots = self._slots(role, piece)[np.ix_(*(here for here, _ in common))]
            whole[np.ix_(*(there for _, there in common))] = slots
        return whole

    def _keep(self, access: Access, words: Words) -> None:
        """Write a region to its pieces."""
        role, pieces, region = access
        if len(pieces) == 1 and pieces[0].region == region:
            self._slots(role, pieces[0])[...] = words
        elif within(pieces, region):
            dense = np.ascontiguousarray(words, self._type(role))
            for there, here in self._spread(role, pieces, region, dense):
                here[...] = there
        else:
            for piece in pieces:
                self._slots(role, piece)[...] = words[_within(piece.region, region)]

    def _spread(self, role: Role, pieces: Sequence[Piece], need: Region, whole: Words) -> Iterator[tuple[Words, Words]]:
        """The elements of a dense array of the needed intervals, and the same elements in the pieces' memories."""
        bank, width, strides = self._frame.homes[role], self._frame.widths[role], row_major(whole.shape)
        first = -sum(axis[0].start * stride for axis, stride in zip(need, strides, strict=True))
        for counts, here, pitch, there, steps in placed(bank, pieces, width, first, strides):
            slots = window(self._memories[bank.name], counts, here, pitch, self._type(role))
            yield window(whole, counts, there, steps), slots


def _within(part: Region, whole: Region) -> tuple[NDArray[Any], ...]:
    """The positions of a region's elements in an array of a larger one, as an open mesh."""
    return np.ix_(*(shared(axis, points)[0] for axis, points in zip(whole, part, strict=True)))


def join(a: Part, b: Part) -> Part | None:
    """Two parts over neighbouring planes of the same rows, columns and groups as one, with a's input."""
    (*same, before), (*others, after) = a.region, b.region
    if same != others or len(before) != 1 or len(after) != 1:
        return None
    if before[0].step != 1 or after[0].step != 1 or before[0].start + before[0].count != after[0].start:
        return None
    more = dict(b.operands)
    operands: list[tuple[Role, tuple[Piece, ...]]]
    operands = [(role, pieces if role == "input" else pieces + more[role]) for role, pieces in a.operands]
    return Part((*same, span(before[0].start, before[0].count + after[0].count)), tuple(operands))


def within(pieces: Sequence[Piece], need: Region) -> bool:
    """Whether the need is a box of intervals and the pieces lie inside it."""
    bounds: list[tuple[int, int]] = []
    for axis in need:
        if len(axis) != 1 or axis[0].step != 1:
            return False
        bounds.append((axis[0].start, axis[0].start + axis[0].count))
    for piece in pieces:
        for axis, (start, stop) in zip(piece.region, bounds, strict=True):
            if axis[0].start < start or axis[-1].start + (axis[-1].count - 1) * axis[-1].step >= stop:
                return False
    return True
