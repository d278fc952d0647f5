"""What every word on chip holds: the element's role and coordinates as one number, zero where it holds nothing.

Most reads are of pieces just as they were written, and are settled without looking at words. Only where one is not
(a ring, a part of a tile, a fault), the words of the memory are tagged, with all that was written to it until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Bank, Box, Reach, alike, banks, placed, reach, row_major, window
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import SPACES, Frame
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Role
from dnnc_runtime.tensor import Piece

_Tags = NDArray[Any]


class _Unit:
    """One unit's memory: where every write went, and the last piece written at every place."""

    def __init__(self) -> None:
        self._writes: list[Reach] = []
        self._pieces: dict[_Key, tuple[Piece, int]] = {}

    def put(self, role: Role | None, piece: Piece, words: Reach) -> None:
        """Reach are written, as a piece of a role unless that is None."""
        if role is not None:
            self._pieces[_key(role, piece)] = piece, len(self._writes)
        self._writes.append(words)

    def find(self, role: Role, piece: Piece) -> Reach | None:
        """The words of a piece if it was written just so and nothing on top of it."""
        held, when = self._pieces.get(_key(role, piece), (None, 0))
        if held is None or held.pitch != piece.pitch or held.region != piece.region:
            return None
        first, end = words = self._writes[when]
        for other, stop in self._writes[when + 1 :]:
            if other < end and first < stop:
                return None
        return words


class Tags:
    """The tags of all memories for the length of a section."""

    def __init__(self, machine: Machine, frame: Frame) -> None:
        self._frame = frame
        self._strides = {role: row_major(shape) for role, shape in frame.shapes.items()}
        self._firsts: dict[Role, int] = {}
        top = 1
        for role in SPACES:
            if role in frame.shapes:
                self._firsts[role] = top
                top += prod(frame.shapes[role])
        dtype = np.dtype(np.int32 if top < 2**31 else np.int64)
        self._tags = {bank.name: np.zeros(bank.words * bank.units, dtype) for bank in banks(machine).values()}
        self._later: dict[str, list[tuple[Role | None, Sequence[Piece], int]]] = {name: [] for name in self._tags}
        self._units = {bank.name: [_Unit() for _ in range(bank.units)] for bank in banks(machine).values()}

    def read(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Reach:
        """Every word of the pieces (of one unit each) has to hold its element of the role."""
        units, low, high = self._units[bank.name], bank.words, 0
        changed: list[Piece] = []
        for piece in pieces:
            (unit,) = piece.instances
            words = units[unit].find(role, piece) if unit < bank.units else None
            if words is None:
                changed.append(piece)
                words, _ = reach(bank, piece, self._frame.widths[role])
            low, high = min(low, words.first), max(high, words.end)
        if changed:
            self._settle(bank)
            self._compare(role, bank, changed)
        return Reach(low, high)

    def write(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Reach:
        """From now on the words of the pieces hold their elements of the role."""
        return self._overwrite(role, bank, pieces, self._frame.widths[role])

    def clear(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Reach:
        """From now on the words of the pieces, ``width`` for each element, hold nothing."""
        return self._overwrite(None, bank, pieces, width)

    def _overwrite(self, role: Role | None, bank: Bank, pieces: Sequence[Piece], width: int) -> Reach:
        self._later[bank.name].append((role, pieces, width))
        units, low, high = self._units[bank.name], bank.words, 0
        last: Piece | None = None
        words, apart = Reach(0, 0), False
        for piece in pieces:
            if last is None or not alike(last, piece):
                words, apart = reach(bank, piece, width)
                low, high = min(low, words.first), max(high, words.end)
                last = piece
            for unit in piece.instances:
                if not 0 <= unit < bank.units:
                    raise DisagreementFault(f"unit {unit} of memory {bank.name!r}, which has {bank.units}")
                units[unit].put(role if apart else None, piece, words)
        return Reach(low, high)

    def _settle(self, bank: Bank) -> None:
        """Tag the words that were written since."""
        tags, later = self._tags[bank.name], self._later[bank.name]
        for role, pieces, width in later:
            first, strides = (0, (0,) * 5) if role is None else (self._firsts[role], self._strides[role])
            for box in placed(bank, pieces, width, first, strides):
                wanted = 0 if role is None else _expected(box, tags.dtype)
                for word in range(width):
                    window(tags, box[0], box[1] + word, box[2])[...] = wanted
        later.clear()

    def _compare(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> None:
        width, tags = self._frame.widths[role], self._tags[bank.name]
        for box in placed(bank, pieces, width, self._firsts[role], self._strides[role]):
            wanted = _expected(box, tags.dtype)
            for word in range(width):
                if not (window(tags, box[0], box[1] + word, box[2]) == wanted).all():
                    self._explain(bank, box, word, wanted)

    def _explain(self, bank: Bank, box: Box, extra: int, wanted: _Tags) -> NoReturn:
        counts, here, pitch, _, _ = box
        found = window(self._tags[bank.name], counts, here + extra, pitch)
        at = np.unravel_index(int(np.argmax(found != wanted)), counts)
        flat = here + extra + sum(int(i) * step for i, step in zip(at, pitch, strict=True))
        unit, word = divmod(flat, bank.words)
        raise DisagreementFault(
            f"word {word} of memory {bank.name!r} of unit {unit} holds {self._name(int(found[at]))}, "
            f"expected {self._name(int(wanted[at]))}"
        )

    def _name(self, tag: int) -> str:
        """A tag as its role and coordinates."""
        if tag == 0:
            return "nothing"
        role: Role = max(self._firsts, key=lambda r: (self._firsts[r] <= tag, self._firsts[r]))
        at = np.unravel_index(tag - self._firsts[role], self._frame.shapes[role])
        return f"{role} {tuple(int(i) for i in at)}"


_Key = tuple[Role, int, tuple[int, ...]]


def _key(role: Role, piece: Piece) -> _Key:
    """Where a piece and its region start: cheaper to look up than the piece, and seldom shared."""
    return role, piece.base, tuple([axis[0].start if axis else -1 for axis in piece.region])


def _expected(box: Box, dtype: np.dtype[Any]) -> _Tags:
    tags: _Tags = _ramp(box[0], box[4], dtype) + dtype.type(box[3])
    return tags


@lru_cache(maxsize=64)
def _ramp(counts: tuple[int, ...], steps: tuple[int, ...], dtype: np.dtype[Any]) -> _Tags:
    """sum(index * step) for every index below the counts."""
    ramp: _Tags = np.zeros((), dtype)
    for count, step in zip(reversed(counts), reversed(steps), strict=True):
        outer = np.arange(count, dtype=dtype) * dtype.type(step)
        ramp = outer.reshape(count, *(1,) * ramp.ndim) + ramp
    return ramp
