"""How full the memories are over time.

A word is in use from when the job that writes it starts to when the last job that reads it has ended. All units'
memories are laid over one another: a word counts if any unit holds something there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dnnc_runtime.addressing import Integers
from dnnc_runtime.hazards import Footprint, view
from dnnc_runtime.jobs import Job
from dnnc_runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Steps:
    """A step function: ``values[i]`` from ``times[i]`` (in ticks) on."""

    times: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def largest(self) -> int:
        """The largest value."""
        return max(self.values, default=0)


def occupancy(machine: Machine, jobs: Sequence[Job], spans: Sequence[tuple[int, int]]) -> Mapping[str, Steps]:
    """By memory, the bytes in use over time."""
    lives = {m.name: _Lives(m.bytes // machine.word_bytes) for m in machine.memories}
    for job, (start, end) in zip(jobs, spans, strict=True):
        for use in sorted(job.uses, key=lambda use: use.writes):
            of = lives[use.words.memory]
            if use.writes:
                of.write(use.words, start, end)
            else:
                of.read(use.words, end)
    return {name: of.steps(machine.word_bytes) for name, of in lives.items()}


class _Lives:
    """The words of one memory: since when each is in use, and until when at least."""

    def __init__(self, words: int) -> None:
        self._born = np.full(words, -1, dtype=np.int64)
        self._last = np.zeros(words, dtype=np.int64)
        self._changes: dict[int, int] = {}

    def read(self, words: Footprint, end: int) -> None:
        """Words are in use until ``end``."""
        last = view(self._last, words)
        np.maximum(last, end, out=last)

    def write(self, words: Footprint, start: int, end: int) -> None:
        """What words hold ends, and what they hold now begins."""
        born, last = view(self._born, words), view(self._last, words)
        # What is overwritten in place is still read by the job that does it.
        self._settle(born, np.minimum(last, start))
        born[...], last[...] = start, end

    def _settle(self, born: Integers, last: Integers) -> None:
        """Counts the words that are in use from ``born`` to ``last``; those never written do not count."""
        used = born.ravel() >= 0
        for times, change in ((born.ravel()[used], 1), (last.ravel()[used], -1)):
            edges = np.flatnonzero(np.diff(times, append=-1)) + 1
            for end, count in zip(edges.tolist(), np.diff(edges, prepend=0).tolist(), strict=True):
                time = int(times[end - 1])
                self._changes[time] = self._changes.get(time, 0) + change * count

    def steps(self, word_bytes: int) -> Steps:
        """Bytes in use, from all that has been written."""
        self._settle(self._born, self._last)
        self._born[...] = -1
        times = sorted(time for time, change in self._changes.items() if change)
        held = np.cumsum([self._changes[time] for time in times], dtype=np.int64) * word_bytes
        return Steps(tuple(times), tuple(held.tolist()))
