"""Schedules worked out by hand on Snowflake, one for each of its modes, and its published AlexNet schedule.

Snowflake: 4 CUs with 64 KiB of maps each, 4 vMACs of 32 KiB of weights in each CU, 16 lanes; words of 2 bytes.
AlexNet is AlexNetOWT: convolutions of 64, 192, 384, 256, 256 planes, input 224, first layer 11x11 stride 4 pad 2.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from dnnc.axis import cuts, footprint_cut, uniform_cut
from dnnc.enumerate import best
from dnnc.layer import Layer, Operand, Shape
from dnnc.schedule import Schedule
from dnnc.search import Figures, figures, optimize
from dnnc.space import Limits, Space
from dnnc.traffic import compulsory
from dnnc_runtime import machine as machines_file
from dnnc_runtime.program import Kernel, Pool, Role, Window
from one_layer import counted, extents, located, program, strided

SNOWFLAKE = machines_file.load("snowflake")


def kib(*figures: str | int) -> int:
    """Bytes of a sum of KiB, exactly."""
    size = sum(map(Fraction, figures)) * 1024
    assert size.denominator == 1
    return int(size)


def convolution(c: int, k: int, size: int, kernel: int, stride: int = 1, pad: int = 0, pooled: int = 0) -> Layer:
    """A square convolution with bias, with a 3x3/2 max-pool behind it where ``pooled`` rows are stored."""
    out = (size + 2 * pad - kernel) // stride + 1
    axis = Window(size, out, kernel, stride, 1, pad, pad)
    pool = Pool("max", Window(out, pooled, 3, 2), Window(out, pooled, 3, 2)) if pooled else None
    shape = Shape("array", 1, 1, k, c, axis, axis, 1, pool=pool)
    roles: tuple[Role, ...] = ("input", "weights", "bias", "output")
    operands = tuple(Operand(role, role, strided(role, extents(shape)[role])) for role in roles)
    return located(shape, Kernel("conv", axis, axis, pool=pool), operands)


def checked(layer: Layer, schedule: Schedule) -> Figures:
    """The schedule's figures, which its program confirms."""
    found = figures(layer.shape, SNOWFLAKE, schedule)
    payload, bus = counted(program(layer, SNOWFLAKE, schedule))
    assert {role: pair for role, pair in found.traffic.items() if any(pair)} == payload
    assert {role: pair for role, pair in found.bus.items() if any(pair)} == bus
    return found


# -- one schedule for each mode --------------------------------------------------------------------------------------

THIRD = convolution(192, 384, 13, 3, pad=1)
ROW = 13 * 192 * 2
"""Bytes of one input row: 13 pixels of 192 channels, 4,992."""
KERNELS = 384 * 192 * 9 * 2
"""Bytes of all kernels of layer 3: 1,327,104."""


def test_cooperative_maps_outer_kernels_streamed() -> None:
    """Layer 3, row tiles of 5, 4, 4 outputs that touch 6, 6, 5 rows, 64 kernels a tile, next ones loaded meanwhile.

    Memory: each CU holds the same 6 rows of maps, 6 x 4,992 = 29,952 B, and of 64 planes its 16: 5 x 13 x 16 x 2 =
    2,080 B. Each vMAC holds 4 of 64 kernels of 192 x 9 x 2 = 3,456 B, twice: 27,648 B. The 384 biases lie there too,
    24 a vMAC: 48 B.
    Traffic: the kernels come once for each row tile, 3 x 1,327,104. Tiles share rows 4, 5 and 8, 9: maps are 13 rows
    and 4 more, 64,896 + 4 x 4,992. Outputs are stored once, 13 x 13 x 384 x 2 = 129,792.
    Cycles: 13 outputs of 3 taps have 37 valid taps an axis; a pixel's 192 channels are 12 traces of 16, and 384 planes
    24 passes of 16: 37 x 37 x 12 x 24 = 394,272.
    """
    cut = next(c for c in cuts(THIRD.shape.y, 1, "footprint") if c.steps == 3)
    whole = footprint_cut(THIRD.shape.x, 1, 13)
    schedule = Schedule("cooperative", cut, whole, 64, 192, 1, ("y", "k"), keep=False, buffers=(1, 2, 1))
    found = checked(THIRD, schedule)
    assert list(cut.tiles[0]) == [(0, 5), (5, 9), (9, 13)]
    assert found.residents == {"input": 29_952, "output": 2_080, "weights": 27_648, "parameters": 48}
    assert found.memory == {"maps": 29_952 + 2_080, "weights": 27_648 + 48}
    assert found.traffic["weights"] == (3 * 1_327_104, 0)
    assert found.traffic["input"] == (64_896 + 4 * 4_992, 0)
    assert found.traffic["output"] == (0, 129_792)
    assert found.compute_cycles == 394_272


