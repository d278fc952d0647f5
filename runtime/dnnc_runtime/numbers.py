"""Number systems: float32, and the machine's fixed point.

Fixed point: products are exact; sums are kept at twice the fraction bits and wrap at the accumulator's width, so
that their order cannot matter; bias and residual are added before the one rounding, half up, and the saturation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Activation

Words = NDArray[Any]
"""Numbers as a memory holds them, one element of the array for each element of a tensor."""

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Tally:
    """How often a layer's values did not fit: saturated words, and sums that wrapped at the accumulator's width."""

    saturations: int = 0
    overflows: int = 0


class Numbers(Protocol):
    """A number system: how words are stored and what arithmetic on them means."""

    @property
    def name(self) -> str: ...

    @property
    def word(self) -> np.dtype[Any]:
        """Type of a word slot."""
        ...

    @property
    def accumulator(self) -> np.dtype[Any]:
        """Type of an accumulator, read at the address of its first word slot."""
        ...

    @property
    def exact(self) -> np.dtype[Any]:
        """Floating type in which products of words are summed within one visit."""
        ...

    @property
    def poison(self) -> Any:
        """What a word slot that holds nothing reads as."""
        ...

    def quantise(self, values: NDArray[Any], tally: Tally) -> Words:
        """Real values as words."""
        ...

    def dequantise(self, words: Words) -> Floats:
        """Words as real values."""
        ...

    def accumulate(self, sums: Words | None, products: NDArray[Any], tally: Tally) -> Words:
        """Products added to what was accumulated before."""
        ...

    def finish(self, sums: Words, addends: list[Words], tally: Tally) -> Words:
        """Sums plus words (bias, residual), as words."""
        ...

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        """Sum of words."""
        ...

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        """Difference of words."""
        ...

    def multiply(self, a: Words, b: Words, addend: Words | None, tally: Tally) -> Words:
        """Product of words plus a word, rounded once."""
        ...

    def widen(self, words: Words) -> Words:
        """A copy of words that is wide enough to sum a pool's windows in."""
        ...

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        """Sums of words over counts, as words."""
        ...

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        """The activation's exact value, as words."""
        ...



REAL: dict[str, Callable[..., NDArray[Any]]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, x * x.dtype.type(alpha), x),
    "Clip": lambda x, low=-np.inf, high=np.inf: np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
"""Activations as functions of real values and their parameters, in the order that ONNX names them."""


def _real(activation: Activation, x: NDArray[Any]) -> NDArray[Any]:
    if activation.name not in REAL:
        raise UsageFault(f"activation {activation.name!r} is not one of {', '.join([*REAL, 'PRelu'])}")
    with np.errstate(over="ignore"):
        return REAL[activation.name](x, *activation.parameters)


