"""The candidates of every axis as arrays: what a cut loads, holds, pins and computes.

The closed forms index these arrays, with one index for a single schedule and with whole grids in the search.
Row quantities are in rows (or columns); ``bursts`` twins count the bursts of rows taken whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dnnc.axis import Cut, Halo, PoolSteps, halo, pool_steps, run_lengths, touched
from dnnc.schedule import Ints
from dnnc_runtime.program import Window


@dataclass(frozen=True, slots=True)
class Pinned:
    """For one cut, and each number of pinned tiles p = 0 ... trips - 1 (arrays over p).

    Attributes:
        once: input rows of the pinned tiles, loaded once (over all units).
        unit: the same for the unit that holds most.
        rest: rows loaded in a pass over the tiles that are not pinned, by halo reloaded or kept.
        current: rows of the largest tile that is not pinned.
        later, any_load: rows of the largest load among those, without and with the first, by halo.
    """

    once: Ints
    unit: Ints
    rest: tuple[Ints, Ints]
    current: Ints
    later: tuple[Ints, Ints]
    any_load: tuple[Ints, Ints]
    once_bursts: Ints
    rest_bursts: tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class AxisTable:
    """Candidates of a row or column axis (arrays over candidates; pinned arrays ragged, from ``offset``).

    Attributes:
        cuts, halos, pools: the candidate cuts and their set accounts.
        trips: images times steps.
        largest: outputs of the largest tile.
        side: rows received from neighbours and held beside the tiles, by the unit that holds most.
        union, union_unit: all input rows touched, over all units, and by the unit with most.
        union_bursts: bursts of the rows that each tile adds to that union.
        first: rows loaded in the first step over all units.
        taps: valid taps of the slowest unit, summed over steps and images.
        whole: one tile takes the whole axis, nothing skipped.
        out_bursts: bursts of the stored rows where each tile's rows are one run.
        tile_bursts, wide_bursts, second_bursts: the same of the rows before pooling, at word and at accumulator
            width, and of a second operand's rows.
        last_rows: rows of the last store.
        pooled, slots: pooled rows of the largest tile, and partial results held at most.
    """

    cuts: tuple[Cut, ...]
    halos: tuple[Halo, ...]
    moved: tuple[bool, ...]
    pools: tuple[PoolSteps | None, ...]
    trips: Ints
    largest: Ints
    side: Ints
    union: Ints
    union_unit: Ints
    union_bursts: Ints
    first: Ints
    taps: Ints
    whole: Ints
    out_bursts: Ints
    tile_bursts: Ints
    wide_bursts: Ints
    second_bursts: Ints
    last_rows: Ints
    pooled: Ints
    slots: Ints
    offset: Ints
    pins: Pinned

    def pinned(self, index: Ints, tiles: Ints | int) -> Ints:
        """Indices into the pinned arrays for candidates ``index`` with ``tiles`` tiles pinned."""
        return self.offset[index] + tiles


@dataclass(frozen=True, slots=True)
class PlaneTable:
    """Candidates of a plane axis (k, c or g): tile sizes, trips and the size of the last tile."""

    total: int
    size: Ints
    trips: Ints
    last: Ints


Measure = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class RowBytes:
    """Bytes of one whole row (or column) as input, as stored output, before pooling, as accumulators, and
    of a second operand."""

    burst: int
    input: int
    output: int
    tile: int
    wide: int
    second: int

    def bursts(self, mask: int) -> int:
        """Bursts of a mask of whole input rows: every run of consecutive rows rounded up."""
        return sum(-(-n * self.input // self.burst) for n in run_lengths(mask))

    def run(self, rows: int, row_bytes: int) -> int:
        """Bursts of one run of consecutive rows."""
        return -(-rows * row_bytes // self.burst)

    def tiles(self, cut: Cut, row_bytes: int) -> int:
        """Bursts of the outputs of a cut, each tile's rows one run."""
        return sum(self.run(stop - first, row_bytes) for block in cut.tiles for first, stop in block)