def test_independent_a_block_of_rows_for_each_cu() -> None:
    """Layer 1, blocks of 14, 14, 14, 13 output rows; inside them four rows a tile, halos kept; all 64 kernels stay.

    Memory: four rows touch 3 x 4 + 11 = 23 rows of 224 x 3 x 2 = 1,344 B, 30,912 B, in a ring, and make
    4 x 55 x 64 x 2 = 28,160 B: 59,072 of 65,536. Each vMAC holds 16 kernels of 363 x 2 = 726 B and 16 biases.
    Traffic: the blocks touch rows 0-60, 54-116, 110-172, 166-223: 61 + 63 + 63 + 58 = 245, 21 more than there are, so
    (224 + 21) x 1,344 = 294 + 27.5625 KiB. Kernels are the same in all CUs, one broadcast: 64 x 726 = 45.375 KiB (the
    published 181.5 are four individual loads). Outputs: 55 x 55 x 64 x 2 = 378.125 KiB.
    """
    layer = convolution(3, 64, 224, 11, 4, 2)
    rows, columns = uniform_cut(layer.shape.y, 4, 4), footprint_cut(layer.shape.x, 1, 224)
    found = checked(layer, Schedule("independent", rows, columns, 64, 3, 1, ("y",)))
    assert [block[0][0] for block in rows.tiles] == [0, 14, 28, 42]
    assert rows.tiles[3] == ((42, 46), (46, 50), (50, 54), (54, 55))
    assert found.memory == {"maps": 59_072, "weights": 16 * 726 + 16 * 2}
    assert found.traffic["input"] == (245 * 1_344, 0) == (kib(294, "27.5625"), 0)
    assert found.traffic["weights"] == (kib("45.375"), 0)
    assert found.traffic["output"] == (0, kib("378.125"))


@pytest.mark.parametrize("move", [False, True])
def test_combined_every_cu_its_rows_and_the_same_kernels(move: bool) -> None:
    """Layer 3, blocks of 4, 4, 4, 1 rows, one step; 16 kernels a tile, next ones loaded meanwhile.

    Memory: the blocks touch rows 0-4, 3-8, 7-12, 11-12; a CU holds at most 6 rows, 29,952 B, and of 16 planes all,
    4 x 13 x 16 x 2 = 1,664 B. Each vMAC holds 4 kernels, twice: 27,648 B, and 96 of the biases: 192 B.
    Traffic: maps are 5 + 6 + 6 + 2 = 19 rows if each CU loads its own, 13 where the six rows that two CUs need are
    loaded once and sent. Kernels are broadcast, once; outputs stored once.
    Cycles: the slowest CU has rows 4-7 (or 8-11), 12 valid row taps; 37 column taps, 12 traces, 96 passes of 4 planes.
    """
    cut, whole = footprint_cut(THIRD.shape.y, 4, 6), footprint_cut(THIRD.shape.x, 1, 13)
    schedule = Schedule("combined", cut, whole, 16, 192, 1, ("k",), move=move, buffers=(1, 2, 1))
    found = checked(THIRD, schedule)
    assert cut.tiles == (((0, 4),), ((4, 8),), ((8, 12),), ((12, 13),))
    assert found.memory == {"maps": 29_952 + 1_664, "weights": 27_648 + 192}
    assert found.traffic["input"] == ((13 if move else 19) * ROW, 0)
    assert found.traffic["weights"] == (KERNELS, 0)
    assert found.traffic["output"] == (0, 129_792)
    assert found.compute_cycles == 12 * 37 * 12 * 96
    if move:
        assert found.dram_bytes == compulsory(THIRD.shape, SNOWFLAKE)


# -- the published schedule ------------------------------------------------------------------------------------------

