"""The candidates of every axis as arrays: what a cut loads, holds, pins and computes.

The closed forms index these arrays, with one index for a single schedule and with whole grids in the search.
Row quantities are in rows (or columns); ``bursts`` twins count the bursts of rows taken whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate

import numpy as np

from dnnc.axis import Cut, PoolSteps, halo, pointwise, pool_steps, run_lengths
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
        later, any_load: rows of the largest load among those, without and with the first, by halo; rows that are
            sent to the unit with it included.
        once_full, rest_full: how many of the loads in ``once`` and ``rest`` take the whole axis.
    """

    once: Ints
    unit: Ints
    rest: tuple[Ints, Ints]
    current: Ints
    later: tuple[Ints, Ints]
    any_load: tuple[Ints, Ints]
    once_bursts: Ints
    rest_bursts: tuple[Ints, Ints]
    once_full: Ints
    rest_full: tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class AxisTable:
    """Candidates of a row or column axis (arrays over candidates; pinned arrays ragged, from ``offset``).

    Attributes:
        cuts, moved: the candidate cuts, each with or without moves between units.
        trips: images times steps.
        largest: outputs of the largest tile.
        side: rows received from neighbours and held beside the tiles, by the unit that holds most.
        union, union_unit: all input rows touched, over all units, and by the unit with most.
        union_bursts, union_full: bursts of the rows that each tile adds to that union, and tiles that add all rows.
        first: rows loaded in the first step over all units.
        taps: valid taps of the slowest unit, summed over steps and images; pool_taps: rows that the fused pool's
            windows read, likewise; stored: rows stored, of all units.
        even_taps, even_pool_taps, even_stored: the same of every other step, from the first.
        out_bursts: bursts of the stored rows where each tile's rows are one run.
        tile_bursts, wide_bursts, second_bursts: the same of the rows before pooling, at word and at accumulator
            width, and of a second operand's rows.
        last_rows: rows of the last store, of all units.
        pooled, slots: pooled rows of the largest tile, and partial results held at most.
    """

    cuts: tuple[Cut, ...]
    moved: tuple[bool, ...]
    trips: Ints
    largest: Ints
    side: Ints
    union: Ints
    union_unit: Ints
    union_bursts: Ints
    union_full: Ints
    first: Ints
    taps: Ints
    pool_taps: Ints
    stored: Ints
    even_taps: Ints
    even_pool_taps: Ints
    even_stored: Ints
    out_bursts: Ints
    tile_bursts: Ints
    wide_bursts: Ints
    second_bursts: Ints
    last_rows: Ints
    pooled: Ints
    slots: Ints
    offset: Ints
    pins: Pinned


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

    def runs(self, rows: Ints, row_bytes: int) -> int:
        """Bursts of runs of so many consecutive rows each."""
        return int((-(-rows * row_bytes // self.burst)).sum())


@lru_cache(maxsize=256)
def axis_table(
    window: Window,
    candidates: tuple[tuple[Cut, bool], ...],
    images: int,
    pool: Window | None,
    sends: bool,
    row: RowBytes,
) -> AxisTable:
    """The table of candidate (cut, move) pairs; pairs that are not legal are left out.

    Args:
        window: the axis' window.
        candidates: cuts, each with or without moves between units.
        images: how often the cut is gone through before the next outer loop.
        pool: the fused pool's window over the axis' outputs.
        sends: whether units can send: what a pool's window over the edge of a block takes.
        row: bytes of whole rows.
    """
    rows = [r for cut, move in candidates if (r := _row(window, cut, move, images, pool, sends, row))]
    offsets = np.cumsum([0] + [len(r.pins.once) for r in rows[:-1]])

    def column(get: Callable[[_Row], int | bool]) -> Ints:
        return np.array([get(r) for r in rows], dtype=np.int64)

    return AxisTable(
        cuts=tuple(r.cut for r in rows),
        moved=tuple(r.move for r in rows),
        trips=column(lambda r: images * r.cut.steps),
        largest=column(lambda r: r.cut.largest),
        side=column(lambda r: r.loads.side),
        union=column(lambda r: images * int(r.loads.union.sum())),
        union_unit=column(lambda r: images * int(r.loads.union.sum(axis=1).max())),
        union_bursts=column(lambda r: images * int(r.loads.grown_bursts.sum())),
        union_full=column(lambda r: images * int((r.loads.union == window.size).sum())),
        first=column(lambda r: int(r.loads.load[0][:, 0].sum())),
        taps=column(lambda r: images * int(r.taps.sum())),
        pool_taps=column(lambda r: images * int(r.pool_taps.sum())),
        stored=column(lambda r: images * int(r.stored_in.sum())),
        even_taps=column(lambda r: images * int(r.taps[::2].sum())),
        even_pool_taps=column(lambda r: images * int(r.pool_taps[::2].sum())),
        even_stored=column(lambda r: images * int(r.stored_in[::2].sum())),
        out_bursts=column(lambda r: images * row.runs(r.stored, row.output)),
        tile_bursts=column(lambda r: images * row.runs(r.outputs, row.tile)),
        wide_bursts=column(lambda r: images * row.runs(r.outputs, row.wide)),
        second_bursts=column(lambda r: images * row.runs(r.outputs, row.second)),
        last_rows=column(lambda r: int(r.stored_in[-1])),
        pooled=column(lambda r: int(r.stored.max())),
        slots=column(lambda r: r.pool.slots if r.pool else 0),
        offset=np.asarray(offsets, dtype=np.int64),
        pins=_joined([r.pins for r in rows]),
    )


@dataclass(frozen=True, slots=True)
class _Loads:
    """Rows by [unit, step]: needed by the tile, loaded with halos reloaded or kept, added to the union of the tiles
    before (and bursts of the latter two); ``union``: all that the unit loads itself, by step of its first use."""

    need: Ints
    load: tuple[Ints, Ints]
    grown: Ints
    union: Ints
    load_bursts: tuple[Ints, Ints]
    grown_bursts: Ints
    side: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    cut: Cut
    move: bool
    pool: PoolSteps | None
    loads: _Loads
    outputs: Ints
    stored: Ints
    stored_in: Ints
    taps: Ints
    pool_taps: Ints
    pins: Pinned


def _row(
    window: Window, cut: Cut, move: bool, images: int, pool: Window | None, sends: bool, row: RowBytes
) -> _Row | None:
    even = pointwise(window)
    pooled = pool_steps(pool, cut) if pool else None
    if (move and even) or (pool and pooled is None) or (pooled and pooled.heads and not sends):
        return None
    loads = _even_loads(cut, row) if even else _masked_loads(window, cut, move, row)
    if loads is None:
        return None
    outputs = np.array([stop - first for block in cut.tiles for first, stop in block], dtype=np.int64)
    if pooled:
        stored = np.array([len(ws) for block in pooled.complete for ws in block if ws], dtype=np.int64)
        stored_in = _by_step([[len(ws) for ws in block] for block in pooled.complete], cut.steps).sum(axis=0)
    else:
        stored = outputs
        stored_in = _by_step([[stop - first for first, stop in block] for block in cut.tiles], cut.steps).sum(axis=0)
    taps = _slowest(cut, _taps_before(window))
    pool_taps = _slowest(cut, _readers_before(pool)) if pool else np.zeros(cut.steps, dtype=np.int64)
    return _Row(
        cut, move, pooled, loads, outputs, stored, stored_in, taps, pool_taps, _pins(loads, images, window.size)
    )


def _slowest(cut: Cut, before: Sequence[int]) -> Ints:
    """Work of the unit that has most of it, by step; ``before`` is that of all outputs before each."""
    by_unit = _by_step([[before[b] - before[a] for a, b in block] for block in cut.tiles], cut.steps)
    return np.asarray(by_unit.max(axis=0), dtype=np.int64)


def _by_step(blocks: Sequence[Sequence[int]], steps: int) -> Ints:
    """Figures by [unit, step]; blocks that end early have zeros."""
    table: Ints = np.array([[*block, *[0] * (steps - len(block))] for block in blocks], dtype=np.int64)
    return table


@lru_cache(maxsize=1024)
def _taps_before(window: Window) -> tuple[int, ...]:
    """How many taps inside the input the outputs before each have."""
    return tuple(accumulate(valid_taps(window), initial=0))


@lru_cache(maxsize=1024)
def _readers_before(pool: Window) -> tuple[int, ...]:
    """How many windows of a pool read the rows before each, every row by itself."""
    readers = [0] * pool.size
    for window in range(pool.out):
        for row in pool.touched(window, window):
            readers[row] += 1
    return tuple(accumulate(readers, initial=0))


def _even_loads(cut: Cut, row: RowBytes) -> _Loads:
    """Nothing is shared between tiles: every tile loads the rows of its outputs."""
    size = np.zeros((len(cut.tiles), cut.steps), dtype=np.int64)
    for u, block in enumerate(cut.tiles):
        size[u, : len(block)] = [stop - first for first, stop in block]
    bursts = -(-size * row.input // row.burst)
    return _Loads(size, (size, size), size, size, (bursts, bursts), bursts)


def _masked_loads(window: Window, cut: Cut, move: bool, row: RowBytes) -> _Loads | None:
    account = halo(window, cut, move)
    if account is None:
        return None
    shape = len(cut.tiles), cut.steps

    def table(mask: Callable[[int, int], int]) -> tuple[Ints, Ints]:
        """Rows and bursts of a mask for every unit and step."""
        rows, bursts = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for u, block in enumerate(cut.tiles):
            for i in range(len(block)):
                held = mask(u, i)
                rows[u, i], bursts[u, i] = held.bit_count(), row.bursts(held)
        return rows, bursts

    reload, kept = table(partial(account.load, keep=False)), table(partial(account.load, keep=True))
    seen = [list(accumulate(block, _either, initial=0)) for block in account.need]
    grown = table(lambda u, i: account.need[u][i] & ~seen[u][i])
    own = [
        list(accumulate((account.load(u, i, False) for i in range(len(b))), _either, initial=0))
        for u, b in enumerate(cut.tiles)
    ]
    union = table(lambda u, i: account.load(u, i, False) & ~own[u][i])
    need = table(lambda u, i: account.need[u][i])
    side = max(mask.bit_count() for mask in account.received) if cut.steps > 1 else 0
    return _Loads(need[0], (reload[0], kept[0]), grown[0], union[0], (reload[1], kept[1]), union[1], side)


@lru_cache(maxsize=1024)
def valid_taps(window: Window) -> tuple[int, ...]:
    """Taps of each output that fall inside the input."""
    return tuple(
        sum(0 <= o * window.stride + t * window.dilation - window.pad < window.size for t in range(window.kernel))
        for o in range(window.out)
    )


def _pins(loads: _Loads, images: int, whole: int) -> Pinned:
    """Suffix and prefix figures over the images x steps tiles of every unit; ``whole`` is the extent of the input."""

    def over(table: Ints, reduce: Callable[[Ints], Ints]) -> Ints:
        return _repeated(reduce(table), images)

    def total(table: Ints) -> Ints:
        return np.asarray(table.sum(axis=0), dtype=np.int64)

    def most(table: Ints) -> Ints:
        return np.asarray(table.max(axis=0), dtype=np.int64)

    def after(values: Ints) -> Ints:
        return values[::-1].cumsum()[::-1]

    def largest(values: Ints) -> Ints:
        return np.maximum.accumulate(values[::-1])[::-1]

    def before(values: Ints) -> Ints:
        return values.cumsum() - values

    def pair(tables: tuple[Ints, Ints], make: Callable[[Ints], Ints]) -> tuple[Ints, Ints]:
        """Of rows reloaded and kept, which are one where no halo is shared."""
        reloaded, kept = tables
        first = make(reloaded)
        return first, first if kept is reloaded else make(kept)

    units = _repeated(loads.grown, images).cumsum(axis=1)
    # With one row step, rows that a neighbour sends land beside those that are loaded.
    arriving = loads.load if loads.need.shape[1] > 1 else (loads.need, loads.need)
    any_load = pair(arriving, lambda table: largest(over(table, most)))
    return Pinned(
        once=before(over(loads.grown, total)),
        unit=np.concatenate([[0], units.max(axis=0)[:-1]]),
        rest=pair(loads.load, lambda table: after(over(table, total))),
        current=largest(over(loads.need, most)),
        later=pair(any_load, lambda values: np.append(values[1:], 0)),
        any_load=any_load,
        once_bursts=before(over(loads.grown_bursts, total)),
        rest_bursts=pair(loads.load_bursts, lambda table: after(over(table, total))),
        once_full=before(over(loads.grown == whole, total)),
        rest_full=pair(loads.load, lambda table: after(over(table == whole, total))),
    )


def _repeated(values: Ints, images: int) -> Ints:
    """The same for every image."""
    return values if images == 1 else np.tile(values, images)


def _either(a: int, b: int) -> int:
    return a | b


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
        once_full=join(lambda p: p.once_full),
        rest_full=(join(lambda p: p.rest_full[0]), join(lambda p: p.rest_full[1])),
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