def axis_table(
    window: Window,
    candidates: Sequence[tuple[Cut, bool]],
    images: int,
    pool: Window | None,
    row: RowBytes,
) -> AxisTable:
    """The table of candidate (cut, move) pairs; pairs that are not legal are left out.

    Args:
        window: the axis' window.
        candidates: cuts, each with or without moves between units.
        images: how often the cut is gone through before the next outer loop.
        pool: the fused pool's window over the axis' outputs.
        row: bytes of whole rows.
    """
    rows = [r for cut, move in candidates if (r := _row(window, cut, move, images, pool, row))]
    offsets = np.cumsum([0] + [len(r.pins.once) for r in rows[:-1]])

    def column(get: Callable[[_Row], int | bool]) -> Ints:
        return np.array([get(r) for r in rows], dtype=np.int64)

    return AxisTable(
        cuts=tuple(r.cut for r in rows),
        halos=tuple(r.halo for r in rows),
        moved=tuple(r.move for r in rows),
        pools=tuple(r.pool for r in rows),
        trips=column(lambda r: images * r.cut.steps),
        largest=column(lambda r: r.cut.largest),
        side=column(lambda r: max(m.bit_count() for m in r.halo.received) if r.cut.steps > 1 else 0),
        union=column(lambda r: images * sum(m.bit_count() for m in r.unions)),
        union_unit=column(lambda r: images * max(m.bit_count() for m in r.unions)),
        union_bursts=column(lambda r: images * r.union_bursts),
        first=column(lambda r: sum(r.halo.load(u, 0, False).bit_count() for u, b in enumerate(r.cut.tiles) if b)),
        taps=column(lambda r: images * r.taps),
        whole=column(lambda r: r.cut.steps == 1 and r.halo.need[0] and r.halo.need[0][0] == (1 << window.size) - 1),
        out_bursts=column(lambda r: images * sum(row.run(n, row.output) for n in r.stored)),
        tile_bursts=column(lambda r: images * row.tiles(r.cut, row.tile)),
        wide_bursts=column(lambda r: images * row.tiles(r.cut, row.wide)),
        second_bursts=column(lambda r: images * row.tiles(r.cut, row.second)),
        last_rows=column(lambda r: r.stored[-1]),
        pooled=column(lambda r: max(r.stored)),
        slots=column(lambda r: r.pool.slots if r.pool else 0),
        offset=np.asarray(offsets, dtype=np.int64),
        pins=_joined([r.pins for r in rows]),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    cut: Cut
    move: bool
    halo: Halo
    pool: PoolSteps | None
    unions: tuple[int, ...]
    union_bursts: int
    stored: tuple[int, ...]
    taps: int
    pins: Pinned


def _row(
    window: Window,
    cut: Cut,
    move: bool,
    images: int,
    pool: Window | None,
    row: RowBytes,
) -> _Row | None:
    account = halo(window, cut, move)
    pooled = pool_steps(pool, cut) if pool else None
    if account is None or (pool and pooled is None):
        return None
    unions = tuple(_union(account.load(u, i, False) for i in range(len(b))) for u, b in enumerate(cut.tiles))
    if pooled:
        stored = tuple(len(ws) for block in pooled.complete for ws in block if ws)
    else:
        stored = tuple(b - a for block in cut.tiles for a, b in block)
    taps = valid_taps(window)
    slowest = sum(
        max(sum(taps[slice(*block[i])]) for block in cut.tiles if i < len(block)) for i in range(cut.steps)
    )
    grown = sum(row.bursts(_grown(account, cut, u, i)) for u, b in enumerate(cut.tiles) for i in range(len(b)))
    pins = _pins(account, cut, images, row.bursts)
    return _Row(cut, move, account, pooled, unions, grown, stored, slowest, pins)


@lru_cache(maxsize=1024)
def valid_taps(window: Window) -> tuple[int, ...]:
    """Taps of each output that fall inside the input."""
    return tuple(
        sum(
            0 <= o * window.stride + t * window.dilation - window.pad < window.size for t in range(window.kernel)
        )
        for o in range(window.out)
    )


def _union(masks: Iterable[int]) -> int:
    out = 0
    for mask in masks:
        out |= mask
    return out


def _pins(account: Halo, cut: Cut, images: int, bursts: Measure) -> Pinned:
    """Suffix and prefix figures over the images x steps tiles of every unit."""
    steps, units = cut.steps, [u for u, block in enumerate(cut.tiles) if block]
    trips = images * steps
    loads = [[[_load(account, cut, u, i, keep) for i in range(steps)] for u in units] for keep in (False, True)]
    grown = [[_grown(account, cut, u, i) for i in range(steps)] for u in units]

    def per_trip(table: list[list[int]], measure: Measure, over: Callable[[Iterable[int]], int]) -> Ints:
        return np.tile([over(measure(row[i]) for row in table) for i in range(steps)], images).astype(np.int64)

    def after(values: Ints) -> Ints:
        return values[::-1].cumsum()[::-1]

    def largest(values: Ints) -> Ints:
        return np.maximum.accumulate(values[::-1])[::-1]

    def before(values: Ints) -> Ints:
        return np.concatenate([[0], values.cumsum()[:-1]])

    need = [[_load(account, cut, u, i, None) for i in range(steps)] for u in units]
    each = [per_trip(t, int.bit_count, max) for t in loads]
    unit = np.max([before(np.tile([m.bit_count() for m in row], images)) for row in grown], axis=0)
    later = tuple(np.append(largest(values)[1:], 0) for values in each)
    assert len(unit) == trips
    return Pinned(
        once=before(per_trip(grown, int.bit_count, sum)),
        unit=unit.astype(np.int64),
        rest=_pair(after(per_trip(t, int.bit_count, sum)) for t in loads),
        current=largest(per_trip(need, int.bit_count, max)),
        later=_pair(later),
        any_load=_pair(largest(values) for values in each),
        once_bursts=before(per_trip(grown, bursts, sum)),
        rest_bursts=_pair(after(per_trip(t, bursts, sum)) for t in loads),
    )


def _pair(arrays: Iterable[Ints]) -> tuple[Ints, Ints]:
    first, second = arrays
    return first, second


def _load(account: Halo, cut: Cut, unit: int, step: int, keep: bool | None) -> int:
    """Rows loaded (or, with None, needed) by a unit in a step; none where its block has ended."""
    if step >= len(cut.tiles[unit]):
        return 0
    return account.need[unit][step] if keep is None else account.load(unit, step, keep)


def _grown(account: Halo, cut: Cut, unit: int, step: int) -> int:
    """Rows that a unit's tile adds to the union of the tiles before it."""
    if step >= len(cut.tiles[unit]):
        return 0
    return account.need[unit][step] & ~_union(account.need[unit][:step])


def _joined(pins: Sequence[Pinned]) -> Pinned:
    def join(get: Callable[[Pinned], Ints]) -> Ints:
        return np.concatenate([get(p) for p in pins]) if pins else np.zeros(0, dtype=np.int64)

    return Pinned(
        once=join(lambda p: p.once),
        unit=join(lambda p: p.unit),
        rest=(join(lambda p: p.rest[0]), join(lambda p: p.rest[1])),
        current=join(lambda p: p.current),
        later=(join(lambda p: p.later[0]), join(lambda p: p.later[1])),
        any_load=(join(lambda p: p.any_load[0]), join(lambda p: p.any_load[1])),
        once_bursts=join(lambda p: p.once_bursts),
        rest_bursts=(join(lambda p: p.rest_bursts[0]), join(lambda p: p.rest_bursts[1])),
    )


def plane_table(total: int, sizes: Iterable[int]) -> PlaneTable:
    """The table of tile sizes of a plane axis."""
    size = np.array(sorted(set(sizes), reverse=True), dtype=np.int64)
    trips = -(-total // size)
    return PlaneTable(total, size, trips, total - (trips - 1) * size)


def plane_sizes(total: int, granule: int) -> list[int]:
    """For each number of tiles the smallest multiple of the granule that needs no more."""
    units = -(-total // granule)
    return sorted({min(total, -(-units // n) * granule) for n in range(1, units + 1)}, reverse=True)
