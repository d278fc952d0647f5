"""What the closed forms are asked about: a structure (mode, order, residency) and tiles (indices into the axis tables).

Tiles are scalars for one schedule, or broadcastable arrays in the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from dnnc.schedule import Deal, Dim
from dnnc.tables import AxisTable, PlaneTable

Pinning = tuple[Literal["input", "weights"], Dim, Dim]
"""(operand, loop that re-reads it, axis of which a prefix of tiles stays)."""

Array = Any
"""A Python int, a numpy integer or a broadcastable int64 array."""


@dataclass(frozen=True, slots=True)
class Structure:
    """All of a schedule but its tile sizes: what the search enumerates one by one."""

    deal: Deal
    order: tuple[Dim, ...]
    keep: bool = True
    buffers: tuple[int, int, int] = (1, 1, 1)
    pin: Pinning | None = None
    follow: bool = False

    def inside(self, inner: Dim, outer: Dim) -> bool:
        """Whether an active loop lies inside another active one."""
        order = self.order
        return inner in order and outer in order and order.index(inner) > order.index(outer)

    def innermost(self, dims: frozenset[Dim]) -> int:
        """Position of the innermost active loop among ``dims``, -1 if none is active."""
        return _innermost(self.order, dims)

    def around(self, dims: frozenset[Dim], position: int | None = None) -> tuple[Dim, ...]:
        """The other loops outside the innermost of ``dims``, or outside a position."""
        return _around(self.order, dims, position)

    def halo_axis(self, dims: frozenset[Dim]) -> Dim | None:
        """The axis along which an input tile moves by one that ``dims`` decide: its halo may be kept."""
        innermost = self.innermost(dims)
        inner = self.order[innermost] if innermost >= 0 else None
        return inner if inner in ("y", "x") else None

    @property
    def spills(self) -> bool:
        """Whether output tiles leave and return while the c loop is open (rule 4)."""
        return "c" in self.order and any(self.inside(d, "c") for d in ("y", "x", "k", "g"))


@lru_cache(maxsize=16384)
def _innermost(order: tuple[Dim, ...], dims: frozenset[Dim]) -> int:
    return max((i for i, d in enumerate(order) if d in dims), default=-1)


@lru_cache(maxsize=16384)
def _around(order: tuple[Dim, ...], dims: frozenset[Dim], position: int | None) -> tuple[Dim, ...]:
    end = _innermost(order, dims) if position is None else position
    return tuple(d for d in order[: max(end, 0)] if d not in dims)


@dataclass(frozen=True)
class Tiles:
    """Tile choices: candidate indices of the row and column tables and of the plane tables, pinned tiles.

    Attributes:
        known: figures of single axes and planes that were asked for already, whatever is pinned.
    """

    tables: Mapping[Dim, AxisTable | PlaneTable]
    index: Mapping[Dim, Array]
    pinned: Array = 0
    known: dict[object, Array] = field(default_factory=dict[object, Array], compare=False, repr=False)

    def axis(self, dim: Dim) -> AxisTable:
        """The candidates of rows or columns."""
        table = self.tables[dim]
        assert isinstance(table, AxisTable)
        return table

    def plane(self, dim: Dim) -> PlaneTable:
        """The candidates of k, c or g."""
        table = self.tables[dim]
        assert isinstance(table, PlaneTable)
        return table

    def once(self, key: object, find: Callable[[], Array]) -> Array:
        """A figure that does not depend on how many tiles are pinned, worked out when first asked for."""
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = find()
        return found

    @property
    def trips(self) -> dict[Dim, Array]:
        """Trips of every loop."""
        found: dict[Dim, Array] = self.once("trips", self._trips)
        return found

    def _trips(self) -> dict[Dim, Array]:
        return {d: table.trips[self.index[d]] for d, table in self.tables.items()}

    def size(self, dim: Dim) -> Array:
        """Tile size of a plane axis."""
        return self.once((dim, "size"), lambda: self.plane(dim).size[self.index[dim]])

    def last(self, dim: Dim) -> Array:
        """Last tile's size of a plane axis."""
        return self.plane(dim).last[self.index[dim]]

    def at(self, dim: Dim, column: str) -> Array:
        """A column of a row or column table."""
        return self.once((dim, column), lambda: getattr(self.axis(dim), column)[self.index[dim]])

    def pins(self, dim: Dim, column: str, pinned: Array, keep: bool | None = None) -> Array:
        """A pinned figure of a row or column table, with so many tiles pinned."""
        table = self.axis(dim)
        values = getattr(table.pins, column)
        if keep is not None:
            values = values[int(keep)]
        if isinstance(pinned, int) and not pinned:
            return self.once((dim, column, keep), lambda: values[table.offset[self.index[dim]]])
        return values[table.offset[self.index[dim]] + pinned]
