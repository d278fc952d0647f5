"""What every word on chip holds: the element's role and coordinates as one number, zero where it holds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Bank, Box, Placed, banks, placed, row_major, window
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import SPACES, Frame
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Role
from dnnc_runtime.tensor import Piece

_Tags = NDArray[Any]


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

    def read(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Placed:
        """Every word of the pieces has to hold its element of the role."""
        width, tags = self._frame.widths[role], self._tags[bank.name]
        found = placed(bank, pieces, width, self._firsts[role], self._strides[role])
        for box in found.boxes:
            wanted = _expected(box, tags.dtype)
            for word in range(width):
                if not (window(tags, box[0], box[1] + word, box[2]) == wanted).all():
                    self._explain(bank, box, word, wanted)
        return found

    def write(self, role: Role, bank: Bank, pieces: Sequence[Piece]) -> Placed:
        """From now on the words of the pieces hold their elements of the role."""
        width, tags = self._frame.widths[role], self._tags[bank.name]
        found = placed(bank, pieces, width, self._firsts[role], self._strides[role])
        for box in found.boxes:
            wanted = _expected(box, tags.dtype)
            for word in range(width):
                window(tags, box[0], box[1] + word, box[2])[...] = wanted
        return found

    def clear(self, bank: Bank, pieces: Sequence[Piece], width: int) -> Placed:
        """From now on the words of the pieces, ``width`` for each element, hold nothing."""
        tags = self._tags[bank.name]
        rank = len(pieces[0].pitch) if pieces else 0
        found = placed(bank, pieces, width, 0, (0,) * rank)
        for counts, here, pitch, _, _ in found.boxes:
            for word in range(width):
                window(tags, counts, here + word, pitch)[...] = 0
        return found

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
