"""Off-chip memory: the words of every tensor, and the model's values among them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.addressing import window
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.numbers import Floats, Numbers, Tally, Words
from dnnc_runtime.program import Constants, Host, HostRun, Placement, Program
from dnnc_runtime.tensor import View


@dataclass(frozen=True, slots=True)
class Result:
    """What a program computed, as real values, and how often each layer's numbers did not fit.

    ``values`` holds every value of the model that was computed, where asked for.
    """

    outputs: Mapping[str, Floats]
    values: Mapping[str, Floats]
    saturations: Mapping[str, int]
    overflows: Mapping[str, int]


def finite(name: str, values: NDArray[Any]) -> Floats:
    """An input as float32, as models have them. Raises UsageFault if it holds anything but finite real numbers."""
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise UsageFault(f"input {name!r} is of type {given.dtype}; real numbers are expected")
    with np.errstate(over="ignore"):
        single = given.astype(np.float32)
    if not np.isfinite(single).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(single))[0])
        raise UsageFault(f"input {name!r} is {given[at]} at {list(at)}; finite numbers of float32 are expected")
    return single


class Dram:
    """Off-chip words: one array for each tensor; constants are read when first needed and can be dropped."""

    def __init__(self, program: Program, constants: Constants, numbers: Numbers) -> None:
        self._sizes = {tensor.name: tensor.words for tensor in program.tensors}
        self._constant = {tensor.name for tensor in program.tensors if tensor.constant}
        self._values = {placement.name: placement for placement in program.values}
        self._constants = constants
        self._numbers = numbers
        self._words: dict[str, Words] = {}

    def feed(self, names: Iterable[str], inputs: Mapping[str, NDArray[Any]]) -> None:
        """Write the program's inputs. Raises UsageFault if one is absent, of another shape, or not finite numbers."""
        for name in names:
            if name not in inputs:
                raise UsageFault(f"input {name!r} is absent; given are {', '.join(inputs) or 'none'}")
            self.put(name, finite(name, inputs[name]), Tally())

    def words(self, tensor: str) -> Words:
        """The words of a tensor."""
        if tensor not in self._words:
            if tensor in self._constant:
                self._words[tensor] = self._read(tensor)
            else:
                self._words[tensor] = np.full(self._sizes[tensor], self._numbers.poison, self._numbers.word)
        return self._words[tensor]

    def drop_constants(self, used: Container[str] = ()) -> None:
        """Forget constants, but those that are going to be used; they are read again when next needed."""
        kept = self._words.items()
        self._words = {name: words for name, words in kept if name not in self._constant or name in used}

    def whole(self, view: View) -> Words:
        """All elements of a view, without a copy."""
        return window(self.words(view.tensor), view.shape, view.offset, view.strides)

    def value(self, name: str) -> Floats:
        """A value of the model."""
        place = self._place(name)
        return self._numbers.dequantise(self.whole(place.view)).reshape(place.shape)

    def put(self, name: str, values: NDArray[Any], tally: Tally) -> None:
        """Write a value of the model."""
        place = self._place(name)
        if values.shape != place.shape:
            raise UsageFault(f"value {name!r} has shape {values.shape}, expected {place.shape}")
        self.whole(place.view)[...] = self._numbers.quantise(values, tally).reshape(place.view.shape)

    def _place(self, name: str) -> Placement:
        if name not in self._values:
            raise UsageFault(f"the program places no value {name!r}; it has {', '.join(self._values)}")
        return self._values[name]

    def _read(self, tensor: str) -> Words:
        if tensor not in self._constants:
            raise UsageFault(f"constant {tensor!r} has no loader: pass one in constants")
        values = np.asarray(self._constants[tensor]())
        if values.size != self._sizes[tensor]:
            raise UsageFault(f"constant {tensor!r} has {values.size} values, expected {self._sizes[tensor]}")
        return self._numbers.quantise(values.reshape(-1), Tally())

    def run(self, host: Host, run: HostRun | None, tally: Tally) -> None:
        """Run a host instruction on values of the model."""
        if run is None:
            raise UsageFault(f"node {host.node!r} ({host.operator}) runs on the host: pass a host function")
        values = run(host, {name: self.value(name) for name in host.inputs if name})
        for name in filter(None, host.outputs):
            if name not in values:
                raise UsageFault(f"the host function gave no {name!r} for node {host.node!r}")
            self.put(name, np.asarray(values[name]), tally)

    def result(self, program: Program, kept: Iterable[str], tallies: Mapping[str, Tally]) -> Result:
        """The program's outputs and the values kept, with every section's tally."""
        return Result(
            {name: self.value(name) for name in program.outputs},
            {name: self.value(name) for name in kept},
            {name: tally.saturations for name, tally in tallies.items()},
            {name: tally.overflows for name, tally in tallies.items()},
        )
