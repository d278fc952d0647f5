"""How long the array and the vector units work on an instruction: valid taps only, and what keeps them from being full.

A unit is one of the level at which outputs are held. It goes over its rows of outputs, and for each over the valid
rows of taps: for every output column it takes in one trace, the valid taps x channels, rounded up to the channel
granularity and shared by the units that spread channels. It does so once for each pass over its planes. An instruction
takes as long as its slowest unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Compute, Part, PoolTile, Role, Section, Window
from dnnc_runtime.tensor import Axis, extent


@dataclass(frozen=True, slots=True)
class Work:
    """Cycles of one instruction, and what they are made of: the last four add up to ``cycles``.

    Attributes:
        cycles: of the slowest unit.
        useful: that all units together would take for the valid operations, every one of them busy.
        units: units that wait for the slowest one, having fewer rows or planes, or none.
        planes: passes that do not fill the units inside, for want of planes.
        traces: traces rounded up to the channel granularity.
    """

    cycles: int = 0
    useful: float = 0.0
    units: float = 0.0
    planes: float = 0.0
    traces: float = 0.0


class Durations:
    """The work of one section's instructions.

    Raises:
        UsageFault: the section names no mode of the machine.
    """

    def __init__(self, machine: Machine, section: Section) -> None:
        assert section.kernel is not None
        self._machine, self._kernel = machine, section.kernel
        mode = next((mode for mode in machine.modes if mode.name == section.mode), None)
        if mode is None:
            raise UsageFault(f"layer {section.name!r} names no mode of {machine.name}, so that it cannot be timed")
        counts = [level.count for level in machine.levels]
        at = machine.memory_of("output").level
        self._outer = prod(counts[: at + 1])

        def units(dim: str, first: int = 0) -> int:
            return prod(n for n, d in zip(counts[first:], mode.spread[first:], strict=True) if d == dim)

        *_, groups, planes = dict(section.views)["output"].shape
        # Where a group has fewer planes than the units that spread them, and none spread groups, they spread both.
        self._joint = groups > 1 and planes < units("k") and units("g") == 1
        self._planes, self._groups, self._lanes = units("k", at + 1), units("g", at + 1), units("c")
        self._rate = max(1, machine.pool_comparisons_per_cycle // counts[0])

    def compute(self, compute: Compute) -> Work:
        """Of a compute instruction."""
        if self._kernel.operation == "conv":
            return self._array(compute)
        return self._vector([(_taps_of(self._kernel.y, p) * _columns_of(self._kernel.x, p), p) for p in compute.parts])

    def pool(self, pool: PoolTile) -> Work:
        """Of a fused pool: one comparison for every row of a tile and window over it, and every valid column tap."""
        fused = self._kernel.pool
        assert fused is not None
        columns = sum(_valid(fused.x))
        compared: list[tuple[int, Part]] = []
        for part, after in zip(pool.parts, pool.after, strict=True):
            done = dict(part.operands).get("output", ())
            windows = {row for piece in (*done, *after) for row in _points(piece.region[1])}
            tile = set(_points(part.region[1]))
            reads = sum(len(tile.intersection(fused.y.touched(w, w))) for w in windows)
            compared.append((reads * columns, part))
        return self._vector(compared)

    def _array(self, compute: Compute) -> Work:
        kernel, channels = self._kernel, compute.reduce[1] - compute.reduce[0]
        held: dict[int, list[Part]] = {}
        for part in compute.parts:
            held.setdefault(_unit(part), []).append(part)
        cycles: list[tuple[int, float]] = []
        macs = 0
        for parts in held.values():
            rows, (trace, taps) = _taps_of(kernel.y, parts[0]), self._trace(parts[0].region[2], channels)
            boxes = [(extent(p.region[3]), extent(p.region[4])) for p in parts]
            planes = sum(g * k for g, k in boxes)
            passes = self._passes(boxes)
            images = extent(parts[0].region[0])
            cycles.append((images * rows * trace * passes, planes / (passes * self._planes * self._groups)))
            macs += images * rows * taps * channels * planes
        longest = max((each for each, _ in cycles), default=0)
        useful = macs / self._machine.macs_per_cycle
        busy = sum(each for each, _ in cycles) / self._outer
        filled = sum(each * share for each, share in cycles) / self._outer
        return Work(longest, useful, longest - busy, busy - filled, filled - useful)

    def _passes(self, boxes: list[tuple[int, int]]) -> int:
        if self._joint:
            return -(-sum(g * k for g, k in boxes) // self._planes)
        return sum(-(-g // self._groups) * -(-k // self._planes) for g, k in boxes)

    def _trace(self, columns: Axis, channels: int) -> tuple[int, int]:
        """(cycles, valid taps) of one row of outputs and one row of taps."""
        return _traces(self._kernel.x, columns, channels, self._machine.channel_granularity, self._lanes)

    def _vector(self, compared: list[tuple[int, Part]]) -> Work:
        """Comparisons (or operations) of a plane of every part, at the unit's share of the machine's rate."""
        held: dict[int, int] = {}
        for count, part in compared:
            n, _, _, g, k = part.region
            unit = _unit(part)
            held[unit] = held.get(unit, 0) + count * extent(n) * extent(g) * extent(k)
        longest = -(-max(held.values(), default=0) // self._rate)
        useful = sum(held.values()) / (self._rate * self._machine.levels[0].count)
        return Work(longest, useful, longest - useful, 0.0, 0.0)


_HELD: tuple[Role, ...] = ("output", "tile", "accumulator")


def _unit(part: Part) -> int:
    """The unit that a part runs in."""
    return next(pieces[0].instances[0] for role, pieces in part.operands if role in _HELD and pieces)


def _points(axis: Axis) -> list[int]:
    return [point for run in axis for point in run.coordinates()]


@lru_cache(maxsize=1024)
def _valid(window: Window) -> tuple[int, ...]:
    """Taps of every output that are not padding."""
    return tuple(
        sum(0 <= o * window.stride + t * window.dilation - window.pad < window.size for t in range(window.kernel))
        for o in range(window.out)
    )


@lru_cache(maxsize=1024)
def _sums(window: Window) -> tuple[int, ...]:
    return (0, *accumulate(_valid(window)))


def _taps(window: Window, axis: Axis) -> int:
    """Valid taps of some outputs."""
    sums = _sums(window)
    if len(axis) == 1 and axis[0].step == 1:
        return sums[axis[0].start + axis[0].count] - sums[axis[0].start]
    return sum(_valid(window)[point] for point in _points(axis))


def _taps_of(window: Window, part: Part) -> int:
    return _taps(window, part.region[1])


def _columns_of(window: Window, part: Part) -> int:
    return _taps(window, part.region[2])


@lru_cache(maxsize=1 << 14)
def _traces(window: Window, columns: Axis, channels: int, grain: int, lanes: int) -> tuple[int, int]:
    valid = [_valid(window)[point] for point in _points(columns)]
    return sum(-(-(-(-taps * channels // grain) * grain) // lanes) for taps in valid), sum(valid)
