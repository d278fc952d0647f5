"""Cycles of a schedule: a closed form over the axis tables.

Multiply-accumulate cycles follow the mode: valid taps only, each row trace (valid columns x channels) rounded up to the
channel granularity. Transfers are those of the bus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dnnc.bus import Bus
from dnnc.structure import Array, Tiles
from dnnc.tables import valid_taps
from dnnc.traffic import Model


class ClosedForm:
    """Cycles of one layer on one machine under one structure."""

    def __init__(self, model: Model) -> None:
        self.model, self.shape, self.machine = model, model.shape, model.machine
        self.structure, self.order = model.structure, model.order
        self.bus = Bus(model)
        speed = Fraction(self.machine.clock_hz) / Fraction(self.machine.dram.bytes_per_second)
        self.cycles_per_byte = speed.limit_denominator(10_000)

    def compute(self, t: Tiles) -> Array:
        """Cycles of the array over all tiles, the slowest unit each."""
        return self._mac_cycles(t) if self.shape.kind == "array" else self._vector_cycles(t)

    def _mac_cycles(self, t: Tiles) -> Array:
        deal = self.structure.deal
        passes = sum(a * b * deal.passes(g, k) for a, g in self.bus.plane(t, "g") for b, k in self.bus.plane(t, "k"))
        return t.at("y", "taps") * self._trace_cycles(t) * passes

    def _trace_cycles(self, t: Tiles) -> Array:
        """Cycles of one row of outputs and one row of taps: each output column's trace, summed over c tiles."""
        grain, lanes = self.machine.channel_granularity, self.structure.deal.lanes
        taps = valid_taps(self.shape.x)
        cycles: Array = 0
        for valid in set(taps):
            for count, channels in self.bus.plane(t, "c"):
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
        work = self.ticks(self.compute(t), sum(self.bus.first_and_last(t)))
        return self.whole(np.maximum(work, self.ticks(0, beside)) + self.ticks(0, sum(moved.values())))

    def ticks(self, cycles: Array, moved: Array) -> Array:
        """Cycles, and then so many bytes on the bus, in a clock that is exact for both."""
        return cycles * self.cycles_per_byte.denominator + moved * self.cycles_per_byte.numerator

    def whole(self, ticks: Array) -> Array:
        """Ticks of that clock as cycles, rounded up."""
        return -(-ticks // self.cycles_per_byte.denominator)

    def parts(self, t: Tiles) -> Parts:
        """What the cycles are made of, whatever is double-buffered."""
        bus = {role: read + write for role, (read, write) in self.bus.bytes(t).items()}
        # While the sums of a tile are open, its residual arrives.
        beside = bus.pop("residual", 0) if "c" in self.order else 0
        pin = self.structure.pin
        pinned = self.bus.pinned(t)
        if pin:
            bus[pin[0]] = bus[pin[0]] - pinned
        moved = tuple(bus.pop(role, 0) for role in ("input", "weights", "output"))
        tiles = t.trips["y"] * t.trips["x"] * t.trips["k"] * t.trips["g"]
        return Parts(
            form=self,
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
            ends=self.bus.first_and_last(t),
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

    form: ClosedForm
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
        pin = self.form.structure.pin
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
        return self.form.whole(together + self.form.ticks(0, added))

    def _one_buffer(self) -> Array:
        """Cycles of one of two output buffers, whose tiles follow one another: computed, pooled and stored in turn."""
        stored = self.form.transfer(self.moved[2])
        shares = ((self.compute, self.even[0]), (self.pool, self.even[1]), (stored, self.even[2]))
        even = sum(cycles * part // np.maximum(whole, 1) for cycles, (part, whole) in shares)
        both = sum(cycles for cycles, _ in shares)
        return np.maximum(even, both - even)

    def _together(self, work: Array, after: Array, beside: Array, first: Array, last: Array) -> Array:
        """Ticks of work, between the first load and the last store, with transfers beside all of it: in the first trip
        of a pinned loop with what is pinned, and in the others."""
        ticks = self.form.ticks
        # When all has been transferred that comes before it, the last tile is still to be computed.
        final = work // self.visits
        if not self.form.structure.pin:
            return np.maximum(ticks(work + after, first + last), ticks(final, beside))
        part, whole = self.first
        early, moved = work * part // whole, beside * part // whole
        start = np.maximum(ticks(early, first), ticks(0, self.pinned + moved))
        return start + np.maximum(ticks(work - early + after, last), ticks(final, beside - moved))
