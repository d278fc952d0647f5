"""A deliberately plain emitter: k tiles, then row strips, then channel tiles, everything reloaded at every step.

It shares no code with the compiler, so that the runtime is tested on programs of another hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime import Constants
from dnnc_runtime.machine import Dram, Level, Machine, Memory, Mode
from dnnc_runtime.program import (
    Activation,
    Compute,
    Instruction,
    Kernel,
    Load,
    Part,
    Placement,
    Pool,
    PoolTile,
    Program,
    Role,
    Section,
    Store,
    Tensor,
    Window,
)
from dnnc_runtime.tensor import Piece, Region, View, extent, runs, span

ROLES = ("input", "second", "weights", "parameters", "residual", "output", "partial_sums")


def machine(maps: int = 65536, weights: int = 32768, cus: int = 2, vmacs: int = 2) -> Machine:
    """Maps at the outer level, weights and parameters at the inner one; sizes in bytes."""
    return Machine(
        name="toy",
        description="a small array",
        clock_hz=250e6,
        word_bits=16,
        fraction_bits=8,
        accumulator_bits=32,
        channel_granularity=1,
        levels=(Level("cu", cus, ("k", "y")), Level("vmac", vmacs, ("k",)), Level("lane", 4, ("c",))),
        memories=(Memory("maps", 0, maps), Memory("weights", 1, weights)),
        roles=tuple((role, "weights" if role in ("weights", "parameters") else "maps") for role in ROLES),
        modes=(Mode("together", ("k", "k", "c")), Mode("apart", ("y", "k", "c"))),
        dram=Dram(4.2e9, 32, 4096, "NHWC"),
        fuses=frozenset({"bias", "activation", "residual", "max_pool", "average_pool"}),
        units_can_send=False,
        pool_comparisons_per_cycle=16,
        words_sent_per_cycle=4,
    )


@dataclass(frozen=True)
class Conv:
    """A convolution and how it is cut; ``spread`` is what the outer level takes: channels or blocks of rows."""

    y: Window
    x: Window
    n: int = 1
    g: int = 1
    k: int = 4
    c: int = 3
    bias: bool = True
    residual: bool = False
    activation: Activation | None = None
    pool: Pool | None = None
    rows: int = 2
    planes: int = 4
    channels: int = 3
    spread: Literal["k", "y"] = "k"

    @property
    def kernel(self) -> Kernel:
        return Kernel("conv", self.y, self.x, self.activation, self.pool)

    @property
    def shapes(self) -> dict[Role, tuple[int, ...]]:
        """Shapes of the operands in DRAM."""
        out = (self.n, self.y.out, self.x.out, self.g, self.k)
        shapes: dict[Role, tuple[int, ...]] = {
            "input": (self.n, self.y.size, self.x.size, self.g, self.c),
            "weights": (self.g, self.k, self.y.kernel, self.x.kernel, self.c),
        }
        if self.bias:
            shapes["bias"] = (self.g, self.k)
        if self.activation and self.activation.name == "PRelu":
            shapes["slope"] = (self.g, self.k)
        if self.residual:
            shapes["residual"] = out
        pooled = (self.n, self.pool.y.out, self.pool.x.out, self.g, self.k) if self.pool else out
        return {**shapes, "output": pooled}


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[a + 1 :]) for a in range(len(shape)))


CONSTANTS = ("weights", "bias", "scale", "slope")


def program(conv: Conv, target: Machine) -> Program:
    """The convolution as a program of one section."""
    return alone(conv.kernel, conv.shapes, target, tuple(Emitter(conv, target).instructions()))


def alone(
    kernel: Kernel, shapes: dict[Role, tuple[int, ...]], target: Machine, instructions: tuple[Instruction, ...] = ()
) -> Program:
    """A program of one section, whose tensors and values are named after the roles."""
    views: dict[Role, View] = {role: View(role, 0, shape, dense(shape)) for role, shape in shapes.items()}
    tensors = tuple(Tensor(role, prod(shape), role in CONSTANTS) for role, shape in shapes.items())
    values = tuple(Placement(role, view.shape, view) for role, view in views.items() if role not in CONSTANTS)
    inputs = tuple(value.name for value in values if value.name != "output")
    section = Section("layer", kernel, tuple(views.items()), instructions)
    return Program(target, tensors, (section,), values, inputs, ("output",))


def feeds(data: dict[str, NDArray[np.float32]]) -> tuple[dict[str, NDArray[np.float32]], Constants]:
    """Operands by role as a program's inputs and its constants' loaders."""
    inputs = {role: values for role, values in data.items() if role not in CONSTANTS}
    return inputs, {role: lambda v=values: v for role, values in data.items() if role in CONSTANTS}


@dataclass(frozen=True)
class Tile:
    """One unit's outputs, and their halves for the units inside it."""

    cu: int
    region: Region
    slices: tuple[tuple[int, Region], ...]


