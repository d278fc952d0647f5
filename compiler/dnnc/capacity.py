"""What is missing where a layer does not fit: the smallest memory sizes that would do, found by search."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dnnc.enumerate import quickest_legal
from dnnc.space import Space
from dnnc_runtime.machine import Machine

AMPLE = 1 << 40
"""Bytes that hold any layer."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A memory that is too small, and the smallest size that would do."""

    name: str
    has: int
    smallest: int


def missing(space: Space) -> tuple[Missing, ...]:
    """The memories to enlarge so that the space holds a legal schedule; none if no size would help.

    One memory alone is enlarged if that is enough; else each in turn, with those before it at the size found.
    """
    machine = space.machine
    names = [m.name for m in machine.memories]
    ample = machine
    for name in names:
        ample = ample.with_memory(name, AMPLE)
    if not _legal(space, ample):
        return ()
    for name in names:
        if _legal(space, machine.with_memory(name, AMPLE)):
            return (Missing(name, machine.memory(name).bytes, _smallest(space, machine, name)),)
    found: list[Missing] = []
    for name in names:
        size = _smallest(space, ample, name)
        ample = ample.with_memory(name, size)
        if size > machine.memory(name).bytes:
            found.append(Missing(name, machine.memory(name).bytes, size))
    return tuple(found)


def _legal(space: Space, machine: Machine) -> bool:
    return quickest_legal(replace(space, machine=machine)) is not None


def _smallest(space: Space, machine: Machine, name: str) -> int:
    """The smallest size of one memory, the others as they are, in whole words."""
    word = machine.word_bytes
    low, high = 0, 1
    while not _legal(space, machine.with_memory(name, high * word)):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _legal(space, machine.with_memory(name, middle * word)):
            high = middle
        else:
            low = middle
    return high * word