@dataclass(frozen=True, slots=True)
class Float32:
    """One float32 in the first word slot of every element; never rounded to the machine's words."""

    name: str = "float32"
    word: np.dtype[Any] = field(default=np.dtype(np.float32), repr=False)
    accumulator: np.dtype[Any] = field(default=np.dtype(np.float32), repr=False)
    exact: np.dtype[Any] = field(default=np.dtype(np.float32), repr=False)
    poison: Any = np.nan

    def quantise(self, values: NDArray[Any], tally: Tally) -> Words:
        return np.asarray(values, np.float32)

    def dequantise(self, words: Words) -> Floats:
        return np.asarray(words, np.float32)

    def accumulate(self, sums: Words | None, products: NDArray[Any], tally: Tally) -> Words:
        return products if sums is None else sums + products

    def finish(self, sums: Words, addends: list[Words], tally: Tally) -> Words:
        for addend in addends:
            sums = sums + addend
        return sums

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        return a + b

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        return a - b

    def multiply(self, a: Words, b: Words, addend: Words | None, tally: Tally) -> Words:
        return a * b if addend is None else a * b + addend

    def widen(self, words: Words) -> Words:
        return words.astype(np.float32)

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        return sums / counts.astype(np.float32)

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        if activation.name == "PRelu":
            assert slope is not None
            return np.where(words < 0, words * slope, words)
        return _real(activation, words).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Two's complement words with ``fraction_bits``, sums with twice as many in ``accumulator_bits``."""

    word_bits: int
    fraction_bits: int
    accumulator_bits: int

    @classmethod
    def of(cls, machine: Machine) -> Fixed:
        """The number system of a machine."""
        return cls(machine.word_bits, machine.fraction_bits, machine.accumulator_bits)

    @property
    def name(self) -> str:
        return "fixed"

    @property
    def word(self) -> np.dtype[Any]:
        return np.dtype(f"i{self.word_bits // 8}")

    @property
    def accumulator(self) -> np.dtype[Any]:
        return np.dtype(f"i{self.accumulator_bits // 8}")

    @property
    def exact(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def poison(self) -> Any:
        return np.iinfo(self.word).min

    def quantise(self, values: NDArray[Any], tally: Tally) -> Words:
        return self._saturate(np.floor(np.ldexp(np.asarray(values, np.float64), self.fraction_bits) + 0.5), tally)

    def dequantise(self, words: Words) -> Floats:
        return np.ldexp(words.astype(np.float32), -self.fraction_bits)

    def accumulate(self, sums: Words | None, products: NDArray[Any], tally: Tally) -> Words:
        wide = products.astype(np.int64)
        return self._wrap(wide if sums is None else wide + sums, tally)

    def finish(self, sums: Words, addends: list[Words], tally: Tally) -> Words:
        if addends:
            wide = sums.astype(np.int64)
            for addend in addends:
                wide = wide + (addend.astype(np.int64) << self.fraction_bits)
            sums = self._wrap(wide, tally)
        return self._round(sums, tally)

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        return self._saturate(a.astype(np.int32) + b, tally)

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        return self._saturate(a.astype(np.int32) - b, tally)

    def multiply(self, a: Words, b: Words, addend: Words | None, tally: Tally) -> Words:
        products = a.astype(np.int64) * b
        return self.finish(self._wrap(products, tally), [] if addend is None else [addend], tally)

    def widen(self, words: Words) -> Words:
        return words.astype(np.int64)

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        return ((2 * sums.astype(np.int64) + counts) // (2 * counts)).astype(self.word)

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        if activation.name == "PRelu":
            assert slope is not None
            return np.where(words < 0, self.multiply(words, slope, None, tally), words)
        values, saturated = _table(self, activation)
        where = words.view(f"u{self.word_bits // 8}")
        tally.saturations += int(saturated[where].sum()) if saturated is not None else 0
        return values[where]

    def _wrap(self, wide: NDArray[np.int64], tally: Tally) -> Words:
        narrow = wide.astype(self.accumulator)
        tally.overflows += int(np.count_nonzero(narrow != wide))
        return narrow

    def _round(self, sums: Words, tally: Tally) -> Words:
        half = 1 << self.fraction_bits >> 1
        return self._saturate((sums.astype(np.int64) + half) >> self.fraction_bits, tally)

    def _saturate(self, values: NDArray[Any], tally: Tally) -> Words:
        limits = np.iinfo(self.word)
        kept = np.clip(values, limits.min, limits.max)
        tally.saturations += int(np.count_nonzero(kept != values))
        return kept.astype(self.word)


@lru_cache(maxsize=64)
def _table(numbers: Fixed, activation: Activation) -> tuple[Words, NDArray[np.bool_] | None]:
    """The activation of every word, indexed by the word's bits, and which of them saturate (None: none does)."""
    bits = np.arange(1 << numbers.word_bits, dtype=np.int64).astype(f"u{numbers.word_bits // 8}")
    real = np.ldexp(bits.view(numbers.word).astype(np.float64), -numbers.fraction_bits)
    exact = np.floor(np.ldexp(_real(activation, real), numbers.fraction_bits) + 0.5)
    limits = np.iinfo(numbers.word)
    saturated = (exact < limits.min) | (exact > limits.max)
    return np.clip(exact, limits.min, limits.max).astype(numbers.word), saturated if saturated.any() else None