class Emitter:
    """Emits instructions; memory is handed out from zero at every step."""

    def __init__(self, conv: Conv, target: Machine) -> None:
        self.conv = conv
        self.cus, self.vmacs = target.levels[0].count, target.levels[1].count

    def instructions(self) -> list[Instruction]:
        out: list[Instruction] = []
        for n in range(self.conv.n):
            for g in range(self.conv.g):
                for k in range(0, self.conv.k, self.conv.planes):
                    planes = min(self.conv.planes, self.conv.k - k)
                    pending: list[tuple[Piece, ...]] = [()] * self.cus
                    for step in range(self.steps()):
                        tiles = self.tiles(n, step, g, k, planes)
                        out += self.tile(tiles, pending)
        return out

    def block(self) -> int:
        units = self.cus if self.conv.spread == "y" else 1
        return -(-self.conv.y.out // units)

    def steps(self) -> int:
        return -(-self.block() // self.conv.rows)

    def tiles(self, n: int, step: int, g: int, k: int, planes: int) -> list[Tile]:
        out: list[Tile] = []
        for cu in range(self.cus):
            block = self.block()
            first = block * (cu if self.conv.spread == "y" else 0)
            rows = (first + step * self.conv.rows, min(first + block, first + (step + 1) * self.conv.rows))
            rows = (rows[0], min(rows[1], self.conv.y.out))
            share = planes if self.conv.spread == "y" else -(-planes // self.cus)
            start = 0 if self.conv.spread == "y" else cu * share
            own = (k + start, k + min(start + share, planes))
            if rows[0] >= rows[1] or own[0] >= own[1]:
                continue
            base = (span(n, 1), span(rows[0], rows[1] - rows[0]), span(0, self.conv.x.out), span(g, 1))
            part = -(-(own[1] - own[0]) // self.vmacs)
            slices: list[tuple[int, Region]] = []
            for v in range(self.vmacs):
                lo, hi = own[0] + v * part, min(own[0] + (v + 1) * part, own[1])
                if lo < hi:
                    slices.append((cu * self.vmacs + v, (*base, span(lo, hi - lo))))
            out.append(Tile(cu, (*base, span(own[0], own[1] - own[0])), tuple(slices)))
        return out

    def tile(self, tiles: list[Tile], pending: list[tuple[Piece, ...]]) -> list[Instruction]:
        out: list[Instruction] = []
        conv = self.conv
        for c in range(0, conv.c, conv.channels):
            stop = min(c + conv.channels, conv.c)
            out += self.visit(tiles, c, stop)
        if conv.pool:
            out += self.pool(tiles, pending)
            stored = [t for t in tiles if extent(self.pooled(t).region[1])]
            if not stored:
                return out
            pieces = tuple(self.pooled(t) for t in stored)
        else:
            pieces = tuple(self.output(t) for t in tiles)
        return [*out, Store("output", "maps", "word", tuple(p.region for p in pieces), pieces)]

    def visit(self, tiles: list[Tile], c: int, stop: int) -> list[Instruction]:
        """Load everything for a range of channels and compute."""
        first, last = c == 0, stop == self.conv.c
        out = self.loads(
            "input", "maps", [(t.cu, self.input(t, c, stop).region, self.input(t, c, stop)) for t in tiles]
        )
        held = [(v, *self.weights(v, r, c, stop)) for t in tiles for v, r in t.slices]
        out += self.loads("weights", "weights", [(v, p.region, p) for v, p, _ in held])
        roles: list[Role] = [r for r in ("bias", "slope") if r in self.conv.shapes] if last else []
        for role in roles:
            found = [(v, self.parameter(v, r, role)) for t in tiles for v, r in t.slices]
            out += self.loads(role, "weights", [(v, p.region, p) for v, p in found])
        if last and self.conv.residual:
            out += self.loads("residual", "maps", [(t.cu, t.region, self.residual(t)) for t in tiles])
        parts = tuple(self.part(t, c, stop, roles) for t in tiles)
        return [*out, Compute(parts, (c, stop), first, last)]

    def loads(self, role: Role, memory: str, pieces: list[tuple[int, Region, Piece]]) -> list[Instruction]:
        """One piece for each distinct region, broadcast to all units that want it at the same place.

        Inputs of different units overlap: they are loads of their own.
        """
        wanted: dict[Region, list[int]] = {}
        place: dict[Region, Piece] = {}
        for unit, region, piece in pieces:
            wanted.setdefault(region, []).append(unit)
            place[region] = piece
        found = [place[r]._replace(instances=tuple(u)) for r, u in wanted.items() if all(extent(axis) for axis in r)]
        if role == "input":
            return [Load(role, memory, "word", (piece.region,), (piece,)) for piece in found]
        return [Load(role, memory, "word", tuple(piece.region for piece in found), tuple(found))]

    def part(self, tile: Tile, c: int, stop: int, roles: list[Role]) -> Part:
        first, last = c == 0, stop == self.conv.c
        operands: list[tuple[Role, tuple[Piece, ...]]] = []
        operands.append(("input", (self.input(tile, c, stop),)))
        operands.append(("weights", tuple(self.weights(v, r, c, stop)[0] for v, r in tile.slices)))
        operands.extend((role, tuple(self.parameter(v, r, role) for v, r in tile.slices)) for role in roles)
        if last and self.conv.residual:
            operands.append(("residual", (self.residual(tile),)))
        if not (first and last):
            operands.append(("accumulator", (self.accumulator(tile),)))
        if last:
            operands.append(("tile" if self.conv.pool else "output", (self.output(tile),)))
        return Part(tile.region, tuple(operands))

    def pool(self, tiles: list[Tile], pending: list[tuple[Piece, ...]]) -> list[Instruction]:
        before = [pending[t.cu] for t in tiles]
        after = [self.pending(t) for t in tiles]
        for tile, pieces in zip(tiles, after, strict=True):
            pending[tile.cu] = pieces
        parts = tuple(Part(t.region, (("tile", (self.output(t),)), ("output", (self.pooled(t),)))) for t in tiles)
        return [PoolTile(parts, tuple(before), tuple(after))]

    def windows(self, tile: Tile) -> tuple[list[int], list[int]]:
        """Pooled rows that the tile completes, and those that it leaves open."""
        assert self.conv.pool
        window, (run,) = self.conv.pool.y, tile.region[1]
        first, last = run.start, run.start + run.count - 1
        taps = {o: window.touched(o, o) for o in range(window.out)}
        done = [o for o, t in taps.items() if t and first <= t[-1] <= last]
        return done, [o for o, t in taps.items() if t and t[0] <= last < t[-1]]

    # Words of the maps memory, for the largest tile: sums | residual | pending, old and new | input.

    def sums(self) -> int:
        return 2 * self.conv.rows * self.conv.x.out * self.conv.planes

    def output(self, tile: Tile) -> Piece:
        return laid(tile.cu, 0, tile.region)

    def accumulator(self, tile: Tile) -> Piece:
        return laid(tile.cu, 0, tile.region, 2)

    def residual(self, tile: Tile) -> Piece:
        return laid(tile.cu, self.sums(), tile.region)

    def pooled(self, tile: Tile) -> Piece:
        assert self.conv.pool
        n, _, _, g, k = tile.region
        return laid(tile.cu, 0, (n, runs(self.windows(tile)[0]), span(0, self.conv.pool.x.out), g, k))

    def pending(self, tile: Tile) -> tuple[Piece, ...]:
        assert self.conv.pool
        n, _, _, g, k = tile.region
        rows = self.windows(tile)[1]
        if not rows:
            return ()
        width = 1 if self.conv.pool.kind == "max" else 2
        region = (n, runs(rows), span(0, self.conv.pool.x.out), g, k)
        return (laid(tile.cu, 2 * self.sums(), region, width),)

    def input(self, tile: Tile, c: int, stop: int) -> Piece:
        n, y, _, g, _ = tile.region
        rows = runs(self.conv.y.touched(y[0].start, y[0].start + y[0].count - 1))
        columns = runs(self.conv.x.touched(0, self.conv.x.out - 1))
        return laid(tile.cu, 4 * self.sums(), (n, rows, columns, g, span(c, stop - c)))

    def weights(self, unit: int, region: Region, c: int, stop: int) -> tuple[Piece, int]:
        _, _, _, g, k = region
        taps = span(0, self.conv.y.kernel), span(0, self.conv.x.kernel)
        piece = laid(unit, 0, (g, k, *taps, span(c, stop - c)))
        return piece, piece.size

    def parameter(self, unit: int, region: Region, role: Role) -> Piece:
        top = self.conv.planes * self.conv.y.kernel * self.conv.x.kernel * self.conv.channels
        return laid(unit, top + (self.conv.planes if role == "slope" else 0), region[3:])


def laid(unit: int, base: int, region: Region, width: int = 1) -> Piece:
    """A region in dense order from a base address."""
    shape = tuple(extent(axis) for axis in region)
    return Piece((unit,), base, tuple(width * s for s in dense(shape)), region)


def data(conv: Conv, seed: int, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Random values of every operand but the output, multiples of 2**-8."""
    rng = np.random.default_rng(seed)
    return {
        role: (np.round(rng.normal(0, scale, shape) * 256) / 256).astype(np.float32)
        for role, shape in conv.shapes.items()
        if role != "output"
    }
