"""The numbers in on-chip memories: moved to and fro, and assembled into operands by their coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Bank, Box, emptied, extents, placed, together, window
from dnnc_runtime.dram import Dram
from dnnc_runtime.frame import Access, Frame, space
from dnnc_runtime.layouts import Layouts, Placed, is_box
from dnnc_runtime.memo import Memo, Shared
from dnnc_runtime.numbers import Numbers, Words
from dnnc_runtime.program import Kept, Load, Move, Role, Store
from dnnc_runtime.regions import shared
from dnnc_runtime.tensor import Piece, Region

SHARED: tuple[Role, ...] = ("weights", "bias", "slope")
"""Roles whose pieces are the same for many instructions."""


class OnChip:
    """Every memory of the machine, from section to section: one array, its units' memories end to end."""

    def __init__(self, banks: dict[str, Bank], numbers: Numbers, dram: Dram) -> None:
        self._banks = banks
        self._numbers = numbers
        self._dram = dram
        self._places: Shared[list[Box]] = Shared()
        self._layouts = Layouts()
        self._words = {
            bank.name: np.full(bank.words * bank.units, numbers.poison, numbers.word) for bank in banks.values()
        }

    def begin(self, frame: Frame) -> None:
        """A section starts: accesses mean what they do in its frame."""
        self._frame = frame
        self._prepared: Memo[Words] = Memo()
        narrow, wide = self._numbers.word, self._numbers.accumulator
        self._types = {role: wide if width > 1 else narrow for role, width in frame.widths.items()}

    def end(self, kept: Sequence[Kept]) -> None:
        """Poison all words that are not kept."""
        for bank in self._banks.values():
            for unit, (first, end) in emptied(bank, kept):
                self._words[bank.name][unit * bank.words + first : unit * bank.words + end] = self._numbers.poison

    def load(self, load: Load) -> None:
        """DRAM to every unit of the pieces."""
        self._forget(space(load.role), load.pieces)
        for there, here in self._transfer(load):
            here[...] = there

    def store(self, store: Store) -> None:
        """On-chip to DRAM."""
        for there, here in self._transfer(store):
            there[...] = here

    def _transfer(self, transfer: Load | Store) -> Iterator[tuple[Words, Words]]:
        """The elements in DRAM and on chip that a transfer connects."""
        view, memory = self._frame.views[transfer.role], self._words[transfer.memory]
        words, dtype = self._dram.words(view.tensor), self._types[transfer.role]
        bank = self._banks[transfer.memory]
        found = self._placed(bank, transfer.role, transfer.pieces, view.offset, view.strides)
        for counts, here, pitch, there, strides in found:
            yield window(words, counts, there, strides, dtype), window(memory, counts, here, pitch, dtype)

    def move(self, move: Move) -> None:
        """From units to units; everything is read before anything is written."""
        role = space(move.role)
        moved = [self._slots(role, piece).copy() for piece in move.source]
        self._forget(role, move.target)
        for target, words in zip(move.target, moved, strict=True):
            for instance in target.instances:
                self._slots(role, target._replace(instances=(instance,)))[...] = words

    def alike(self, accesses: Sequence[Access]) -> list[int]:
        """The lengths of runs of accesses, all of one role, that need the same region and hold the same numbers."""
        if len(accesses) == 1 or self._repeated(accesses):
            return [len(accesses)]
        lengths, head = [1], accesses[0]
        for access in accesses[1:]:
            if access[2] == head[2] and np.array_equal(self.read(head), self.read(access)):
                lengths[-1] += 1
            else:
                lengths.append(1)
                head = access
        return lengths

    def _repeated(self, accesses: Sequence[Access]) -> bool:
        """Whether accesses to units evenly apart hold the same numbers at the same words."""
        (role, pieces, need), *others = accesses
        further = [_further(pieces, some) if other == need else None for _, some, other in others]
        if further[0] is None or further != [further[0] * i for i in range(1, len(accesses))]:
            return False
        bank, dtype = self._frame.homes[role], self._types[role]
        words, apart = self._words[bank.name], further[0] * bank.words
        found = (
            window(words, (len(accesses), *counts), at, (apart, *pitch), dtype)
            for counts, at, pitch, _, _ in self._boxes(accesses[0])
        )
        return all(bool((some[1:] == some[:1]).all()) for some in found)

    def prepared(self, accesses: Sequence[Access], make: Callable[[], Words], of: object = None) -> Words:
        """What ``make`` makes of accesses, all of one role, remembered for as long as nobody overwrites their words.

        Args:
            of: what else it makes it of.
        """
        bank = self._frame.homes[accesses[0][0]]
        found = self._prepared.get(bank.name, accesses, of)
        if found is None:
            found = make()
            words = [self._layout(*access).taken() for access in accesses]
            self._prepared.put(bank.name, accesses, words[0] if len(words) == 1 else together(words), found, of)
        return found

    def read(self, access: Access) -> Words:
        """The needed region, assembled by coordinates; a single piece that is just that is not copied."""
        role, pieces, need = access
        if len(pieces) == 1 and pieces[0].region == need:
            return self._slots(role, pieces[0])
        whole: Words = np.empty(extents(need), self._types[role])
        if self.inside(access):
            for there, here in self._spread(access, whole):
                there[...] = here
            return whole
        for piece in pieces:
            common = [shared(held, wanted) for held, wanted in zip(piece.region, need, strict=True)]
            slots = self._slots(role, piece)[np.ix_(*(here for here, _ in common))]
            whole[np.ix_(*(there for _, there in common))] = slots
        return whole

    def write(self, access: Access, words: Words) -> None:
        """A region to its pieces."""
        role, pieces, region = access
        self._forget(role, pieces, region)
        if len(pieces) == 1 and pieces[0].region == region:
            self._slots(role, pieces[0])[...] = words
        elif is_box(region):
            dense: Words = np.ascontiguousarray(words, self._types[role])
            for there, here in self._spread(access, dense):
                here[...] = there
        else:
            for piece in pieces:
                self._slots(role, piece)[...] = words[positions(piece.region, region)]

    def _spread(self, access: Access, whole: Words) -> Iterator[tuple[Words, Words]]:
        """The elements of a dense array of the needed intervals, and the same elements in the pieces' memories."""
        role = access[0]
        words, dtype = self._words[self._frame.homes[role].name], self._types[role]
        for counts, here, pitch, there, steps in self._boxes(access):
            yield window(whole, counts, there, steps), window(words, counts, here, pitch, dtype)

    def _boxes(self, access: Access) -> list[Box]:
        """The words of an access, and their places in a dense array of the needed intervals."""
        return self._layout(*access).boxes()

    def _layout(self, role: Role, pieces: tuple[Piece, ...], need: Region) -> Placed:
        return self._layouts.of(self._frame.homes[role], pieces, need, self._frame.widths[role])

    def inside(self, access: Access) -> bool:
        """Whether the needed region is a box of intervals and the pieces lie inside it."""
        return self._layout(*access).inside

    def _placed(
        self, bank: Bank, role: Role, pieces: tuple[Piece, ...], offset: int, strides: tuple[int, ...]
    ) -> list[Box]:
        """:func:`placed`, remembered where many instructions have the same pieces."""
        if role not in SHARED:
            return placed(bank, pieces, offset, strides)
        of = bank.name, offset, strides
        found = self._places.get(pieces, of)
        return self._places.put(pieces, of, placed(bank, pieces, offset, strides)) if found is None else found

    def _slots(self, role: Role, piece: Piece) -> Words:
        """A piece's elements in its first unit's memory, without a copy."""
        bank = self._frame.homes[role]
        base = piece.instances[0] * bank.words + piece.base
        return window(self._words[bank.name], extents(piece.region), base, piece.pitch, self._types[role])

    def _forget(self, role: Role, pieces: tuple[Piece, ...], region: Region | None = None) -> None:
        """Words of a memory are about to be overwritten, by pieces of some region, or by any."""
        memory = self._frame.homes[role].name
        if pieces and self._prepared.keeps(memory):
            self._prepared.written(memory, self._layout(role, pieces, region or pieces[0].region).taken())


def _further(pieces: Sequence[Piece], others: Sequence[Piece]) -> int | None:
    """How many units further some pieces lie than others, at the same words; None if they do not."""
    if len(pieces) != len(others):
        return None
    apart = {
        (other.instances[0] - piece.instances[0])
        if piece.base == other.base and piece.pitch == other.pitch and piece.region == other.region
        else None
        for piece, other in zip(pieces, others, strict=True)
    }
    return apart.pop() if len(apart) == 1 else None


def positions(part: Region, whole: Region) -> tuple[NDArray[Any], ...]:
    """Where a region's elements are in an array of a larger one, as an open mesh."""
    return np.ix_(*(shared(axis, points)[0] for axis, points in zip(whole, part, strict=True)))
