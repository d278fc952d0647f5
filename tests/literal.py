"""The rules of traffic and capacity, taken literally: loops over tiles, and sets of coordinates that come and go.

No pins, no moves between units, single buffers, units that share whole groups. Nothing is shared with the closed
forms that this judges but the schedule itself. Slow: meant for shapes of a few rows and planes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from dnnc.layer import Shape
from dnnc.schedule import Dim, Schedule
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window

Span = tuple[int, int]
"""Coordinates [first, stop)."""

Tile = dict[Dim, int]
"""Index of every loop; images go with y."""

Elements = set[tuple[int, ...]]

PLANES: tuple[Dim, ...] = ("k", "c", "g")


def supported(shape: Shape, machine: Machine, schedule: Schedule) -> bool:
    """Whether the rules below say what this schedule does."""
    spread = spread_of(shape, machine, schedule.mode)
    joint = shape.g > 1 and shape.k < units_of(machine, spread, "k")
    pooled_apart = shape.pool is not None and units_of(machine, spread, "y") > 1
    plain = schedule.buffers == (1, 1, 1) and schedule.pin is None and not schedule.move
    return plain and not joint and not pooled_apart


def spread_of(shape: Shape, machine: Machine, name: str) -> tuple[str, ...]:
    """What each level spreads under a mode; of a vector layer, the outermost alone."""
    mode = next(m for m in machine.modes if m.name == name)
    return mode.spread if shape.kind == "array" else (mode.spread[0], *("" for _ in mode.spread[1:]))


def units_of(machine: Machine, spread: tuple[str, ...], dim: str) -> int:
    """Units that spread a dimension."""
    return prod(level.count for level, d in zip(machine.levels, spread, strict=True) if d == dim)


def touched(window: Window, outputs: Span) -> list[int]:
    """The input coordinates that some outputs touch."""
    points = {
        o * window.stride + t * window.dilation - window.pad for o in range(*outputs) for t in range(window.kernel)
    }
    return sorted(p for p in points if 0 <= p < window.size)


@dataclass(frozen=True)
class Walk:
    """One walk through the loop nest of a schedule."""

    shape: Shape
    machine: Machine
    schedule: Schedule

    # -- tiles --------------------------------------------------------------------------------------------------------

    def visits(self) -> Iterator[Tile]:
        """The index of every visit, in order."""
        rows = self.shape.n * max(len(block) for block in self.schedule.y.tiles)
        trips: dict[Dim, int] = {"y": rows, "x": len(self.schedule.x.tiles[0]), **{d: self.trips(d) for d in PLANES}}
        assert {d for d, n in trips.items() if n > 1} == set(self.schedule.order)
        for point in product(*(range(trips[d]) for d in self.schedule.order)):
            tile: Tile = {"y": 0, "x": 0, "k": 0, "c": 0, "g": 0}
            tile.update(zip(self.schedule.order, point, strict=True))
            yield tile

    def _sizes(self, dim: Dim) -> tuple[int, int]:
        s, q = self.shape, self.schedule
        return {"k": (s.k, q.k), "c": (s.c, q.c), "g": (s.g, q.g)}[dim]

    def trips(self, dim: Dim) -> int:
        """Tiles of a plane loop."""
        total, size = self._sizes(dim)
        return len(range(0, total, size))

    def planes(self, dim: Dim, tile: Tile) -> range:
        """Coordinates of a tile of k, c or g."""
        total, size = self._sizes(dim)
        return range(tile[dim] * size, min(total, (tile[dim] + 1) * size))

    def image(self, tile: Tile) -> tuple[int, int]:
        """(image, step inside the blocks)."""
        return divmod(tile["y"], max(len(block) for block in self.schedule.y.tiles))

    def rows(self, tile: Tile) -> list[Span]:
        """Convolution rows of every unit that has any left in this step."""
        step = self.image(tile)[1]
        return [block[step] for block in self.schedule.y.tiles if step < len(block)]

    def columns(self, tile: Tile) -> Span:
        """Convolution columns of a tile."""
        return self.schedule.x.tiles[0][tile["x"]]

    def channels(self) -> Dim:
        """The loop over an input's channels."""
        return "c" if self.shape.kind == "array" else "k"

    def inputs(self, tile: Tile) -> list[Elements]:
        """Input elements that every unit's tile touches."""
        columns = touched(self.shape.x, self.columns(tile))
        deep = list(product(columns, self.planes("g", tile), self.planes(self.channels(), tile)))
        image = self.image(tile)[0]
        return [{(image, y, *d) for y in touched(self.shape.y, rows) for d in deep} for rows in self.rows(tile)]

    def outputs(self, tile: Tile) -> int:
        """Elements of the convolution's output tile, over all units."""
        first, stop = self.columns(tile)
        rows = sum(b - a for a, b in self.rows(tile))
        return rows * (stop - first) * len(self.planes("g", tile)) * len(self.planes("k", tile))

    def complete(self, tile: Tile) -> int:
        """Rows that are stored when the tile is finished: of the pool, the windows whose last row it has."""
        if self.shape.pool is None:
            return sum(b - a for a, b in self.rows(tile))
        ((first, stop),) = self.rows(tile)
        window = self.shape.pool.y
        return sum(first <= touched(window, (w, w + 1))[-1] < stop for w in range(window.out))

    def second(self, tile: Tile) -> tuple[Dim, ...]:
        """The loops that change the tile of a vector layer's second operand."""
        n, y, x, k = self.shape.second or (False, False, False, False)
        wanted: dict[Dim, bool] = {"y": y or (n and self.shape.n > 1), "x": x, "k": k}
        return tuple(d for d in tile if wanted.get(d))

    # -- bytes --------------------------------------------------------------------------------------------------------

    def traffic(self) -> dict[str, tuple[int, int]]:
        """(read, written) bytes by role."""
        word, moved = self.machine.word_bytes, Counter[str]()
        if self.shape.parameters and not self.schedule.follow:
            moved["bias"] = self.shape.parameters * self.shape.g * self.shape.k * word
        moved["input"] = self._input_reads() * word
        held: dict[str, tuple[int, ...]] = {}
        for tile in self.visits():
            for role, dims, words in self._others(tile):
                key = tuple(tile[d] for d in dims)
                if held.get(role) != key:
                    held[role] = key
                    moved[role] += words * word
        out = {role: (count, 0) for role, count in moved.items()}
        return out | self._output_traffic()

    def _input_reads(self) -> int:
        dims: tuple[Dim, ...] = ("y", "x", "k") if self.shape.kind == "vector" else ("y", "x", "c", "g")
        loops: list[Dim] = [d for d in self.schedule.order if d in dims]
        words, before = 0, None
        held: list[Elements] = []
        for tile in self.visits():
            changed = [d for d in loops if before is None or before[d] != tile[d]]
            if before is not None and not changed:
                continue
            needed = self.inputs(tile)
            inner = loops[-1] if loops else None
            moves_on = (
                before is not None and inner in ("y", "x") and changed == [inner] and tile[inner] == before[inner] + 1
            )
            kept = held if self.schedule.keep and moves_on else []
            words += sum(len(new - old) for new, old in zip(needed, [*kept, *([set()] * len(needed))], strict=False))
            held, before = needed, tile
        return words

    def _others(self, tile: Tile) -> Iterator[tuple[str, tuple[Dim, ...], int]]:
        """(role, loops that change its tile, words of the tile) of operands without a halo."""
        s = self.shape
        planes = len(self.planes("g", tile)) * len(self.planes("k", tile))
        if s.kind == "array":
            yield "weights", ("k", "c", "g"), planes * len(self.planes("c", tile)) * s.y.kernel * s.x.kernel
        if s.parameters and self.schedule.follow:
            yield "bias", ("k", "g"), s.parameters * planes
        if s.second is not None:
            _, y, x, k = s.second
            rows = sum(b - a for a, b in self.rows(tile)) if y else 1
            first, stop = self.columns(tile)
            yield (
                "other",
                self.second(tile),
                rows * (stop - first if x else 1) * (len(self.planes("k", tile)) if k else 1),
            )

    def _output_traffic(self) -> dict[str, tuple[int, int]]:
        """Finished tiles are stored; unfinished ones leave when another is begun, and return."""
        word, wide = self.machine.word_bytes, self.machine.accumulator_bytes
        stored = residual = left = returned = 0
        last, here = self.trips("c") - 1, None
        unfinished: dict[tuple[int, ...], int] = {}
        for tile in self.visits():
            key = tile["y"], tile["x"], tile["k"], tile["g"]
            if key != here:
                left += unfinished.get(here, 0) if here else 0
                returned += unfinished.get(key, 0)
                here = key
            unfinished[key] = self.outputs(tile)
            if tile["c"] == last:
                residual += unfinished.pop(key)
                columns = self.shape.pool.x.out if self.shape.pool else self.columns(tile)[1] - self.columns(tile)[0]
                stored += self.complete(tile) * columns * len(self.planes("g", tile)) * len(self.planes("k", tile))
        out = {"output": (0, stored * word), "partial_sums": (returned * wide, left * wide)}
        return out | ({"residual": (residual * word, 0)} if self.shape.residual else {})

    # -- memory -------------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes used of the fullest instance of every memory."""
        used = {m.name: 0 for m in self.machine.memories}
        for role, words in self._residents().items():
            used[self.machine.memory_of(role).name] += words * self.machine.word_bytes
        return used

    def share(self, role: str, dim: Dim, tile: Tile) -> int:
        """Planes of a tile that one instance of a role's memory holds, where the units take whole passes."""
        spread, level = spread_of(self.shape, self.machine, self.schedule.mode), self.machine.memory_of(role).level
        inside = prod(
            lv.count for lv, d in list(zip(self.machine.levels, spread, strict=True))[level + 1 :] if d == dim
        )
        count = len(self.planes(dim, tile))
        return min(count, -(-count // units_of(self.machine, spread, dim)) * inside)

    def _held(self, role: str, tile: Tile) -> int:
        return self.share(role, "g", tile) * self.share(role, "k", tile)

    def _residents(self) -> dict[str, int]:
        """Words of each role: the largest over units and tiles."""
        s, tiles = self.shape, list(self.visits())

        def most(words: Callable[[Tile], int]) -> int:
            return max(map(words, tiles))

        out = {"input": most(self._input_words), "output": most(self._output_words)}
        if s.kind == "array":
            taps = s.y.kernel * s.x.kernel
            out["weights"] = most(lambda t: self._held("weights", t) * len(self.planes("c", t)) * taps)
        if s.parameters:
            each = {(t["g"], t["k"]): self._held("parameters", t) for t in tiles}
            out["parameters"] = s.parameters * (max if self.schedule.follow else sum)(each.values())
        if s.residual:
            out["residual"] = most(lambda t: self._held("residual", t) * self._pixels(t))
        if s.second is not None:
            out["second"] = most(self._second_words)
        if s.pool:
            out["output"] += self._pending(tiles)
        return out

    def _pixels(self, tile: Tile) -> int:
        first, stop = self.columns(tile)
        return max(b - a for a, b in self.rows(tile)) * (stop - first)

    def _input_words(self, tile: Tile) -> int:
        channel = self.channels()
        deep = len(self.planes("g", tile)) * len(self.planes(channel, tile))
        held = (
            self._held("input", tile)
            if channel == "k"
            else self.share("input", "g", tile) * len(self.planes("c", tile))
        )
        return max(map(len, self.inputs(tile))) // deep * held

    def _second_words(self, tile: Tile) -> int:
        _, y, x, k = self.shape.second or (False, False, False, False)
        first, stop = self.columns(tile)
        rows = max(b - a for a, b in self.rows(tile)) if y else 1
        return rows * (stop - first if x else 1) * (self.share("second", "k", tile) if k else 1)

    def _wide(self) -> int:
        return self.machine.accumulator_bytes // self.machine.word_bytes

    def _output_words(self, tile: Tile) -> int:
        """Sums of an open c loop are wide; the finished, pooled rows take the place of the tile."""
        pixels = self._pixels(tile) * (self._wide() if self.trips("c") > 1 else 1)
        if self.shape.pool:
            pixels = max(pixels, self.complete(tile) * self.shape.pool.x.out)
        return pixels * self._held("output", tile)

    def _pending(self, tiles: list[Tile]) -> int:
        """Windows begun and not finished, of every plane tile that comes round before the next rows."""
        pool, order = self.shape.pool, self.schedule.order
        assert pool
        windows = [touched(pool.y, (w, w + 1)) for w in range(pool.y.out)]
        begun = max(sum(w[0] < stop <= w[-1] for w in windows) for t in tiles for _, stop in self.rows(t))
        inside = order[order.index("y") :] if "y" in order else ()
        each = {(t["k"], t["g"]): self._held("output", t) for t in tiles}
        planes = sum(held for (k, g), held in each.items() if ("k" in inside or not k) and ("g" in inside or not g))
        return begun * pool.x.out * planes * (self._wide() if pool.kind == "average" else 1)
