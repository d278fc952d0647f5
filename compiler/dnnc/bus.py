"""Bytes on the bus of a schedule: closed forms over the axis tables.

Every contiguous run of a DRAM transfer is rounded up to whole bursts.
"""

from __future__ import annotations

from dnnc.schedule import Dim
from dnnc.structure import Array, Tiles
from dnnc.traffic import Model

Plane = list[tuple[Array, Array]]
"""The tiles of a plane axis: (how many, size) pairs."""

Loaded = tuple[Array, Array, Array]
"""What is loaded along an axis: rows, their bursts where whole rows are one run, and loads of the whole axis."""


class Bus:
    """Bus bytes of one layer on one machine under one structure."""

    def __init__(self, model: Model) -> None:
        self.model, self.shape, self.machine = model, model.shape, model.machine
        self.structure, self.order = model.structure, model.order
        self.word, self.burst = model.word, model.machine.dram.burst_bytes
        self.dense = dict(self.shape.dense)

    def bytes(self, t: Tiles) -> dict[str, tuple[Array, Array]]:
        """(read, write) bytes on the bus by role."""
        s = self.shape
        out: dict[str, tuple[Array, Array]] = {}
        if "input" not in s.on_chip:
            out["input"] = (self._input(t), 0)
        if "output" not in s.on_chip:
            out["output"] = (0, self._stored(t, "output", "out_bursts"))
        if s.kind == "array":
            out["weights"] = (self._weights(t), 0)
        if s.parameters:
            out["bias"] = (self._parameters(t), 0)
        if s.residual and "residual" not in s.on_chip:
            out["residual"] = (self._stored(t, "residual", "tile_bursts"), 0)
        if s.second is not None and "second" not in s.on_chip:
            out["other"] = (self._second(t), 0)
        if self.model.spills:
            rest = (t.trips["c"] - 1) * self._stored(t, "partial_sums", "wide_bursts")
            out["partial_sums"] = (rest, rest)
        return {role: (r * self.burst, w * self.burst) for role, (r, w) in out.items()}

    def _bursts(self, elements: Array, width: int | None = None) -> Array:
        return -(-elements * (width or self.word) // self.burst)

    def plane(self, t: Tiles, dim: Dim) -> Plane:
        """The tiles of a plane axis."""
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

    def pinned(self, t: Tiles) -> Array:
        """Bytes of the pinned tiles, the first time that they are loaded."""
        return self._pinned(t) * self.burst

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
        return {d: self.plane(t, d) for d in planes}

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
            channels, channel = self.plane(t, "k"), "k"
        else:
            groups, channels, channel = part.get("g", self.plane(t, "g")), part.get("c", self.plane(t, "c")), "c"
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
            self.plane(t, "g"),
            self.plane(t, "k"),
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
            self.plane(t, "k") if k else [(1, 1)],
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
        groups, planes = self.plane(t, "g"), self.plane(t, "k")
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

    def first_and_last(self, t: Tiles) -> tuple[Array, Array, Array]:
        """Bus bytes of the first tiles of input and weights, and of the last store."""
        s, burst = self.shape, self.burst
        planes = t.size("c") * t.size("g") if s.kind == "array" else t.size("k")
        first = self._bursts(t.at("y", "first") * t.pins("x", "current", 0) * planes)
        taps = s.y.kernel * s.x.kernel
        weights = self._bursts(t.size("g") * t.size("k") * t.size("c") * taps) if s.kind == "array" else 0
        columns = s.out_columns if s.pool else t.at("x", "largest")
        last = self._bursts(t.at("y", "last_rows") * columns * t.last("g") * t.last("k"))
        first, last = (0 if role in s.on_chip else tile for role, tile in (("input", first), ("output", last)))
        return first * burst, weights * burst, last * burst