PUBLISHED = {
    # layer: (layer, weights x times, input + halo read twice + output, published maps traffic), in KiB
    2: (convolution(64, 192, 27, 5, pad=2, pooled=13), 600 * 3, ("91.125", "27", "63.375"), "181.5"),
    3: (THIRD, 1296 * 3, ("63.375", "19.5", "126.75"), "209.6"),
    4: (convolution(384, 256, 13, 3, pad=1), 1728 * 3, ("126.75", "39", "84.5"), "250.3"),
    5: (convolution(256, 256, 13, 3, pad=1, pooled=6), 1152 * 3, ("84.5", "26", "18"), "128.5"),
}
MAPS_STATIONARY = Limits(
    modes=("cooperative",), order=("y", "k"), counts=(("y", 3),), keep=False, buffers=(1, 2, 1), pin=False
)
"""Three row tiles outer, the whole kernel set streamed once for each; halos read again, maps single-buffered."""

FIRST = Limits(modes=("independent",), order=("y",), sizes=(("y", 4),), keep=True, move=False, buffers=(1, 1, 1))
"""A block of rows for each CU, four rows a tile inside it; halos kept between tiles, read again between units."""


@pytest.mark.parametrize("number", PUBLISHED)
def test_the_published_layers_2_to_5_to_the_byte(number: int) -> None:
    """Layer 2: tiles of 10, 8, 9 rows touch 12 + 12 + 11 of 27 rows; layers 3 to 5: 5, 4, 4 touch 6 + 6 + 5 of 13."""
    layer, weights, maps, published = PUBLISHED[number]
    found = best(Space(layer.shape, SNOWFLAKE, MAPS_STATIONARY))
    assert found is not None
    moved = checked(layer, found.schedule)
    read, halo, written = maps
    assert moved.traffic["weights"] == (kib(weights), 0)
    assert moved.traffic["input"] == (kib(read, halo), 0)
    assert moved.traffic["output"] == (0, kib(written))
    assert abs(sum(map(Fraction, maps)) - Fraction(published)) <= Fraction("0.05")
    assert moved.memory["maps"] <= 61_984


def test_the_published_layer_1_to_the_byte() -> None:
    """Pool not fused; published: 294 + 27.56 + 378.1 = 699.7 KiB of maps, and 181.5 = 4 x 45.375 of weights."""
    layer = convolution(3, 64, 224, 11, 4, 2)
    found = best(Space(layer.shape, SNOWFLAKE, FIRST))
    assert found is not None
    moved = checked(layer, found.schedule)
    assert moved.traffic["input"][0] + moved.traffic["output"][1] == kib(294, "27.5625", "378.125")
    assert moved.traffic["weights"] == (kib("45.375"), 0)
    assert moved.memory["maps"] == 59_072


def test_all_that_was_published_is_15979_kib() -> None:
    first = 294 + Fraction("27.5625") + Fraction("378.125") + 4 * Fraction("45.375")
    rest = sum(weights + sum(map(Fraction, maps)) for _, weights, maps, _ in PUBLISHED.values())
    assert round(first + rest) == 15_979


def test_free_search_needs_what_is_compulsory_and_little_more_without_moves() -> None:
    """Compulsory, in KiB: 294 + 45.375 + 91.125 (27 x 27 pooled), 91.125 + 600 + 63.375, 63.375 + 1296 + 126.75,
    126.75 + 1728 + 84.5, 84.5 + 1152 + 18: 5,864.875 in all, biases apart."""
    layers = [convolution(3, 64, 224, 11, 4, 2, pooled=27), *(layer for layer, *_ in PUBLISHED.values())]
    free, still = (
        [figures(la.shape, SNOWFLAKE, optimize(la.shape, SNOWFLAKE, limits).schedule) for la in layers]
        for limits in (Limits(), Limits(move=False))
    )
    for layer, found in zip(layers, free, strict=True):
        assert found.dram_bytes == compulsory(layer.shape, SNOWFLAKE)
    assert _without_biases(free) == kib("5864.875")
    assert _without_biases(free) < _without_biases(still) <= kib("6002.875")


def _without_biases(found: list[Figures]) -> int:
    return sum(f.dram_bytes - f.traffic["bias"][0] for f in found)
