"""Words of DRAM that something has happened to: a bit for every word that is not a constant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import Box, boxes, window
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.program import Placement, Program
from dnnc_runtime.tensor import Region, View, span


class Written:
    """The words of a program's tensors that are written; its inputs are from the start."""

    def __init__(self, program: Program) -> None:
        self._places = {placement.name: placement for placement in program.values}
        self._bits = {t.name: np.zeros(t.words, np.bool_) for t in program.tensors if not t.constant}
        for name in program.inputs:
            self.fill(self.place(name).view)

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
        for box in _boxes(view, region):
            for word in range(width):
                window(bits, box[0], box[3] + word, box[4])[...] = True

    def once(self, view: View, region: Region | None = None) -> bool:
        """Fill, and tell whether none of the words had been written before."""
        bits, fresh = self.words(view.tensor), True
        for box in _boxes(view, region):
            there = window(bits, box[0], box[3], box[4])
            fresh = fresh and not there.any()
            there[...] = True
        return fresh

    def words(self, tensor: str) -> NDArray[np.bool_]:
        """The bits of a tensor."""
        if tensor not in self._bits:
            raise DisagreementFault(f"constant {tensor!r} is written")
        return self._bits[tensor]

    def all(self, view: View) -> NDArray[np.bool_]:
        """The bits of a view's elements."""
        return window(self.words(view.tensor), view.shape, view.offset, view.strides)


def _boxes(view: View, region: Region | None) -> list[Box]:
    whole = region or tuple(span(0, size) for size in view.shape)
    return boxes(whole, 0, view.strides, view.offset, view.strides)
