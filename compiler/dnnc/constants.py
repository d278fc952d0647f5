"""Constants as a layer wants them: rearranged, folded or spread out when they are loaded, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant DRAM tensor: ``make`` of the data of its sources gives its words, with these extents.

    Attributes:
        name: the ONNX initialiser's, with ":folded" behind it where the data is not the initialiser's alone.
        make: compares by value, so that layers with equal wishes share a tensor.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[..., Array]

    @property
    def words(self) -> int:
        """Machine words that it takes."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Arrange:
    """The axes of a value in the order in which they lie, outermost first."""

    order: tuple[int, ...]

    def __call__(self, data: Array) -> Array:
        """The data as the class says."""
        return data.transpose(self.order)


@dataclass(frozen=True, slots=True)
class ConvWeights:
    """(g*k, c, [r,] q) to (g, k, r, q, c)."""

    shape: tuple[int, ...]

    def __call__(self, data: Array) -> Array:
        """The data as the class says."""
        g, k, r, q, c = self.shape
        return data.reshape(g, k, c, r, q).transpose(0, 1, 3, 4, 2)


@dataclass(frozen=True, slots=True)
class ProductWeights:
    """A constant second factor (..., c, k), or (k, c) if transposed, to (g, k, 1, 1, c), times a scale.

    ``split`` are the extents that c is made of, and ``order`` the order in which they lie in the first factor.
    """

    shape: tuple[int, ...]
    transposed: bool
    scale: float
    split: tuple[int, ...]
    order: tuple[int, ...]

    def __call__(self, data: Array) -> Array:
        """The data as the class says."""
        g, k, _, _, c = self.shape
        rows = data.reshape(g, k, c) if self.transposed else data.reshape(g, c, k).transpose(0, 2, 1)
        parts = rows.reshape(g, k, *self.split).transpose(0, 1, *(2 + i for i in self.order))
        return parts.reshape(self.shape) * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class PerPlane:
    """One word for every output plane (g, k), from one for each or one for all, times a scale."""

    shape: tuple[int, ...]
    scale: float = 1.0

    def __call__(self, data: Array) -> Array:
        """The data as the class says."""
        planes = data.reshape(self.shape) if data.size > 1 else data.reshape(1, 1)
        return np.broadcast_to(planes * np.float32(self.scale), self.shape)


@dataclass(frozen=True, slots=True)
class Filled:
    """One number everywhere; made of nothing."""

    shape: tuple[int, ...]
    value: float

    def __call__(self) -> Array:
        """The data as the class says."""
        return np.full(self.shape, self.value, np.float32)


@dataclass(frozen=True, slots=True)
class NormScale:
    """A batch norm's factor per plane, of (scale, variance): scale / sqrt(variance + epsilon)."""

    shape: tuple[int, ...]
    epsilon: float

    def __call__(self, scale: Array, variance: Array) -> Array:
        """The data as the class says."""
        return (scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + self.epsilon)).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class NormShift:
    """A batch norm's summand per plane, of (scale, shift, mean, variance): shift - mean * factor."""

    shape: tuple[int, ...]
    epsilon: float

    def __call__(self, scale: Array, shift: Array, mean: Array, variance: Array) -> Array:
        """The data as the class says."""
        factor = NormScale(self.shape, self.epsilon)(scale, variance)
        return shift.astype(np.float64).reshape(self.shape) - mean.astype(np.float64).reshape(self.shape) * factor
