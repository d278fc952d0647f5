"""Words of DRAM that something has happened to: a bit for every word that is not a constant.

A tensor of which every word is written needs no bits any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Box, Integers, boxes, window
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.program import Placement, Program
from dnnc_runtime.tensor import Region, View, span


class Written:
    """The words of a program's tensors that are written; its inputs are from the start."""

    def __init__(self, program: Program) -> None:
        self._places = {placement.name: placement for placement in program.values}
        self._words = {t.name: t.words for t in program.tensors if not t.constant}
        self._bits = {name: np.zeros(words, np.bool_) for name, words in self._words.items()}
        self._left = dict(self._words)
        for name in program.inputs:
            self.once(self.place(name).view)

    def place(self, name: str) -> Placement:
        """Where a value of the model lies."""
        if name not in self._places:
            raise DisagreementFault(f"value {name!r} has no place in DRAM")
        return self._places[name]

    def holds(self, view: View, region: Region | None = None, width: int = 1) -> bool:
        """Whether every word of a region of a view (all of it unless given) has been written."""
        bits = self._bits.get(view.tensor)
        if bits is None:
            return True
        found = _boxes(view, region)
        return all(window(bits, box[0], box[3] + word, box[4]).all() for box in found for word in range(width))

    def fill(self, view: View, region: Region | None = None, width: int = 1) -> None:
        """The words of a region of a view (all of it unless given) are written."""
        bits = self.words(view.tensor)
        if view.tensor not in self._bits:
            return
        for box in _boxes(view, region):
            for word in range(width):
                window(bits, box[0], box[3] + word, box[4])[...] = True

    def once(self, view: View, region: Region | None = None) -> bool:
        """Fill, and tell whether none of the words had been written before."""
        bits, found, fresh, count = self.words(view.tensor), _boxes(view, region), True, 0
        if view.tensor not in self._bits:
            return not found
        for box in found:
            there = window(bits, box[0], box[3], box[4])
            fresh = fresh and not there.any()
            there[...] = True
            count += there.size
        if fresh:
            self._left[view.tensor] -= count
            if not self._left[view.tensor] and bits.all():
                del self._bits[view.tensor]
        return fresh

    def words(self, tensor: str) -> NDArray[np.bool_]:
        """The bits of a tensor."""
        if tensor not in self._words:
            raise DisagreementFault(f"constant {tensor!r} is written")
        if tensor not in self._bits:
            return np.broadcast_to(np.True_, (self._words[tensor],))
        return self._bits[tensor]

    def all(self, view: View) -> NDArray[np.bool_]:
        """The bits of a view's elements."""
        bits = self.words(view.tensor)
        if view.tensor not in self._bits:
            return np.broadcast_to(np.True_, view.shape)
        return window(bits, view.shape, view.offset, view.strides)


class Lost:
    """The elements of some regions of a view, less those of which it is known where they are."""

    def __init__(self, view: View, regions: Sequence[Region]) -> None:
        found = [box for region in regions for box in _boxes(view, region)]
        self._view = view
        self._first = min(box[3] for box in found)
        self._bits = np.zeros(max(map(_last, found)) + 1 - self._first, np.bool_)
        for box in found:
            window(self._bits, box[0], box[3] - self._first, box[4])[...] = True

    def stored(self, bits: NDArray[np.bool_]) -> None:
        """Words whose bits are set are in DRAM."""
        self._bits &= ~bits[self._first : self._first + len(self._bits)]

    def found(self, words: Iterable[Integers]) -> None:
        """Words are somewhere else."""
        for some in words:
            here = some - self._first
            self._bits[here[(here >= 0) & (here < len(self._bits))]] = False

    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._bits.any())

    def elements(self) -> NDArray[np.bool_]:
        """Which elements of the view are lost."""
        ends = [(n - 1) * step for n, step in zip(self._view.shape, self._view.strides, strict=True)]
        bits = np.zeros(self._view.offset + sum(ends) + 1, np.bool_)
        bits[self._first : self._first + len(self._bits)] = self._bits
        return window(bits, self._view.shape, self._view.offset, self._view.strides)


def _boxes(view: View, region: Region | None) -> list[Box]:
    whole = region or tuple(span(0, size) for size in view.shape)
    return boxes(whole, 0, view.strides, view.offset, view.strides)


def _last(box: Box) -> int:
    """The last word of DRAM of a box."""
    return box[3] + sum((count - 1) * step for count, step in zip(box[0], box[4], strict=True))
