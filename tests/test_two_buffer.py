"""ResNet-50 of the onnx package on the plain model of the tiling literature, against what others find there.

Convolutions and the linear layer alone: biases, pools and additions apart, rows and columns kept as two axes. An
independent exhaustive search gives the figures: single buffers, tiles of one size with a ragged last one, sums of 32
bits, halos kept, nothing pinned, all 24 orders of y, x, k and c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from pathlib import Path
from random import Random

import onnx.backend.test
import pytest

from dnnc import onnx_import
from dnnc.axis import Cut
from dnnc.enumerate import best
from dnnc.layer import Layer, Shape
from dnnc.lower import lower
from dnnc.schedule import Pin, Schedule
from dnnc.simplify import simplify
from dnnc.space import ANYTHING, Limits, Space
from dnnc.traffic import compulsory
from dnnc_runtime import machine
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window
from literal import Walk

TWO_BUFFER = machine.load("two-buffer")

LITERATURE = Limits(style="uniform", keep=True, buffers=(1, 1, 1), pin=False)
"""What the independent search looks at."""

FIGURES = {(512, 256): 92_457_296, (128, 64): 103_643_728, (64, 32): 124_085_072}
"""(KiB of maps, KiB of weights): bytes. The first is compulsory: 25,502,912 weights and 20,725,736 words of maps."""


def sized(maps: int, weights: int) -> Machine:
    """two-buffer with memories of so many bytes."""
    return TWO_BUFFER.with_memory("maps", maps).with_memory("weights", weights)


@pytest.fixture(scope="module")
def shapes() -> Counter[Shape]:
    """The layers of the network that multiply, each with how often it occurs."""
    path = Path(onnx.backend.test.__file__).parent / "data" / "light" / "light_resnet50.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dnnc.lower.merge_pixels", lambda layer: layer)  # pyright: ignore[reportUnknownLambdaType]
        made = lower(simplify(onnx_import.load(path)), TWO_BUFFER, lambda _, kind: kind != "residual")
    layers = [layer.shape for layer in made.layers if isinstance(layer, Layer) and layer.shape.kind == "array"]
    return Counter(replace(shape, parameters=0, residual=False, dense=()) for shape in layers)


def fewest(shape: Shape, target: Machine, limits: Limits = ANYTHING) -> int:
    found = best(Space(shape, target, limits))
    assert found
    return found.bytes


def test_the_layers_are_those_of_the_network(shapes: Counter[Shape]) -> None:
    assert shapes.total() == 54
    # The stride of a stage is in its first 3x3, and in the 1x1 beside it.
    assert {(shape.y.kernel, shape.y.stride) for shape in shapes} == {(7, 2), (3, 1), (3, 2), (1, 1), (1, 2)}
    assert sum(compulsory(shape, TWO_BUFFER) * count for shape, count in shapes.items()) == FIGURES[512, 256]


@pytest.mark.parametrize("sizes", FIGURES)
def test_the_search_equals_an_independent_one_and_is_not_higher_without_its_restrictions(
    shapes: Counter[Shape], sizes: tuple[int, int]
) -> None:
    target = sized(*(size << 10 for size in sizes))
    restricted = sum(fewest(shape, target, LITERATURE) * count for shape, count in shapes.items())
    assert restricted == FIGURES[sizes]
    assert sum(fewest(shape, target) * count for shape, count in shapes.items()) <= restricted


# -- why it is enough to look at one tile size for each number of tiles -----------------------------------------------
#
# A tile of k or c is the smallest multiple of the granule that gives its number of tiles, and so is a tile of rows
# without a window. The bytes depend on such a loop through its trips alone, so a larger tile with as many trips moves
# the same and holds no less in any memory: whatever fits with it fits with the smallest. Rows under a window, whose
# halo depends on where they are cut, are looked at in every size.


@cache
def small_cases(count: int = 24) -> tuple[tuple[Shape, Machine], ...]:
    """Random layers of a few rows and planes, with memories that hold most of them in parts."""
    random = Random(0)

    def axis(largest: int) -> Window:
        size, kernel, stride = random.randint(2, largest), random.choice((1, 1, 2, 3)), random.choice((1, 1, 2))
        pad = random.randint(0, kernel - 1)
        size = max(size, kernel)
        return Window(size, (size + pad - kernel) // stride + 1, kernel, stride, 1, pad, 0)

    return tuple(
        (
            Shape("array", 1, 1, random.randint(1, 4), random.randint(1, 3), axis(5), axis(2)),
            sized(2 * random.randint(6, 18), 2 * random.randint(3, 12)),
        )
        for _ in range(count)
    )


def uniform(out: int) -> Iterator[Cut]:
    for size in range(1, out + 1):
        yield Cut("uniform", size, (tuple((first, min(first + size, out)) for first in range(0, out, size)),))


def literature(shape: Shape) -> Iterator[Schedule]:
    """Every schedule of the independent search: any tile size of any axis, in any order."""
    sizes = uniform(shape.y.out), uniform(shape.x.out), range(1, shape.k + 1), range(1, shape.c + 1)
    for y, x, k, c in product(*sizes):
        whole = Schedule("single", y, x, k, c, 1, ())
        for order in permutations([d for d, trips in whole.trips(shape).items() if trips > 1]):
            yield replace(whole, order=order)


def literal_minimum(shape: Shape, target: Machine) -> int | None:
    """The fewest bytes of all those schedules, loop by loop and element by element."""
    fitting = [
        sum(map(sum, walk.traffic().values()))
        for walk in (Walk(shape, target, schedule) for schedule in literature(shape))
        if all(used <= target.memory(name).bytes for name, used in walk.memory().items())
    ]
    return min(fitting, default=None)


def test_no_tile_size_is_overlooked() -> None:
    split = 0
    for shape, target in small_cases():
        found = best(Space(shape, target, LITERATURE))
        wanted = literal_minimum(shape, target)
        assert (found.bytes if found else None) == wanted, (shape, target.memories)
        split += wanted is not None and wanted > compulsory(shape, target)
    assert split >= 8


def test_no_size_of_planes_is_overlooked_where_tiles_are_pinned() -> None:
    pinned = 0
    for shape, target in small_cases():
        found = best(Space(shape, target))
        for k, c in product(range(1, shape.k + 1), range(1, shape.c + 1)):
            other = best(Space(shape, target, Limits(sizes=(("k", k), ("c", c)))))
            assert other is None or (found and found.bytes <= other.bytes), (shape, target.memories, k, c)
            pinned += other is not None and isinstance(other.schedule.pin, Pin)
    assert pinned >= 10
