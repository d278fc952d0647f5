"""DRAM bytes and memory use of a schedule: closed forms over the axis tables.

Every function takes a structure (mode, order, residency) and tiles (indices into the tables), as scalars for one
schedule or as broadcastable arrays in the search, and returns bytes. The rules are numbered as in docs/model.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType

import numpy as np

from dnnc.layer import Shape
from dnnc.schedule import RELEVANT, VECTOR_INPUT, Dim
from dnnc.structure import Array, Structure, Tiles
from dnnc_runtime.machine import Machine, Memory


def relevant(shape: Shape) -> Mapping[str, frozenset[Dim]]:
    """For every operand of a layer that its nest moves the axes that decide which tile of it is used."""
    return _relevant(shape.kind == "vector", shape.second, shape.n > 1, shape.on_chip)


@lru_cache(maxsize=256)
def _relevant(
    vector: bool, second: tuple[bool, bool, bool, bool] | None, images: bool, on_chip: tuple[str, ...]
) -> Mapping[str, frozenset[Dim]]:  # fmt: skip
    found: dict[str, frozenset[Dim]] = dict(RELEVANT)
    if vector:
        n, y, x, k = second or (False, False, False, False)
        axes: tuple[tuple[Dim, bool], ...] = (("y", y or (n and images)), ("x", x), ("k", k))
        found["input"], found["other"] = VECTOR_INPUT, frozenset(d for d, has in axes if has)
    for role in {*on_chip} - {"output"}:
        found.pop(REPORTED.get(role, role), None)
    return MappingProxyType(found)


class Model:
    """The closed forms of one layer on one machine under one structure."""

    def __init__(self, shape: Shape, machine: Machine, structure: Structure) -> None:
        self.shape, self.machine, self.structure = shape, machine, structure
        self.order = structure.order
        self.word = machine.word_bytes
        self.relevant = relevant(shape)
        self.halo_axis: Dim | None = structure.halo_axis(self.relevant.get("input", frozenset()))
        self._homes: dict[str, Memory] = {}

    def kept(self, dim: Dim) -> bool:
        """Whether loads along an axis skip what the tile before holds."""
        return self.structure.keep and self.halo_axis == dim

    def passes(self, role: str, t: Tiles, position: int | None = None) -> Array:
        """How often a role's tiles are gone through: trips of the other loops outside its innermost one (rule 1)."""
        product: Array = 1
        for dim in self.structure.around(self.relevant[role], position):
            product = product * t.trips[dim]
        return product

    # -- DRAM bytes -------------------------------------------------------------------------------------------

    def traffic(self, t: Tiles) -> dict[str, tuple[Array, Array]]:
        """(read, write) payload bytes by role, of all that is not on chip."""
        s, word = self.shape, self.word
        planes = s.g * s.k
        out: dict[str, tuple[Array, Array]] = {}
        if "input" not in s.on_chip:
            out["input"] = (self._input_read(t) * word, 0)
        if s.kind == "array":
            out["weights"] = (self._weights_read(t) * word, 0)
        if s.parameters:
            loads = self.passes("parameters", t) if self.structure.follow else 1
            out["bias"] = (loads * s.parameters * planes * word, 0)
        if s.residual and "residual" not in s.on_chip:
            out["residual"] = (s.n * s.y.out * s.x.out * planes * word, 0)
        if s.second is not None and "second" not in s.on_chip:
            out["other"] = (self._second_read(t) * word, 0)
        if "output" not in s.on_chip:
            out["output"] = (0, s.n * s.out_rows * s.out_columns * planes * word)
        if self.spills:
            rest = (t.trips["c"] - 1) * s.n * s.y.out * s.x.out * planes * self.machine.accumulator_bytes
            out["partial_sums"] = (rest, rest)
        return out

    @property
    def spills(self) -> bool:
        """See :class:`Structure`."""
        return self.structure.spills

    def bytes(self, t: Tiles) -> Array:
        """All payload bytes."""
        return sum(r + w for r, w in self.traffic(t).values())

    def _input_read(self, t: Tiles) -> Array:
        s, pin = self.shape, self.structure.pin
        channels = s.c * s.g if s.kind == "array" else s.k
        if not pin or pin[0] != "input":
            rows = t.pins("y", "rest", 0, self.kept("y"))
            columns = t.pins("x", "rest", 0, self.kept("x"))
            return self.passes("input", t) * rows * columns * channels
        once, rest = self._pinned_input(t)
        return once + self.unpinned_passes("input", t) * rest

    def _pinned_input(self, t: Tiles) -> tuple[Array, Array]:
        """(words of the pinned tiles, words of a pass over the others); the pinned loop is k."""
        assert self.structure.pin
        dim = self.structure.pin[2]
        once: Array = 1
        rest: Array = 1
        for axis in ("y", "x"):
            if axis == dim:
                once = once * t.pins(axis, "once", t.pinned)
                rest = rest * t.pins(axis, "rest", t.pinned, self.kept(axis))
            else:
                inner = self.structure.inside(axis, "k")
                once = once * (t.at(axis, "union") if inner else t.pins(axis, "rest", 0, False))
                rest = rest * t.pins(axis, "rest", 0, self.kept(axis))
        channels: dict[Dim, int] = {"c": self.shape.c, "g": self.shape.g}
        for plane, total in channels.items():
            held = t.pinned * t.size(plane) if plane == dim else total
            once = once * held
            rest = rest * (total - held if plane == dim else total)
        return once, rest

    def unpinned_passes(self, role: str, t: Tiles) -> Array:
        """Passes over the tiles that are not pinned: with one of them left along its axis, that axis moves nothing."""
        assert self.structure.pin
        dim, relevant = self.structure.pin[2], self.relevant[role]
        without = self.structure.innermost(relevant - {dim})
        return _where(
            t.trips[dim] - t.pinned > 1,
            self.passes(role, t),
            self.passes(role, t, without),
        )

    def _weights_read(self, t: Tiles) -> Array:
        s, pin = self.shape, self.structure.pin
        words = s.g * s.k * s.c * s.y.kernel * s.x.kernel
        if not pin or pin[0] != "weights":
            return self.passes("weights", t) * words
        _, loop, dim = pin
        unit = words // t.plane(dim).total
        once = t.pinned * t.size(dim) * unit
        outside = self.passes("weights", t, self.order.index(loop))
        return outside * once + self.unpinned_passes("weights", t) * (words - once)

    def _second_read(self, t: Tiles) -> Array:
        s = self.shape
        n, y, x, k = s.second or (False, False, False, False)
        # An operand of one row for each image comes again with every row tile.
        rows = s.n * s.y.out if y else (t.trips["y"] if n and s.n > 1 else 1)
        return self.passes("other", t) * rows * (s.x.out if x else 1) * (s.k if k else 1)

    # -- memory -----------------------------------------------------------------------------------------------

    def memory(self, t: Tiles) -> dict[str, Array]:
        """Bytes used of one instance of each memory (the fullest instance)."""
        used: dict[str, Array] = {m.name: 0 for m in self.machine.memories}
        for role, words in self.residents(t).items():
            name = self.memory_name(role)
            used[name] = used[name] + words * self.word
        return used

    def residents(self, t: Tiles) -> dict[str, Array]:
        """Words held of one memory instance by each resident: tiles, spare buffers, pinned and kept rows."""
        out = self.single(t)
        for role, tiles in zip(("input", "weights", "output"), self.structure.buffers, strict=True):
            if tiles == 2 and role in out:
                out[role] = out[role] + self.spare(t, role, out)
        return out

    def spare(self, t: Tiles, role: str, single: Mapping[str, Array]) -> Array:
        """Words that a second buffer takes: the largest later load, or one more output tile."""
        pin = self.structure.pin
        dim = pin[2] if pin and pin[0] == role else None
        if role == "output":
            return single["output"]
        return self._later_input(t, dim) if role == "input" else self._later_weights(t, dim)

    def single(self, t: Tiles) -> dict[str, Array]:
        """Words held by each resident with single buffers."""
        s = self.shape
        out: dict[str, Array] = {}
        if "input" not in s.on_chip:
            out["input"] = self._input_words(t)
        if s.kind == "array":
            out["weights"] = self._weight_words(t)
        if s.second is not None and "second" not in s.on_chip:
            out["second"] = self._second_words(t)
        if s.parameters:
            out["parameters"] = self._parameter_words(t)
        tile = self._output_planes(t) * t.at("y", "largest") * t.at("x", "largest")
        if s.residual and "residual" not in s.on_chip:
            out["residual"] = tile
        out["output"] = self._output_words(t, tile) if "output" not in s.on_chip else self._beside_rows(t, tile)
        if s.pool:
            out["pending"] = self._pending_words(t)
        return out

    def memory_name(self, role: str) -> str:
        """The memory in which a resident lies."""
        return self._home(MEMORY_ROLE[role]).name

    def level(self, role: str) -> int:
        """The level of the memory that holds a role."""
        return self._home(role).level

    def _home(self, role: str) -> Memory:
        if role not in self._homes:
            self._homes[role] = self.machine.memory_of(role)
        return self._homes[role]

    def _output_planes(self, t: Tiles) -> Array:
        return self.planes_over(t, False, False, self.level("output"))

    def _output_words(self, t: Tiles, tile: Array) -> Array:
        wide = self.machine.accumulator_bytes // self.word if "c" in self.order else 1
        if not self.shape.pool:
            return tile * wide
        pooled = self._output_planes(t) * t.at("y", "pooled") * self.shape.pool.x.out
        return np.maximum(tile * wide, pooled)

    def _beside_rows(self, t: Tiles, tile: Array) -> Array:
        """What an output tile takes beside the rows on chip that it ends up in: all of it where a pool comes between;
        else its accumulators, so far as they do not fit into the rows."""
        wide = self.machine.accumulator_bytes // self.word if "c" in self.order else 1
        if self.shape.pool:
            return tile * wide
        if wide == 1:
            return np.zeros_like(tile)
        planes = t.size("g") * beside(t.size("k"), wide)
        return planes * wide * t.at("y", "largest") * t.at("x", "largest")

    def _pending_words(self, t: Tiles) -> Array:
        """Partial results of windows over a tile's edge, of all planes that come before the next rows (rule 6)."""
        assert self.shape.pool
        wide = self.machine.accumulator_bytes // self.word if self.shape.pool.kind == "average" else 1
        planes = self.planes_over(
            t, self.structure.inside("g", "y"), self.structure.inside("k", "y"), self.level("output")
        )
        return t.at("y", "slots") * self.shape.pool.x.out * wide * planes

    def planes_over(self, t: Tiles, all_g: bool, all_k: bool, level: int) -> Array:
        """Planes that a unit of a level holds of a tile, or summed over all g and k tiles."""
        key = self.structure.deal.mode, all_g, all_k, level
        return t.once(key, lambda: self._planes_over(t, all_g, all_k, level))

    def _planes_over(self, t: Tiles, all_g: bool, all_k: bool, level: int) -> Array:
        deal = self.structure.deal
        gs = [(t.trips["g"] - 1, t.size("g")), (1, t.last("g"))] if all_g else [(1, t.size("g"))]
        ks = [(t.trips["k"] - 1, t.size("k")), (1, t.last("k"))] if all_k else [(1, t.size("k"))]
        return sum(a * b * deal.held_planes(g, k, level) for a, g in gs for b, k in ks)

    def _parameter_words(self, t: Tiles) -> Array:
        whole = not self.structure.follow
        return self.shape.parameters * self.planes_over(t, whole, whole, self.level("parameters"))

    def _second_words(self, t: Tiles) -> Array:
        _, y, x, k = self.shape.second or (False, False, False, False)
        planes = self.structure.deal.held_planes(1, t.size("k"), self.level("second")) if k else 1
        return (t.at("y", "largest") if y else 1) * (t.at("x", "largest") if x else 1) * planes

    def _input_words(self, t: Tiles) -> Array:
        """The current tile, pinned tiles and received rows."""
        pin = self.structure.pin
        dim = pin[2] if pin and pin[0] == "input" else None
        planes = self.input_planes(t, self.unpinned(t, "c", dim), self.unpinned(t, "g", dim))
        words = self.tile_extent(t, "y", dim) * self.tile_extent(t, "x", dim) * planes
        words = words + t.at("y", "side") * self.side_columns(t) * self.side_planes(t)
        if dim:
            words = words + self._pinned_input_words(t, dim)
        return words

    def tile_extent(self, t: Tiles, axis: Dim, dim: Dim | None) -> Array:
        """Input rows or columns of the largest tile that is not pinned."""
        return t.pins(axis, "current", t.pinned if axis == dim else 0)

    def unpinned(self, t: Tiles, plane: Dim, dim: Dim | None) -> Array:
        """Size of the largest tile of a plane axis that is not pinned."""
        if plane != dim:
            return t.size(plane)
        return _where(t.pinned < t.trips[plane] - 1, t.size(plane), t.last(plane))

    def input_planes(self, t: Tiles, c: Array, g: Array) -> Array:
        """Words of one input pixel that an instance holds of a (g, c) tile."""
        level, deal = self.level("input"), self.structure.deal
        if self.shape.kind == "vector":
            return deal.held_planes(1, t.size("k"), level)
        return deal.held_groups(g, level) * c

    def side_columns(self, t: Tiles) -> Array:
        """Columns of received rows that stay until the block ends."""
        return t.at("x", "union") if self.structure.inside("x", "y") else t.pins("x", "current", 0)

    def side_planes(self, t: Tiles) -> Array:
        """Words of one received pixel that stay until the block ends."""
        if self.shape.kind == "vector":
            return self.shape.k if self.structure.inside("k", "y") else self.input_planes(t, 1, 1)
        c = self.shape.c if self.structure.inside("c", "y") else t.size("c")
        return self.groups_over(t, self.structure.inside("g", "y")) * c

    def groups_over(self, t: Tiles, every: bool) -> Array:
        """Groups whose input an instance holds of a tile, or summed over all g tiles."""
        level, deal = self.level("input"), self.structure.deal
        if not every:
            return deal.held_groups(t.size("g"), level)
        return (t.trips["g"] - 1) * deal.held_groups(t.size("g"), level) + deal.held_groups(t.last("g"), level)

    def _pinned_input_words(self, t: Tiles, dim: Dim) -> Array:
        words: Array = 1
        for axis in ("y", "x"):
            if axis == dim:
                words = words * t.pins(axis, "unit", t.pinned)
            elif self.structure.inside(axis, "k"):
                words = words * t.at(axis, "union_unit")
            else:
                words = words * t.pins(axis, "current", 0)
        c = t.pinned * t.size("c") if dim == "c" else self.shape.c if self.structure.inside("c", "k") else t.size("c")
        return words * c * self.pinned_groups(t)

    def pinned_groups(self, t: Tiles) -> Array:
        """Groups whose input stays, of one instance."""
        assert self.structure.pin
        if self.structure.pin[2] == "g":
            return t.pinned * self.groups_over(t, False)
        return self.groups_over(t, self.structure.inside("g", "k"))

    def _later_input(self, t: Tiles, dim: Dim | None) -> Array:
        """Words of the largest load after the first, wrap-around included."""
        p = {axis: t.pinned if axis == dim else 0 for axis in ("y", "x")}
        most = {a: t.pins(a, "any_load", p[a], self.kept(a)) for a in ("y", "x")}
        most["planes"] = self.input_planes(t, self.unpinned(t, "c", dim), self.unpinned(t, "g", dim))
        later = self._later_planes(t, dim)
        options = [most["y"] * most["x"] * planes for planes in later]
        for axis, other in (("y", "x"), ("x", "y")):
            if axis in self.order:
                options.append(t.pins(axis, "later", p[axis], self.kept(axis)) * most[other] * most["planes"])
        again = self.unpinned_passes("input", t) if dim else self.passes("input", t)
        whole = most["y"] * most["x"] * most["planes"]
        return _where(np.asarray(again) > 1, whole, _largest(options))

    def _later_planes(self, t: Tiles, dim: Dim | None) -> list[Array]:
        """Plane extents of input loads after the first, for every active plane loop."""
        if self.shape.kind == "vector":
            return [self.structure.deal.held_planes(1, self._second_tile(t, "k", 0), self.level("input"))] * (
                "k" in self.order
            )
        out: list[Array] = []
        for plane in ("c", "g"):
            if plane in self.order:
                later = self._second_tile(t, plane, t.pinned if plane == dim else 0)
                c, g = (later, t.size("g")) if plane == "c" else (t.size("c"), later)
                out.append(self.input_planes(t, c, g) * (later > 0))
        return out

    def _second_tile(self, t: Tiles, plane: Dim, pinned: Array) -> Array:
        """Size of the largest tile after the first of those not pinned; 0 if there is none."""
        left = t.trips[plane] - pinned
        return _where(left > 2, t.size(plane), np.where(left == 2, t.last(plane), 0))

    def _weight_words(self, t: Tiles) -> Array:
        pin, level, deal = self.structure.pin, self.level("weights"), self.structure.deal
        taps = self.shape.y.kernel * self.shape.x.kernel
        dim = pin[2] if pin and pin[0] == "weights" else None
        if not dim:
            return self.planes_over(t, False, False, level) * t.size("c") * taps
        k, c, g = (self.unpinned(t, d, dim) for d in ("k", "c", "g"))
        return deal.held_planes(g, k, level) * c * taps + self.pinned_words(t)

    def pinned_words(self, t: Tiles) -> Array:
        """Words of the pinned tiles in the fullest instance of their memory."""
        assert self.structure.pin
        operand, loop, dim = self.structure.pin
        if operand == "input":
            return self._pinned_input_words(t, dim)
        return self._pinned_weights(t, loop, dim) * self.shape.y.kernel * self.shape.x.kernel

    def _pinned_weights(self, t: Tiles, loop: Dim, dim: Dim) -> Array:
        level, deal, inside = self.level("weights"), self.structure.deal, self.structure.inside
        c = t.pinned * t.size("c") if dim == "c" else self.shape.c if inside("c", loop) else t.size("c")
        if dim == "c":
            return c * self.planes_over(t, inside("g", loop), inside("k", loop), level)
        other: Dim = "g" if dim == "k" else "k"
        every = inside(other, loop)
        total: Array = 0
        for count, size in (
            ((t.trips[other] - 1, t.size(other)), (1, t.last(other))) if every else ((1, t.size(other)),)
        ):
            g, k = (size, t.size("k")) if dim == "k" else (t.size("g"), size)
            total = total + count * deal.held_planes(g, k, level)
        return c * t.pinned * total

    def _later_weights(self, t: Tiles, dim: Dim | None) -> Array:
        taps = self.shape.y.kernel * self.shape.x.kernel
        level, deal = self.level("weights"), self.structure.deal
        k, c, g = (self.unpinned(t, d, dim) for d in ("k", "c", "g"))
        tile = deal.held_planes(g, k, level) * c * taps
        options: list[Array] = []
        for plane in ("k", "c", "g"):
            if plane in self.order:
                later = self._second_tile(t, plane, t.pinned if plane == dim else 0)
                k, c, g = (later if d == plane else t.size(d) for d in ("k", "c", "g"))
                options.append(_where(later > 0, deal.held_planes(g, k, level) * c * taps, 0))
        again = self.unpinned_passes("weights", t) if dim else self.passes("weights", t)
        return _where(np.asarray(again) > 1, tile, _largest(options))


