"""Number systems: float32, and the machine's fixed point.

Fixed point: products are exact; sums are kept at twice the fraction bits and wrap at the accumulator's width, so
that their order cannot matter; bias and residual are added before the one rounding, half up, and the saturation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.activations import real
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
    def name(self) -> str:
        """What reports call it."""
        ...

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
        """Floating type in which the products of words are summed within one visit."""
        ...

    @property
    def poison(self) -> float:
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

    def finish(self, sums: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Sums plus words (bias, residual), as words."""
        ...

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        """Sum of words."""
        ...

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        """Difference of words."""
        ...

    def multiply(self, a: Words, b: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Product of words plus words, rounded once."""
        ...

    def widen(self, words: Words) -> Words:
        """A copy of words that is wide enough to sum a pool's windows in."""
        ...

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        """Sums of words over counts, as words."""
        ...

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        """The activation's exact value, as words; ``slope`` only for PRelu."""
        ...


@dataclass(frozen=True, slots=True)
class Float32:
    """One float32 in the first word slot of every element; never rounded to the machine's words."""

    @property
    def name(self) -> str:
        """What reports call it."""
        return "float32"

    @property
    def word(self) -> np.dtype[Any]:
        """Type of a word slot."""
        return np.dtype(np.float32)

    @property
    def accumulator(self) -> np.dtype[Any]:
        """The same as a word: further slots of an accumulator stay unused."""
        return np.dtype(np.float32)

    @property
    def exact(self) -> np.dtype[Any]:
        """Sums are rounded as they are made."""
        return np.dtype(np.float32)

    @property
    def poison(self) -> float:
        """Not a number, so that it cannot be overlooked."""
        return float("nan")

    def quantise(self, values: NDArray[Any], tally: Tally) -> Words:
        """Float32 values."""
        return np.asarray(values, np.float32)

    def dequantise(self, words: Words) -> Floats:
        """A copy."""
        return words.astype(np.float32)

    def accumulate(self, sums: Words | None, products: NDArray[Any], tally: Tally) -> Words:
        """Their sum."""
        return products if sums is None else sums + products

    def finish(self, sums: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Their sum, in the order given."""
        for addend in addends:
            sums = sums + addend
        return sums

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        """Their sum."""
        return np.add(a, b)

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        """Their difference."""
        return np.subtract(a, b)

    def multiply(self, a: Words, b: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Their product, and the addends' sum with it."""
        return self.finish(np.multiply(a, b), addends, tally)

    def widen(self, words: Words) -> Words:
        """A copy."""
        return words.astype(np.float32)

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        """Their quotient."""
        return np.divide(sums, counts.astype(np.float32))

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        """Computed in float32."""
        if activation.name == "PRelu":
            assert slope is not None
            return np.where(words < 0, words * slope, words)
        return real(activation, words)


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
        """What reports call it."""
        return "fixed"

    @property
    def word(self) -> np.dtype[Any]:
        """A signed integer."""
        return np.dtype(f"i{self.word_bits // 8}")

    @property
    def accumulator(self) -> np.dtype[Any]:
        """A signed integer that really takes up its word slots."""
        return np.dtype(f"i{self.accumulator_bits // 8}")

    @property
    def exact(self) -> np.dtype[Any]:
        """Float64 sums products of 16-bit words exactly up to 2**23 terms, and its matrix product is fast."""
        return np.dtype(np.float64)

    @property
    def poison(self) -> float:
        """The word furthest from zero."""
        return float(np.iinfo(self.word).min)

    def quantise(self, values: NDArray[Any], tally: Tally) -> Words:
        """Rounded half up and saturated."""
        # A power of two scales exactly, and much faster than ldexp.
        scaled: NDArray[np.float64] = np.multiply(values, 2.0**self.fraction_bits, dtype=np.float64)
        scaled += 0.5
        return self._saturate(np.floor(scaled, out=scaled), tally)

    def dequantise(self, words: Words) -> Floats:
        """Exact."""
        return np.multiply(words, np.float32(2.0**-self.fraction_bits), dtype=np.float32)

    def accumulate(self, sums: Words | None, products: NDArray[Any], tally: Tally) -> Words:
        """Their sum, wrapped."""
        wide = products.astype(np.int64)
        if sums is not None:
            wide += sums
        return self._wrap(wide, tally)

    def finish(self, sums: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Their sum, wrapped, rounded half up and saturated."""
        wide = sums.astype(np.int64)
        for addend in addends:
            wide += np.left_shift(addend, self.fraction_bits, dtype=np.int64)
        if addends:
            wide[...] = self._wrap(wide, tally)
        wide += 1 << self.fraction_bits >> 1
        wide >>= self.fraction_bits
        return self._saturate(wide, tally)

    def add(self, a: Words, b: Words, tally: Tally) -> Words:
        """Their sum, saturated."""
        return self._saturate(np.add(a, b, dtype=np.int32), tally)

    def subtract(self, a: Words, b: Words, tally: Tally) -> Words:
        """Their difference, saturated."""
        return self._saturate(np.subtract(a, b, dtype=np.int32), tally)

    def multiply(self, a: Words, b: Words, addends: Sequence[Words], tally: Tally) -> Words:
        """Their product as a sum of one term, finished with the addends."""
        return self.finish(self._wrap(np.multiply(a, b, dtype=np.int64), tally), addends, tally)

    def widen(self, words: Words) -> Words:
        """64 bits."""
        return words.astype(np.int64)

    def average(self, sums: Words, counts: NDArray[np.int64]) -> Words:
        """Their quotient, rounded half up; it always fits."""
        return ((2 * sums.astype(np.int64) + counts) // (2 * counts)).astype(self.word)

    def activate(self, words: Words, activation: Activation, slope: Words | None, tally: Tally) -> Words:
        """The exact value, rounded half up and saturated."""
        if activation.name == "PRelu":
            assert slope is not None
            return np.where(words < 0, self.multiply(np.minimum(words, 0), slope, (), tally), words)
        values, saturated = _table(self, activation)
        where = words.view(f"u{self.word_bits // 8}")
        if saturated is not None:
            tally.saturations += int(np.count_nonzero(saturated[where]))
        active: Words = values[where]
        return active

    def _wrap(self, wide: NDArray[np.int64], tally: Tally) -> Words:
        narrow: Words = wide.astype(self.accumulator)
        if _fits(wide, self.accumulator_bits):
            return narrow
        tally.overflows += int(np.count_nonzero(narrow != wide))
        return narrow

    def _saturate(self, values: NDArray[Any], tally: Tally) -> Words:
        if _fits(values, self.word_bits):
            return values.astype(self.word)
        limits = np.iinfo(self.word)
        kept: Words = np.clip(values, limits.min, limits.max)
        tally.saturations += int(np.count_nonzero(kept != values))
        return kept.astype(self.word)


def _fits(values: NDArray[Any], bits: int) -> bool:
    """Whether there are values, and all are within two's complement of so many bits."""
    top = 1 << bits - 1
    return bool(values.size and values.min() >= -top and values.max() < top)


@lru_cache(maxsize=64)
def _table(numbers: Fixed, activation: Activation) -> tuple[Words, NDArray[np.bool_] | None]:
    """The activation of every word, indexed by the word's bits, and which of them saturate (None: none does)."""
    bits = np.arange(1 << numbers.word_bits, dtype=np.int64).astype(f"u{numbers.word_bits // 8}")
    values = np.ldexp(bits.view(numbers.word).astype(np.float64), -numbers.fraction_bits)
    exact = np.floor(np.ldexp(real(activation, values), numbers.fraction_bits) + 0.5)
    limits = np.iinfo(numbers.word)
    saturated: NDArray[np.bool_] = (exact < limits.min) | (exact > limits.max)
    return np.clip(exact, limits.min, limits.max).astype(numbers.word), saturated if saturated.any() else None
