"""Executes a program inside memories of the machine's real size.

DRAM is an array of words for each tensor, an on-chip memory an array of words for each of its units. Compute
instructions read and write only the latter. The structural checks run in step, ahead of the numbers, unless they
are done: no word is read here that they have not found to hold what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime import kernels
from dnnc_runtime.addressing import banks, window
from dnnc_runtime.checks import Checks
from dnnc_runtime.dram import Dram, Result
from dnnc_runtime.frame import Access, frame
from dnnc_runtime.numbers import Float32, Numbers, Tally, Words
from dnnc_runtime.onchip import OnChip, positions
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
from dnnc_runtime.regions import follows, goes_on, listed, stacked
from dnnc_runtime.tensor import Piece, Region, extent, span
from dnnc_runtime.walk import Listener, tell

LASTING = ("bias", "slope")
"""Operands of a convolution, besides its weights, that stay for many instructions."""


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
        keep_values: return every placed value that was computed, also those that never left the chip, and not only the
            outputs.

    Raises:
        UsageFault: an input or constant is absent or of another size, an input holds anything but finite real numbers,
            or a host node has nothing to run it.
        DisagreementFault: the program is not consistent with itself (see :mod:`dnnc_runtime.checks`).
    """
    system = numbers or Float32()
    dram = Dram(program, program.constants if constants is None else constants, system)
    dram.feed(program.inputs, inputs)
    arithmetic = Arithmetic(program, dram, system, host or program.host, keep_values)
    checks = program.checked
    if checks and checks.hold(program):
        tell(program, [arithmetic, *listeners])
    else:
        checks = Checks(program)
        tell(program, [checks, arithmetic, *listeners])
        checks.finish()
    if not keep_values:
        return dram.result(program, (), arithmetic.tallies)
    for tensor, words in arithmetic.computed.items():
        np.copyto(dram.words(tensor), words, where=~checks.stored(tensor))
    kept = [place.name for place in program.values if checks.computed(place.view)]
    return dram.result(program, kept, arithmetic.tallies)