def beside(planes: Array, wide: int) -> Array:
    """Planes of a tile whose accumulators do not fit into the words that the tile will take."""
    return planes - planes // wide


def _where(condition: Array, then: Array, otherwise: Array) -> Array:
    return np.asarray(np.where(condition, then, otherwise), dtype=np.int64)


def _largest(options: list[Array]) -> Array:
    out: Array = 0
    for option in options:
        out = np.maximum(out, option)
    return out


MEMORY_ROLE = {
    "input": "input", "weights": "weights", "second": "second", "parameters": "parameters",
    "residual": "residual", "output": "output", "pending": "output",
}  # fmt: skip
"""Which of the machine's roles says where a resident lies."""


REPORTED = {"second": "other"}
"""Roles under whose names bytes are not told apart."""


def compulsory(shape: Shape, machine: Machine) -> int:
    """Bytes of every touched element of every operand once; of what is on chip none."""
    from dnnc.axis import touched

    rows, columns = (touched(w, 0, w.out).bit_count() for w in (shape.y, shape.x))
    planes = shape.g * shape.k
    channels = shape.c * shape.g if shape.kind == "array" else shape.k
    maps = {
        "input": shape.n * rows * columns * channels,
        "output": shape.n * shape.out_rows * shape.out_columns * planes,
    }
    if shape.residual:
        maps["residual"] = shape.n * shape.y.out * shape.x.out * planes
    if shape.second is not None:
        extents = (shape.n, shape.y.out, shape.x.out, shape.k)
        maps["second"] = prod(e for e, has in zip(extents, shape.second, strict=True) if has)
    words = sum(words for role, words in maps.items() if role not in shape.on_chip) + shape.parameters * planes
    if shape.kind == "array":
        words += planes * shape.c * shape.y.kernel * shape.x.kernel
    return words * machine.word_bytes
