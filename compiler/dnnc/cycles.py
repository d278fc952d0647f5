"""Cycles and bytes on the bus of a schedule: closed forms over the axis tables.

On the bus, every contiguous run of a DRAM transfer is rounded up to whole bursts. Multiply-accumulate cycles follow
the mode: valid taps only, each row trace (valid columns x channels) rounded up to the channel granularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dnnc.schedule import Dim
from dnnc.tables import valid_taps
from dnnc.traffic import Array, Model, Tiles

Plane = list[tuple[Array, Array]]
"""The tiles of a plane axis: (how many, size) pairs."""

Loaded = tuple[Array, Array, Array]
"""What is loaded along an axis: rows, their bursts where whole rows are one run, and loads of the whole axis."""


class Timing:
    """Bus bytes and cycles of one layer on one machine under one structure."""

    def __init__(self, model: Model) -> None:
        self.model, self.shape, self.machine = model, model.shape, model.machine
        self.structure, self.order = model.structure, model.order
        self.word, self.burst = model.word, model.machine.dram.burst_bytes
        self.dense = dict(self.shape.dense)
        speed = Fraction(self.machine.clock_hz) / Fraction(self.machine.dram.bytes_per_second)
        self.cycles_per_byte = speed.limit_denominator(10_000)

    # -- bytes on the bus -------------------------------------------------------------------------------------

    def bus(self, t: Tiles) -> dict[str, tuple[Array, Array]]:
        """(read, write) bytes on the bus by role."""
        s = self.shape
        out = {"input": (self._input(t), 0), "output": (0, self._stored(t, "output", "out_bursts"))}
        if s.kind == "array":
            out["weights"] = (self._weights(t), 0)
        if s.parameters:
            out["bias"] = (self._parameters(t), 0)
        if s.residual:
            out["residual"] = (self._stored(t, "residual", "tile_bursts"), 0)
        if s.second is not None:
            out["other"] = (self._second(t), 0)
        if self.model.spills:
            rest = (t.trips["c"] - 1) * self._stored(t, "partial_sums", "wide_bursts")
            out["partial_sums"] = (rest, rest)
        return {role: (r * self.burst, w * self.burst) for role, (r, w) in out.items()}

    def _bursts(self, elements: Array, width: int | None = None) -> Array:
        return -(-elements * (width or self.word) // self.burst)

    def _tiles(self, t: Tiles, dim: Dim) -> Plane:
        return [(t.trips[dim] - 1, t.size(dim)), (1, t.last(dim))]

    def _map(
        self, dense: int, groups: Plane, channels: Plane, whole: tuple[bool, bool], full: Array,
        counts: tuple[Array, Array], runs: tuple[Array, Array], extent: int, width: int | None = None,
    ) -> Array:  # fmt: skip
        """Bursts of a feature map's transfers.

        Args:
            dense: axes of the map that merge when whole, from the channels outwards.
            groups, channels: tiles of the two channel axes.
            whole: whether groups and channels are taken whole.
            full: how many column tiles take all columns.
            counts: rows and columns transferred, summed over tiles.
            runs: bursts of the rows where a tile's rows are one run, and of the columns likewise.
            extent: columns of the whole map.
            width: bytes of an element.
        """
        rows, columns = counts
        of_groups = sum(n * size for n, size in groups)
        of_channels = sum(n * size for n, size in channels)
        if dense < 1:
            return rows * columns * of_groups * of_channels
        if not whole[1]:
            return rows * columns * of_groups * sum(n * self._bursts(size, width) for n, size in channels)
        if dense < 2:
            return rows * columns * of_groups * self._bursts(of_channels, width)
        if not whole[0]:
            return rows * columns * sum(n * self._bursts(size * of_channels, width) for n, size in groups)
        pixel = of_groups * of_channels
        if dense < 3:
            return rows * columns * self._bursts(pixel, width)
        if dense < 4:
            return rows * runs[1]
        return rows * runs[1] + full * (runs[0] - rows * self._bursts(extent * pixel, width))

    def _input(self, t: Tiles) -> Array:
        pin, kept = self.structure.pin, self.model.kept
        if not pin or pin[0] != "input":
            of_rows, of_columns = (self._rest(t, d, 0, kept(d)) for d in ("y", "x"))
            return self.model.passes("input", t) * self._input_part(t, of_rows, of_columns, {})
        dim = pin[2]
        _, rest = self._pinned_axes(t, dim)
        planes = dim in ("c", "g")
        left: dict[Dim, Plane] = {dim: [(t.trips[dim] - t.pinned - 1, t.size(dim)), (1, t.last(dim))]} if planes else {}
        return self._pinned(t) + self.model.unpinned_passes("input", t) * self._input_part(t, *rest, left)

    def _pinned(self, t: Tiles) -> Array:
        """Bursts of the pinned tiles."""
        if not self.structure.pin:
            return 0
        operand, loop, dim = self.structure.pin
        if operand == "input":
            once, _ = self._pinned_axes(t, dim)
            return self._input_part(t, *once, {dim: [(t.pinned, t.size(dim))]} if dim in ("c", "g") else {})
        held = self._weight_tiles(t)
        held[dim] = [(t.pinned, t.size(dim))]
        return self.model.passes("weights", t, self.order.index(loop)) * self._weight_part(held)

    def _weight_tiles(self, t: Tiles) -> dict[Dim, Plane]:
        planes: tuple[Dim, ...] = ("g", "k", "c")
        return {d: self._tiles(t, d) for d in planes}

    def _rest(self, t: Tiles, axis: Dim, pinned: Array, keep: bool) -> Loaded:
        """What a pass over the tiles that are not pinned loads along an axis."""
        rows, bursts, full = (t.pins(axis, name, pinned, keep) for name in ("rest", "rest_bursts", "rest_full"))
        return rows, bursts, full

    def _pinned_axes(self, t: Tiles, dim: Dim) -> tuple[tuple[Loaded, Loaded], tuple[Loaded, Loaded]]:
        """What is loaded of (rows, columns): the pinned tiles, and a pass over the others."""
        once: list[Loaded] = []
        rest: list[Loaded] = []
        for axis in ("y", "x"):
            if axis == dim:
                rows, bursts, full = (t.pins(axis, name, t.pinned) for name in ("once", "once_bursts", "once_full"))
                once.append((rows, bursts, full))
            elif self.structure.inside(axis, "k"):
                once.append((t.at(axis, "union"), t.at(axis, "union_bursts"), t.at(axis, "union_full")))
            else:
                once.append(self._rest(t, axis, 0, False))
            rest.append(self._rest(t, axis, t.pinned if axis == dim else 0, self.model.kept(axis)))
        return (once[0], once[1]), (rest[0], rest[1])

    def _input_part(self, t: Tiles, rows: Loaded, columns: Loaded, part: dict[Dim, Plane]) -> Array:
        if self.shape.kind == "vector":
            groups: Plane = [(1, 1)]
            channels, channel = self._tiles(t, "k"), "k"
        else:
            groups, channels, channel = part.get("g", self._tiles(t, "g")), part.get("c", self._tiles(t, "c")), "c"
        flags = ("g" not in self.order or self.shape.kind == "vector", channel not in self.order)
        counts, runs = (rows[0], columns[0]), (rows[1], columns[1])
        return self._map(
            self.dense.get("input", 0), groups, channels, flags, columns[2], counts, runs, self.shape.x.size
        )

    def _stored(self, t: Tiles, role: str, rows_column: str) -> Array:
        """Bursts of all tiles of an output-shaped tensor, once."""
        pooled, wide = role == "output", role == "partial_sums"
        column = {"output": "out_bursts", "residual": "tile_bursts", "partial_sums": "wide_bursts"}[role]
        rows, columns = (
            (self.shape.out_rows, self.shape.out_columns) if pooled else (self.shape.y.out, self.shape.x.out)
        )
        flags = ("g" not in self.order, "k" not in self.order)
        return self._map(
            5 if wide else self.dense.get(role, 0),
            self._tiles(t, "g"),
            self._tiles(t, "k"),
            flags,
            0 if "x" in self.order else 1,
            (self.shape.n * rows, columns),
            (t.at("y", rows_column), t.at("x", column)),
            columns,
            self.machine.accumulator_bytes if wide else None,
        )

    def _second(self, t: Tiles) -> Array:
        s = self.shape
        n, y, x, k = s.second or (False, False, False, False)
        pixel, columns = s.k if k else 1, s.x.out if x else 1
        rows = s.n * s.y.out if y else (t.trips["y"] if n and s.n > 1 else 1)
        part = self._map(
            self.dense.get("second", 0),
            [(1, 1)],
            self._tiles(t, "k") if k else [(1, 1)],
            (True, not (k and "k" in self.order)),
            0 if x and "x" in self.order else 1,
            (rows, columns),
            (
                t.at("y", "second_bursts") if y else rows * self._bursts(columns * pixel),
                t.at("x", "second_bursts") if x else self._bursts(pixel),
            ),
            columns,
        )
        return self.model.passes("other", t) * part

    def _parameters(self, t: Tiles) -> Array:
        s = self.shape
        if not self.structure.follow:
            return s.parameters * self._bursts(s.g * s.k)
        groups, planes = self._tiles(t, "g"), self._tiles(t, "k")
        if "k" in self.order:
            runs = s.g * sum(n * self._bursts(size) for n, size in planes)
        else:
            runs = sum(n * self._bursts(size * s.k) for n, size in groups)
        return self.model.passes("parameters", t) * s.parameters * runs

    def _weights(self, t: Tiles) -> Array:
        pin, model = self.structure.pin, self.model
        if not pin or pin[0] != "weights":
            return model.passes("weights", t) * self._weight_part(self._weight_tiles(t))
        dim = pin[2]
        left = self._weight_tiles(t)
        left[dim] = [(t.trips[dim] - t.pinned - 1, t.size(dim)), (1, t.last(dim))]
        return self._pinned(t) + model.unpinned_passes("weights", t) * self._weight_part(left)

    def _weight_part(self, tiles: dict[Dim, Plane]) -> Array:
        """Bursts of the weights of these tiles: whole tiles if packed, else runs of the activation's axes."""
        s, order = self.shape, self.order
        groups, planes, channels = tiles["g"], tiles["k"], tiles["c"]
        taps = s.y.kernel * s.x.kernel
        if s.packed:
            return sum(
                a * b * c * self._bursts(g * k * i * taps) for a, g in groups for b, k in planes for c, i in channels
            )
        dense = self.dense.get("weights", 0)
        of_groups, of_planes = (sum(n * size for n, size in plane) for plane in (groups, planes))
        if dense < 1:
            return of_groups * of_planes * sum(n * size for n, size in channels)
        if "c" in order:
            return of_groups * of_planes * sum(n * self._bursts(size) for n, size in channels)
        if dense < 4:
            return of_groups * of_planes * self._bursts(s.c)
        if "k" in order:
            return of_groups * sum(n * self._bursts(size * s.c) for n, size in planes)
        if dense < 5:
            return of_groups * self._bursts(s.k * s.c)
        return sum(n * self._bursts(size * s.k * s.c) for n, size in groups)

    # -- cycles -----------------------------------------------------------------------------------------------

    def compute(self, t: Tiles) -> Array:
        """Cycles of the array over all tiles, the slowest unit each."""
        return self._mac_cycles(t) if self.shape.kind == "array" else self._vector_cycles(t)

    def _mac_cycles(self, t: Tiles) -> Array:
        deal = self.structure.deal
        passes = sum(a * b * deal.passes(g, k) for a, g in self._tiles(t, "g") for b, k in self._tiles(t, "k"))
        return t.at("y", "taps") * self._trace_cycles(t) * passes

    def _trace_cycles(self, t: Tiles) -> Array:
        """Cycles of one row of outputs and one row of taps: each output column's trace, summed over c tiles."""
        grain, lanes = self.machine.channel_granularity, self.structure.deal.lanes
        taps = valid_taps(self.shape.x)
        cycles: Array = 0
        for valid in set(taps):
            for count, channels in self._tiles(t, "c"):
                trace = -(-valid * channels // grain) * grain
                cycles = cycles + taps.count(valid) * count * -(-trace // lanes)
        return cycles

    def _vector_cycles(self, t: Tiles) -> Array:
        """Comparisons (or operations) of the slowest unit at its part of the cluster's rate."""
        outer = self.machine.levels[0].count
        rate = max(1, self.machine.pool_comparisons_per_cycle // outer)
        planes = self.model.planes_over(t, True, True, 0)
        return -(-t.at("y", "taps") * sum(valid_taps(self.shape.x)) * planes // rate)

    def _pool_cycles(self, t: Tiles) -> Array:
        """Comparisons of the fused pool, of the slowest unit."""
        if not self.shape.pool:
            return 0
        level = self.model.level("output")
        rate = max(1, self.machine.pool_comparisons_per_cycle // self.machine.levels[0].count)
        planes = self.model.planes_over(t, True, True, level)
        return -(-t.at("y", "pool_taps") * sum(valid_taps(self.shape.pool.x)) * planes // rate)

    def transfer(self, bursts_bytes: Array) -> Array:
        """Cycles that so many bytes on the bus take, rounded up."""
        speed = self.cycles_per_byte
        return -(-bursts_bytes * speed.numerator // speed.denominator)

    def cycles(self, t: Tiles) -> Array:
        """Work beside the transfers that run ahead of their use, then all others, first load and last store."""
        return self.parts(t).cycles(self.structure.buffers)

    def least(self, t: Tiles) -> Array:
        """Cycles that no buffering goes below: computing and what cannot be beside it, or all transfers."""
        moved = {role: read + write for role, (read, write) in self.model.traffic(t).items()}
        beside = sum(moved.pop(role, 0) for role in ("input", "weights", "output", "residual"))
        work = self.ticks(self.compute(t), sum(self._first_and_last(t)))
        return self.whole(np.maximum(work, self.ticks(0, beside)) + self.ticks(0, sum(moved.values())))

    def ticks(self, cycles: Array, moved: Array) -> Array:
        """Cycles, and then so many bytes on the bus, in a clock that is exact for both."""
        return cycles * self.cycles_per_byte.denominator + moved * self.cycles_per_byte.numerator

    def whole(self, ticks: Array) -> Array:
        """Ticks of that clock as cycles, rounded up."""
        return -(-ticks // self.cycles_per_byte.denominator)

    def parts(self, t: Tiles) -> Parts:
        """What the cycles are made of, whatever is double-buffered."""
        bus = {role: read + write for role, (read, write) in self.bus(t).items()}
        # While the sums of a tile are open, its residual arrives.
        beside = bus.pop("residual", 0) if "c" in self.order else 0
        pin = self.structure.pin
        pinned = self._pinned(t) * self.burst if pin else 0
        if pin:
            bus[pin[0]] = bus[pin[0]] - pinned
        moved = tuple(bus.pop(role, 0) for role in ("input", "weights", "output"))
        tiles = t.trips["y"] * t.trips["x"] * t.trips["k"] * t.trips["g"]
        return Parts(
            timing=self,
            compute=self.compute(t),
            pool=self._pool_cycles(t),
            visits=tiles * t.trips["c"],
            tiles=tiles,
            even=self._every_other(t),
            moved=moved,
            beside=beside,
            pinned=pinned,
            first=self._first_pass(t),
            rest=sum(bus.values()),
            ends=self._first_and_last(t),
        )

    def _every_other(self, t: Tiles) -> tuple[tuple[Array, Array], ...]:
        """How much of computing, pooling and storing every other output tile is: half, unless tiles of rows follow one
        another and differ, as those of one row do under a pool with a stride of two."""
        inner = self.structure.innermost(self.model.relevant["output"])
        if not self.shape.pool or self.order[inner : inner + 1] != ("y",):
            return ((1, 2),) * 3
        columns = ("even_taps", "taps"), ("even_pool_taps", "pool_taps"), ("even_stored", "stored")
        return tuple((t.at("y", even), t.at("y", every)) for even, every in columns)

    def _first_pass(self, t: Tiles) -> tuple[Array, Array]:
        """How much of a pinned loop passes while its pinned tiles arrive, a part and the whole: the first trip, and of
        the loops between which do not index the operand the first trip too."""
        pin = self.structure.pin
        if not pin:
            return 1, 1
        operand, loop, _ = pin
        relevant = self.model.relevant[operand]
        between = self.order[self.order.index(loop) + 1 : self.structure.innermost(relevant)]
        part, whole = (t.size("k"), self.shape.k) if loop == "k" else (1, t.trips[loop])
        for dim in between:
            if dim not in relevant:
                whole = whole * t.trips[dim]
        return part, whole

    def _first_and_last(self, t: Tiles) -> tuple[Array, Array, Array]:
        """Bus bytes of the first tiles of input and weights, and of the last store."""
        s, burst = self.shape, self.burst
        planes = t.size("c") * t.size("g") if s.kind == "array" else t.size("k")
        first = self._bursts(t.at("y", "first") * t.pins("x", "current", 0) * planes)
        taps = s.y.kernel * s.x.kernel
        weights = self._bursts(t.size("g") * t.size("k") * t.size("c") * taps) if s.kind == "array" else 0
        columns = s.out_columns if s.pool else t.at("x", "largest")
        last = self._bursts(t.at("y", "last_rows") * columns * t.last("g") * t.last("k"))
        return first * burst, weights * burst, last * burst


@dataclass(frozen=True)
class Parts:
    """What a schedule's cycles are made of, whatever is double-buffered.

    Attributes:
        compute, pool: cycles of the array, and of the fused pool.
        visits, tiles: tiles computed, and output tiles.
        even: how much of the computing, the pooling and the storing every other output tile is, a part and the whole.
        moved: bus bytes of input, weights and output, without what is pinned.
        beside: bus bytes that have room to arrive beside computation in any case.
        pinned: bus bytes of pinned tiles; first: how much of the loop for which they stay is its first pass, in which
            they arrive: a part and the whole.
        rest: bus bytes of everything else.
        ends: bus bytes of the first tiles of input and weights, and of the last store.
    """

    timing: Timing
    compute: Array
    pool: Array
    visits: Array
    tiles: Array
    even: tuple[tuple[Array, Array], ...]
    moved: tuple[Array, ...]
    beside: Array
    pinned: Array
    first: tuple[Array, Array]
    rest: Array
    ends: tuple[Array, Array, Array]

    def cycles(self, buffers: tuple[int, int, int]) -> Array:
        """Cycles with so many tiles held of (input, weights, output); more are never slower.

        A finished tile is pooled and stored while the next one is computed, if there is room for two; a third one is
        begun when one of them is gone.
        """
        beside, added, ends = self.beside, self.rest, [0, 0, 0]
        pin = self.timing.structure.pin
        for at, role in enumerate(("input", "weights", "output")):
            if buffers[at] == 2:
                beside, ends[at] = beside + self.moved[at], self.ends[at]
            else:
                added = added + self.moved[at]
                ends[at] = self.ends[at] if pin and role == pin[0] else 0
        if buffers[2] == 2:
            in_turn = self.compute + self.pool
            work = np.minimum(np.maximum(np.maximum(self.compute, self.pool), self._one_buffer()), in_turn)
            after = np.minimum(self.pool // self.tiles, in_turn - work)
        else:
            work, after = self.compute + self.pool, 0
        together = self._together(work, after, beside, ends[0] + ends[1], ends[2])
        return self.timing.whole(together + self.timing.ticks(0, added))

    def _one_buffer(self) -> Array:
        """Cycles of one of two output buffers, whose tiles follow one another: computed, pooled and stored in turn."""
        stored = self.timing.transfer(self.moved[2])
        shares = ((self.compute, self.even[0]), (self.pool, self.even[1]), (stored, self.even[2]))
        even = sum(cycles * part // np.maximum(whole, 1) for cycles, (part, whole) in shares)
        both = sum(cycles for cycles, _ in shares)
        return np.maximum(even, both - even)

    def _together(self, work: Array, after: Array, beside: Array, first: Array, last: Array) -> Array:
        """Ticks of work, between the first load and the last store, with transfers beside all of it: in the first trip
        of a pinned loop with what is pinned, and in the others."""
        ticks = self.timing.ticks
        # When all has been transferred that comes before it, the last tile is still to be computed.
        final = work // self.visits
        if not self.timing.structure.pin:
            return np.maximum(ticks(work + after, first + last), ticks(final, beside))
        part, whole = self.first
        early, moved = work * part // whole, beside * part // whole
        start = np.maximum(ticks(early, first), ticks(0, self.pinned + moved))
        return start + np.maximum(ticks(work - early + after, last), ticks(final, beside - moved))