class Arithmetic:
    """A listener that moves and computes the numbers.

    ``computed`` are the words of every tensor as they were computed, which need not have gone to DRAM, if asked for.
    """

    def __init__(
        self, program: Program, dram: Dram, numbers: Numbers, host: HostRun | None, keep_values: bool = False
    ) -> None:
        self._machine = program.machine
        self._sizes = {tensor.name: tensor.words for tensor in program.tensors}
        self._chip = OnChip(banks(program.machine), numbers, dram)
        self._keep_values = keep_values
        self.computed: dict[str, Words] = {}
        self._dram = dram
        # The last section of each tensor, and how many have ended.
        self._last = {view.tensor: at for at, section in enumerate(program.sections) for _, view in section.views}
        self._ended = 0
        self._numbers = numbers
        self._run = host
        self.tallies: dict[str, Tally] = {}
        self._execute: dict[type[Instruction], Callable[[Any], None]] = {
            Load: lambda load: self._chip.load(load),
            Store: lambda store: self._chip.store(store),
            Move: lambda move: self._chip.move(move),
            Release: self._release,
            Compute: self._compute,
            PoolTile: self._pool_tile,
            Host: self._host,
        }

    def begin(self, section: Section) -> None:
        """Start a section, with the numbers that the one before kept."""
        self._tally = self.tallies.setdefault(section.name, Tally())
        if section.kernel is not None:
            self._frame = frame(self._machine, section)
            self._chip.begin(self._frame)

    def step(self, index: int, instruction: Instruction) -> None:
        """Execute one instruction."""
        self._execute[type(instruction)](instruction)

    def end(self, section: Section) -> None:
        """Drop what no section needs any more."""
        self._chip.end(section.kept)
        self._ended += 1
        self._dram.drop_constants({tensor for tensor, last in self._last.items() if last >= self._ended})

    def _release(self, release: Release) -> None:
        """Released words keep their numbers here; that nobody reads them is checked."""

    def _compute(self, compute: Compute) -> None:
        accumulates = self._frame.kernel.operation == "conv"
        self._write(list(self._accumulated(compute) if accumulates else self._mapped(compute)))

    def _write(self, results: Sequence[tuple[Access, Words]]) -> None:
        for access, words in results:
            self._chip.write(access, words)
            if self._keep_values and access[0] == "output":
                self._copy(access[2], words)

    def _copy(self, region: Region, words: Words) -> None:
        """Remember what was computed, whatever becomes of it on chip."""
        view = self._frame.views["output"]
        if view.tensor not in self.computed:
            self.computed[view.tensor] = np.empty(self._sizes[view.tensor], words.dtype)
        whole = window(self.computed[view.tensor], view.shape, view.offset, view.strides)
        if all(len(axis) == 1 for axis in region):
            whole[tuple([slice(run.start, run.start + run.count * run.step, run.step) for (run,) in region])] = words
        else:
            whole[np.ix_(*map(listed, region))] = words

    def _mapped(self, compute: Compute) -> Iterator[tuple[Access, Words]]:
        """What the parts of a vector operation compute."""
        kernel, numbers, tally = self._frame.kernel, self._numbers, self._tally
        for part in compute.parts:
            held: dict[Role, Words] = {
                access[0]: self._chip.read(access) for access in self._frame.reads(compute, part)
            }
            yield self._frame.writes(compute, part), kernels.vector(kernel, numbers, held, part.region, tally)

    def _accumulated(self, compute: Compute) -> Iterator[tuple[Access, Words]]:
        """What the parts of a convolution compute: as one where units have the same input, or the same kernels."""
        shares = [_Share(part, self._frame.reads(compute, part)) for part in compute.parts]
        same = list(self._alike(shares, 0))
        if len(same) < len(shares):
            parts = [part for some in same for part in joined([share.part for share in some])]
            shares = [_Share(part, self._frame.reads(compute, part)) for part in parts]
        runs: list[Sequence[_Share]] = [shares]
        for which, (role, _, _) in enumerate(shares[0].reads):
            if role == "weights" or role in LASTING:
                runs = [some for run in runs for some in self._alike(run, which)]
        for run in runs:
            for some in self._stacked(run):
                yield (
                    _together([self._frame.writes(compute, share.part) for share in some]),
                    self._summed(compute, some),
                )

    def _alike(self, shares: Sequence[_Share], which: int) -> Iterator[Sequence[_Share]]:
        """Runs of shares that read the same there."""
        done = 0
        for length in self._chip.alike([share.reads[which] for share in shares]):
            yield shares[done : done + length]
            done += length

    def _stacked(self, shares: Sequence[_Share]) -> list[list[_Share]]:
        """Shares with the same kernels, those over neighbouring rows of an image together."""
        out: list[list[_Share]] = []
        for share in shares:
            if out and self._goes_on(out[-1][-1], share):
                out[-1].append(share)
            else:
                out.append([share])
        return out

    def _goes_on(self, a: _Share, b: _Share) -> bool:
        if extent(a.part.region[0]) > 1 or not goes_on(a.part.region, b.part.region):
            return False
        beside = zip(a.reads[2:], b.reads[2:], strict=True)
        return all(self._neighbours(here, there) for here, there in beside if here[0] not in LASTING)

    def _neighbours(self, a: Access, b: Access) -> bool:
        """Whether accesses of one role are to neighbouring rows, so that they can be one."""
        # A piece that reached into the other's rows would hide what the other has there.
        return goes_on(a[2], b[2]) and self._chip.inside(a) and self._chip.inside(b)

    def _summed(self, compute: Compute, shares: Sequence[_Share]) -> Words:
        """What shares compute that are stacked."""
        kernel, numbers, tally = self._frame.kernel, self._numbers, self._tally
        region = stacked([share.part.region for share in shares])
        sources, weights, *rest = zip(*(share.reads for share in shares), strict=True)

        def gather() -> Words:
            """The input's taps: of neighbouring rows at once where they touch neighbouring rows."""
            wanted = [(source, share.part.region) for source, share in zip(sources, shares, strict=True)]
            if all(self._neighbours(a, b) for a, b in pairwise(sources)):
                wanted = [(_together(sources), region)]
            taken = [
                kernels.gather(kernel, numbers, self._chip.read(source), some, (source[2][1], source[2][2]))
                for source, some in wanted
            ]
            return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)

        # Where windows reach over all rows or columns, tiles that differ in these have the same input, at other taps.
        left = self._chip.prepared(sources, gather, [share.part.region[:3] for share in shares])
        right = self._chip.prepared(weights[:1], lambda: kernels.weigh(numbers, self._chip.read(weights[0])))
        operands: dict[Role, Words] = {}
        for accesses in rest:
            role = accesses[0][0]
            if role in LASTING:
                operands[role] = self._chip.prepared(accesses[:1], partial(self._chip.read, accesses[0]))
            else:
                operands[role] = self._chip.read(_together(accesses))
        products = kernels.multiply(left, right, region)
        sums = numbers.accumulate(operands.get("accumulator"), products, tally)
        return kernels.finish(kernel, numbers, sums, operands, tally) if compute.last else sums

    def _pool_tile(self, pool: PoolTile) -> None:
        results: list[tuple[Access, Words]] = []
        for part, before, after in zip(pool.parts, pool.before, pool.after, strict=True):
            partial = self._partial(part, before, after)
            whole = self._frame.pooled(part, self._frame.windows(part, after))
            done, left = self._frame.pool_writes(part, after)
            results += [(done, self._complete(done[2], partial[positions(done[2], whole)]))]
            results += [(left, partial[positions(left[2], whole)])]
        self._write(results)

    def _partial(self, part: Part, before: tuple[Piece, ...], after: tuple[Piece, ...]) -> Words:
        """What a part's windows combine: its tile, and the partial results of before."""
        pool = self._frame.fused_pool
        assert pool is not None
        tile, begun = self._frame.pool_reads(part, before, after)
        rows = self._frame.windows(part, after)
        whole = self._frame.pooled(part, rows)
        words = kernels.combine(pool, self._numbers, self._chip.read(tile), (rows, whole[2]), (tile[2][1], tile[2][2]))
        for access in begun:
            kernels.include(pool, words, positions(access[2], whole), self._chip.read(access))
        return words

    def _complete(self, region: Region, words: Words) -> Words:
        pool = self._frame.fused_pool
        assert pool is not None
        return kernels.close_pool(pool, self._numbers, words, region[1], region[2])

    def _host(self, host: Host) -> None:
        self._dram.run(host, self._run, self._tally)


