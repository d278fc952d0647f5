"""Scales: from values to places on a picture, with ticks at round values."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from ``least`` to ``most`` to places from ``start`` to ``end``, by their logarithms if asked."""

    least: float
    most: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.least < self.most or (self.log and self.least <= 0):
            raise ValueError(f"no scale from {self.least} to {self.most}")

    def __call__(self, value: float) -> float:
        """Where a value is."""
        if self.log:
            part = log10(value / self.least) / log10(self.most / self.least)
        else:
            part = (value - self.least) / (self.most - self.least)
        return self.start + part * (self.end - self.start)

    def ticks(self, about: int = 6) -> tuple[float, ...]:
        """Round values, about so many."""
        return self._decades(about) if self.log else self._steps(round_step((self.most - self.least) / about))

    def _steps(self, step: float) -> tuple[float, ...]:
        first, last = ceil(self.least / step - 1e-9), floor(self.most / step + 1e-9)
        return tuple(i * step for i in range(first, last + 1))

    def _decades(self, about: int) -> tuple[float, ...]:
        powers = range(floor(log10(self.least)), ceil(log10(self.most)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = tuple(d * 10.0**p for p in powers for d in digits if self.least <= d * 10.0**p <= self.most)
            if len(found) <= about:
                break
        return found


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least so much."""
    power: float = 10.0 ** floor(log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * (1 - 1e-9))


def tick_text(value: float, step: float) -> str:
    """A tick's value, to as many digits as tell it from the next."""
    return f"{value:,.{max(0, -floor(log10(step) + 1e-9))}f}"
