"""The text form of programs, and the arithmetic of regions and bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnc_runtime import Bytes, Counters, walk
from dnnc_runtime.addressing import boxes, window
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.program import (
    Activation,
    Host,
    Instruction,
    Load,
    Move,
    Placement,
    Pool,
    Program,
    Release,
    Section,
    Window,
)
from dnnc_runtime.regions import covers, partitions
from dnnc_runtime.tensor import Axis, Region, View, bursts, coordinates, runs, span
from runtime_tiler import Conv, dense, machine, program

SQUARE = Window(6, 6, 3, 1, 1, 1, 1)
POOL = Pool("average", Window(6, 3, 2, 2), Window(6, 3, 2, 2), True)
CONV = Conv(
    SQUARE, SQUARE, n=2, g=2, k=5, c=3, residual=True, activation=Activation("Clip", (0.1, float("inf"))), pool=POOL
)


def everything() -> Program:
    """A program with every kind of instruction (which need not run)."""
    made = program(CONV, machine())
    (section,) = made.sections
    load = next(x for x in section.instructions if isinstance(x, Load))
    packed = replace(load, packed=True)
    more = (packed, Move("input", "maps", "word", load.pieces, load.pieces), Release("maps", "word", load.pieces))
    host = Host("a node", "Softmax", ("", "input", "because"), ("out put",), 'no unit "for" it → host')
    return replace(
        made,
        sections=(replace(section, instructions=(*section.instructions, *more)), Section("h", None, (), (host,))),
        values=(*made.values, Placement("scalar", (), View("input", 0, (1,), (1,)))),
    )


def test_the_text_form_reads_back() -> None:
    made = everything()
    assert Program.parse(str(made)) == made
    assert str(Program.parse(str(made))) == str(made)


def test_a_listing_by_hand() -> None:
    (section,) = program(
        Conv(Window(2, 2), Window(1, 1), k=1, c=1, channels=1, bias=False), machine(cus=1, vmacs=1)
    ).sections
    made = replace(program(CONV, machine()), tensors=(), values=(), inputs=(), outputs=(), sections=(section,))
    assert str(made).split("spread = { cu")[-1].split("section ")[1].splitlines() == [
        "layer",
        "  kernel conv y 2>2:1/1*1+0+0 x 1>1:1/1*1+0+0",
        "  view input input @0 1,2,1,1,1 2,1,1,1,1",
        "  view weights weights @0 1,1,1,1,1 1,1,1,1,1",
        "  view output output @0 1,2,1,1,1 2,1,1,1,1",
        "  load input maps word 0+1:0+2:0+1:0+1:0+1 -> 0@64^2,1,1,1,1=0+1:0+2:0+1:0+1:0+1",
        "  load weights weights word 0+1:0+1:0+1:0+1:0+1 -> 0@0^1,1,1,1,1=0+1:0+1:0+1:0+1:0+1",
        "  compute 0..1 first last",
        "    part 0+1:0+2:0+1:0+1:0+1 input 0@64^2,1,1,1,1=0+1:0+2:0+1:0+1:0+1 "
        "weights 0@0^1,1,1,1,1=0+1:0+1:0+1:0+1:0+1 output 0@0^2,1,1,1,1=0+1:0+2:0+1:0+1:0+1",
        "  store output maps word 0@0^2,1,1,1,1=0+1:0+2:0+1:0+1:0+1 -> 0+1:0+2:0+1:0+1:0+1",
    ]


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ("dnnc program 1", "dnnc program 2", "line 1: .*another version"),
        ("section layer", "sektion layer", "expected one of tensor, value, input, output, section"),
        ("  compute", "  komputieren", "expected one of kernel, mode, view, kept, load"),
        ("load input maps word", "load entry maps word", "found 'entry', expected one of input, second"),
        ("load input maps word", "load input maps", "expected one of word, accumulator"),
        ("kernel conv", "kernel deconv", "found 'deconv', expected one of conv, pool"),
        ("pool average", "pool median", "found 'median', expected one of max, average"),
        ("0+1:0+2", "0+1:0;2", "line .* cannot be read"),
        ("tensor weights 270 constant", "tensor weights 270 variable", "'variable' is too much"),
    ],
)
def test_damaged_text_is_refused_with_its_line(find: str, put: str, words: str) -> None:
    text = str(program(CONV, machine()))
    assert find in text
    with pytest.raises(UsageFault, match=words):
        Program.parse(text.replace(find, put, 1))


@st.composite
def axes(draw: st.DrawFn, size: int) -> Axis:
    return runs(sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))))


def points(region: Region) -> set[tuple[int, ...]]:
    return set(product(*(coordinates(axis) for axis in region)))


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...] = (3, 5, 4)) -> Region:
    return tuple(draw(axes(size)) for size in shape)


@given(regions(), st.lists(regions(), max_size=4))
def test_covering_is_a_superset(need: Region, parts: list[Region]) -> None:
    held = {point for part in parts for point in points(part)}
    assert covers(parts, need) == (points(need) <= held)


@given(st.lists(regions((3, 4)), min_size=1, max_size=3), st.lists(regions((3, 4)), min_size=1, max_size=3))
def test_partitions_hold_every_element_once(wholes: list[Region], parts: list[Region]) -> None:
    sizes = [sum(len(points(r)) for r in some) for some in (wholes, parts)]
    sets = [{p for r in some for p in points(r)} for some in (wholes, parts)]
    assert partitions(wholes, parts) == (sets[0] == sets[1] and sizes == [len(sets[0]), len(sets[1])])


@given(regions(), st.integers(1, 4))
def test_cut_regions_partition_their_whole(whole: Region, size: int) -> None:
    listed = coordinates(whole[1])
    parts = [(whole[0], runs(listed[i : i + size]), whole[2]) for i in range(0, len(listed), size)]
    assert partitions([whole], parts)
    assert partitions(parts, [whole])
    assert not partitions([whole], [*parts, parts[0]])
    assert partitions([whole, parts[0]], [*parts, parts[0]], repeat=True)


@given(regions())
def test_boxes_pair_the_words_of_both_sides(region: Region) -> None:
    shape, dram = (3, 5, 4), np.arange(60)
    sizes = tuple(len(coordinates(axis)) for axis in region)
    chip = np.full(prod(sizes), -1)
    for counts, here, pitch, there, steps in boxes(region, 0, dense(sizes), 0, dense(shape)):
        window(chip, counts, here, pitch)[...] = window(dram, counts, there, steps)
    assert chip.tolist() == dram.reshape(shape)[np.ix_(*map(coordinates, region))].reshape(-1).tolist()


@st.composite
def intervals(draw: st.DrawFn, shape: tuple[int, ...] = (3, 5, 4)) -> Region:
    starts = [draw(st.integers(0, size - 1)) for size in shape]
    return tuple(span(start, draw(st.integers(1, size - start))) for start, size in zip(starts, shape, strict=True))


@given(intervals(), st.sampled_from([2, 4, 6]), st.sampled_from([(20, 4, 1), (24, 4, 1), (40, 8, 2)]))
def test_bursts_round_every_contiguous_run_up(region: Region, burst: int, strides: tuple[int, ...]) -> None:
    words = sorted(sum(c * s for c, s in zip(point, strides, strict=True)) for point in points(region))
    ends = [i for i, word in enumerate(words) if i + 1 == len(words) or words[i + 1] != word + 1]
    lengths = [end - start for start, end in pairwise([-1, *ends])]
    found = bursts(View("t", 0, (3, 5, 4), strides), region, 2, burst)
    assert found == sum(-(-2 * length // burst) for length in lengths)


def test_bytes_by_hand() -> None:
    """A 1x1 convolution of 4 rows of 3 columns, 5 channels to 7, two rows at a time: words of 2, bursts of 32 bytes.

    Input: 2 loads of 2 x 3 x 5 words, 60 bytes each (the rows are whole, so one run each): 2 bursts each. Weights:
    units hold 4 and 3 of 7 kernels, halves of them 2, 2, 2, 1: at every load 70 bytes, in runs of 20, 20, 20 and 10
    bytes; loaded twice. Output: 2 x 3 pixels of 4 and of 3 channels, no run longer: 24 runs, a burst each.
    """
    conv = Conv(Window(4, 4), Window(3, 3), k=7, c=5, bias=False, rows=2, planes=7, channels=5)
    made = program(conv, machine())
    counters = Counters(made)
    walk(made, [counters])
    counted = {(role, way): (b.payload, b.bus) for (_, role, way), b in counters.traffic.items()}
    assert counted == {
        ("input", "read"): (2 * 60, 4 * 32),
        ("weights", "read"): (2 * 70, 8 * 32),
        ("output", "write"): (4 * 3 * 7 * 2, 24 * 32),
    }
    made = replace(
        made, sections=(replace(made.sections[0], instructions=tuple(map(_packed, made.sections[0].instructions))),)
    )
    counters = Counters(made)
    walk(made, [counters])
    assert counters.traffic["layer", "weights", "read"] == Bytes(2 * 70, 8 * 32)


def _packed(instruction: Instruction) -> Instruction:
    return replace(instruction, packed=True) if isinstance(instruction, Load) else instruction