class _Share(NamedTuple):
    """A part of a compute instruction, and what it reads."""

    part: Part
    reads: list[Access]


def joined(parts: Sequence[Part]) -> list[Part]:
    """Parts with the same input, those over neighbouring planes as one."""
    out: list[Part] = []
    for part in parts:
        both = _join(out[-1], part) if out else None
        if both:
            out[-1] = both
        else:
            out.append(part)
    return out


def _join(a: Part, b: Part) -> Part | None:
    (*same, before), (*others, after) = a.region, b.region
    if same != others or not follows(before, after):
        return None
    more = dict(b.operands)
    operands: list[tuple[Role, tuple[Piece, ...]]]
    operands = [(role, pieces if role == "input" else pieces + more[role]) for role, pieces in a.operands]
    return Part((*same, span(before[0].start, before[0].count + after[0].count)), tuple(operands))


def _together(accesses: Sequence[Access]) -> Access:
    """Accesses of one role to regions of neighbouring rows as one."""
    if len(accesses) == 1:
        return accesses[0]
    # Those that lie alike in several units one behind the other, so that they are copied at once.
    across = zip_longest(*[pieces for _, pieces, _ in accesses])
    pieces = tuple([piece for some in across for piece in some if piece is not None])
    return accesses[0][0], pieces, stacked([region for _, _, region in accesses])
