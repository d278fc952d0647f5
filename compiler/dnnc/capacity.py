"""What is missing where a layer does not fit: the smallest memory sizes that would do, over every schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dnnc.enumerate import structures
from dnnc.schedule import Pin
from dnnc.space import Space, moved_in_steps
from dnnc.traffic import Model


@dataclass(frozen=True, slots=True)
class Missing:
    """A memory that is too small, and the smallest size that would do."""

    name: str
    has: int
    smallest: int

    @property
    def lacks(self) -> int:
        """Bytes missing in each instance."""
        return self.smallest - self.has

    def __str__(self) -> str:
        return (
            f"memory {self.name!r} has {self.has:,} B and lacks {self.lacks:,} B: "
            f"the smallest size that would do is {self.smallest:,} B"
        )


Way = tuple[Missing, ...]
"""Memories that are enough if all of them are enlarged; empty where nothing is missing."""

Bytes = NDArray[np.int64]


def ways(space: Space) -> tuple[Way, ...]:
    """The ways to enlarge memories so that the space holds a legal schedule, fewest missing bytes first.

    Every memory with which alone that is enough is one. If there is none, each in turn is given as little as it can do
    with, and then the others as little as they can do with beside it. Empty if no size would help.
    """
    has = {m.name: m.bytes for m in space.machine.memories}
    least: dict[tuple[str, ...], tuple[int, ...]] = {}
    for needs in _needs(space, has):
        for order in _orders(tuple(has)):
            found = _smallest([needs[name] for name in order])
            least[order] = min(least.get(order, found), found)
    enough: set[Way] = set()
    for order, sizes in least.items():
        size = dict(zip(order, sizes, strict=True))
        enough.add(tuple(Missing(name, has[name], size[name]) for name in has if size[name] > has[name]))
    if any(len(way) == 1 for way in enough):
        enough = {way for way in enough if len(way) == 1}
    return tuple(sorted(enough, key=lambda way: (sum(m.lacks for m in way), str(way))))


def _orders(names: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Every memory before all others, and after them."""
    others = {name: tuple(other for other in names if other != name) for name in names}
    return {order for name, rest in others.items() for order in ((name, *rest), (*rest, name))}


def described(found: Iterable[Way]) -> str:
    """Ways in words."""
    return "; or ".join(", and ".join(map(str, way)) for way in found)


def _needs(space: Space, has: Mapping[str, int]) -> Iterator[dict[str, Bytes]]:
    """For each structure of the space, what its points need of each memory, at least what that has."""
    asked = space.limits.pin if isinstance(space.limits.pin, Pin) else None
    for deal in space.deals:
        for follow in (False, True) if space.shape.parameters else (False,):
            for structure, grid, _ in structures(space, deal, follow):
                if structure.pin and not asked:
                    continue  # the same without a pin holds less
                tiles = replace(grid, pinned=max(asked.tiles, 1)) if asked else grid
                legal = np.asarray(True)
                if structure.pin:
                    legal = tiles.pinned < tiles.trips[structure.pin[2]]
                    legal = legal & ~moved_in_steps(tiles) if structure.pin[0] == "input" else legal
                used = Model(space.shape, space.machine, structure).memory(tiles)
                points = np.broadcast_arrays(legal, *used.values())
                kept = np.flatnonzero(points[0])
                if len(kept):
                    columns = zip(used, points[1:], strict=True)
                    yield {name: np.maximum(column.reshape(-1)[kept], has[name]) for name, column in columns}


def _smallest(columns: Sequence[Bytes]) -> tuple[int, ...]:
    """The row of columns whose first number is smallest, then whose second is, and so on."""
    rows = np.arange(len(columns[0]))
    for column in columns:
        rows = rows[column[rows] == column[rows].min()]
    return tuple(int(column[rows[0]]) for column in columns)
