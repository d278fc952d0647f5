"""Weights of a group that is run by strips: what of them stays on chip, and what comes again with every strip.

Kernels are loaded in tiles of whole *granules*: as many planes as a mode deals out at once. The first tiles of a layer
may stay for the whole group; the others are loaded again for every strip. Parameters (biases and such) always stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from dnnc.chip import Chip
from dnnc.layer import Shape
from dnnc.schedule import Deal
from dnnc.tables import valid_taps
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Role, Window

PARAMETERS: tuple[Role, ...] = ("bias", "scale", "slope")


@dataclass(frozen=True, slots=True)
class Grain:
    """How a step's kernels are cut, in one mode.

    Attributes:
        deal: the mode.
        along: whether planes or groups of planes are cut.
        planes: planes (or groups) of a granule; ``total``: of the layer.
        channels: input channels at once: all, unless a granule of them does not fit.
        bytes: of a granule with all channels, in the memory of a unit that holds most of it; ``tile``: with
            ``channels`` of them.
        each: bytes in DRAM of one plane (or group).
        parameters: bytes of all parameters in one unit's memory; ``once``: in DRAM.
        passes: output planes of a granule.
    """

    deal: Deal
    along: str
    planes: int
    total: int
    channels: int
    bytes: int
    tile: int
    each: int
    parameters: int
    once: int
    passing: int

    @property
    def granules(self) -> int:
        """Granules of the layer, the last of which may be smaller."""
        return -(-self.total // self.planes)

    @property
    def whole_planes(self) -> bool:
        """Whether planes are cut alone: a tile has all input channels."""
        return self.along == "k" and self.tile == self.bytes > 0

    @property
    def whole(self) -> int:
        """Bytes of all kernels in DRAM."""
        return self.total * self.each


@lru_cache(maxsize=4096)
def grain(shape: Shape, chip: Chip) -> Grain | None:
    """How a layer's kernels are cut when it is run by rows; None if no mode can.

    In the mode with the smallest granule, so that most stays, of those that are not much slower than the fastest.
    """
    found = [made for deal in chip.deals(shape) if (made := _grain(shape, deal, chip.machine)) is not None]
    times = [cycles(shape, made, chip, ((0, shape.y.out),), (0, shape.x.out)) for made in found]
    quick = [(made.tile, time, made) for made, time in zip(found, times, strict=True) if time <= SLOWER * min(times)]
    return min(quick, key=lambda choice: choice[:2], default=(0, 0, None))[2]


def _grain(shape: Shape, deal: Deal, machine: Machine) -> Grain | None:
    word = machine.word_bytes
    home = machine.memory_of("parameters")
    parameters = shape.parameters * int(deal.held_planes(shape.g, shape.k, home.level)) * word
    once = shape.parameters * shape.g * shape.k * word
    if shape.kind == "vector":
        return Grain(deal, "k", shape.k, shape.k, 1, 0, 0, 0, parameters, once, shape.k)
    memory = machine.memory_of("weights")
    taps = shape.y.kernel * shape.x.kernel
    sizes = deal.granules(shape, machine)
    if shape.g > 1:
        along, planes, total, each = "g", sizes["g"], shape.g, shape.k * shape.c * taps * word
        held = int(deal.held_planes(planes, shape.k, memory.level))
    else:
        along, planes, total, each = "k", sizes["k"], shape.k, shape.c * taps * word
        held = int(deal.held_planes(1, planes, memory.level))
    room = memory.bytes - (parameters if home.name == memory.name else 0)
    per_channel = held * taps * word
    channels = shape.c
    if per_channel * channels > room:
        channels = room // per_channel // sizes["c"] * sizes["c"]
        if channels < 1:
            return None
    outputs = planes if along == "k" else planes * shape.k
    whole = per_channel * shape.c
    return Grain(deal, along, planes, total, channels, whole, per_channel * channels, each, parameters, once, outputs)


def cycles(
    shape: Shape, cut: Grain, chip: Chip, blocks: Sequence[tuple[int, int]], across: tuple[int, int]
) -> int:  # fmt: skip
    """Cycles of the array (or the vector unit) for some rows of a layer: those of the unit with most to do.

    Args:
        blocks: (first, stop) rows of every unit; ``across``: columns.
    """
    machine = chip.machine
    if shape.kind == "vector":
        rate = max(1, machine.pool_comparisons_per_cycle // machine.levels[0].count)
        columns = _taps(shape.x, *across)
        return max(-(-_taps(shape.y, *block) * columns * shape.k // rate) for block in blocks)
    trace = sum(
        -(-(-(-taps * shape.c // machine.channel_granularity) * machine.channel_granularity) // cut.deal.lanes)
        for taps in valid_taps(shape.x)[slice(*across)]
    )
    passes = int(cut.deal.passes(shape.g, shape.k))
    return max(_taps(shape.y, *block) * trace * passes for block in blocks)


def _taps(window: Window, first: int, stop: int) -> int:
    return sum(valid_taps(window)[first:stop])


@dataclass(frozen=True, slots=True)
class Holding:
    """What of a group's kernels stays.

    Attributes:
        first: for every step the first with the same kernels and parameters, at whose place they are: mostly itself.
        pinned: for every step the planes (or groups) that stay.
        buffers: tiles at once of what is loaded again: two where they are small, so that loads hide.
        stream: bytes of one such tile in a unit's memory.
        maps: bytes of kernels and parameters in a unit's memory for feature maps, where they lie there.
    """

    first: tuple[int, ...]
    pinned: tuple[int, ...]
    buffers: int
    stream: int
    maps: int


SLOWER = 1.25
"""How much slower than the fastest a mode may be if its granules are smaller."""

SMALL = 8
"""A tile is small if so many of them fit the memory."""


def hold(grains: Sequence[Grain], first: Sequence[int], machine: Machine) -> Holding | None:
    """Keeps as many bytes of kernels as fit beside a buffer for the rest; None where not even that fits.

    Args:
        grains: of every step; ``first``: see :class:`Holding`.

    A buffer has to take the largest granule of the layers that are not kept whole. So for every choice of which
    granules are too large to be buffered, those layers are kept whole, and the others as far as there is room.
    """
    maps, weights, parameters = (machine.memory_of(role) for role in ("output", "weights", "parameters"))
    # Those that most steps use come first.
    own = sorted({*first}, key=lambda step: (-first.count(step), step))
    cuts = [grains[step] for step in own]
    fixed = sum(cut.parameters for cut in cuts)
    # In a memory that also holds feature maps no kernels are kept: rows are worth more there.
    shared = weights.name == maps.name
    room = weights.bytes - (fixed if parameters.name == weights.name else 0)
    best: tuple[int, Holding] | None = None
    for limit in sorted({0, *(cut.tile for cut in cuts)}):
        whole = [cut.tile > limit for cut in cuts]
        buffers = 2 if SMALL * limit <= weights.bytes else 1
        left = room - limit * buffers - sum(c.bytes * c.granules for c, w in zip(cuts, whole, strict=True) if w)
        impossible = any(w and (shared or c.tile < c.bytes) for c, w in zip(cuts, whole, strict=True))
        if left < 0 or impossible:
            continue
        pinned: list[int] = []
        for cut, all_of_it in zip(cuts, whole, strict=True):
            count = cut.granules if all_of_it else 0
            if not (all_of_it or shared) and cut.tile == cut.bytes > 0:
                count = min(cut.granules, left // cut.bytes)
                left -= count * cut.bytes
            pinned.append(min(cut.total, count * cut.planes))
        saved = sum(n * cut.each * first.count(step) for n, cut, step in zip(pinned, cuts, own, strict=True))
        here = (limit * buffers if shared else 0) + (fixed if parameters.name == maps.name else 0)
        if best is None or saved > best[0]:
            stay = dict(zip(own, pinned, strict=True))
            best = saved, Holding(tuple(first), tuple(stay[step] for step in first), buffers, limit, here)
    return best[1] if best else None


def constant_bytes(shape: Shape, machine: Machine) -> int:
    """Bytes of a layer's kernels and parameters."""
    return weights_bytes(shape, machine) + shape.parameters * shape.g * shape.k * machine.word_bytes


def weights_bytes(shape: Shape, machine: Machine) -> int:
    """Bytes of a layer's kernels."""
    if shape.kind == "vector":
        return 0
    return prod((shape.g, shape.k, shape.c, shape.y.kernel, shape.x.kernel)) * machine.word_bytes
