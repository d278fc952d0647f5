"""How an axis, cut in tiles, touches its input: the one set-based account that everything else reads.

Coordinate sets are bit masks in Python integers: bit i is row (or column) i. A cut deals the axis out to
units in contiguous blocks and cuts every block, in step, into tiles; a table then says, for each unit and
step, which input rows are needed, loaded, kept from the tile before, or received from a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from dnnc_runtime.program import Window

Style = Literal["footprint", "uniform"]
Tile = tuple[int, int]
"""Output coordinates [first, stop)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis cut in tiles: ``tiles[u][i]`` are the outputs of unit u in step i (a short block has fewer).

    ``size`` is the footprint (input rows a tile may touch) or the uniform tile size (outputs) that made it.
    """

    style: Style
    size: int
    tiles: tuple[tuple[Tile, ...], ...]

    @property
    def steps(self) -> int:
        """Steps in which the units go through their blocks: the longest block's tiles."""
        return max(len(block) for block in self.tiles)

    @property
    def largest(self) -> int:
        """Outputs of the largest tile."""
        return max(stop - first for block in self.tiles for first, stop in block)


def pointwise(window: Window) -> bool:
    """Whether every output touches just the input coordinate of its own number."""
    return (window.kernel, window.stride, window.pad, window.size) == (1, 1, 0, window.out)


@lru_cache(maxsize=65536)
def touched(window: Window, first: int, stop: int) -> int:
    """Mask of the input coordinates that the outputs [first, stop) touch; padding is not among them."""
    if pointwise(window):
        return ((1 << stop - first) - 1) << first
    mask = 0
    for o in range(first, stop):
        for t in range(window.kernel):
            i = o * window.stride + t * window.dilation - window.pad
            if 0 <= i < window.size:
                mask |= 1 << i
    return mask


@lru_cache(maxsize=1024)
def readers(window: Window) -> dict[int, tuple[int, int]]:
    """For every input coordinate that is touched, the first and the last output that touches it."""
    found: dict[int, tuple[int, int]] = {}
    for o in range(window.out):
        for i in rows(touched(window, o, o + 1)):
            found[i] = found.get(i, (o, o))[0], o
    return found


@lru_cache(maxsize=4096)
def touched_by_any(windows: tuple[Window, ...]) -> int:
    """Mask of the input coordinates that all outputs of some windows over one axis touch together."""
    mask = 0
    for window in windows:
        mask |= touched(window, 0, window.out)
    return mask


def rows(mask: int) -> list[int]:
    """The coordinates of a mask, in order."""
    return [i for i, bit in enumerate(bin(mask)[:1:-1]) if bit == "1"]


def run_lengths(mask: int) -> list[int]:
    """Lengths of the maximal runs of consecutive coordinates of a mask."""
    lengths: list[int] = []
    while mask:
        mask >>= (mask & -mask).bit_length() - 1
        ones = (~mask & (mask + 1)).bit_length() - 1
        lengths.append(ones)
        mask >>= ones
    return lengths


def blocks(out: int, units: int) -> tuple[Tile, ...]:
    """Contiguous blocks of ceil(out / units) outputs, one a unit; the last ones may be short or empty."""
    size = -(-out // units)
    return tuple((min(u * size, out), min((u + 1) * size, out)) for u in range(units))


@lru_cache(maxsize=1024)
def cuts(window: Window, units: int, style: Style) -> tuple[Cut, ...]:
    """The distinct cuts of an axis, fewest tiles first.

    ``footprint``: for each number of tiles the smallest footprint that needs no more; every tile is the longest
    run of outputs that touches at most so many input coordinates. ``uniform``: every tile size.
    """
    made = blocks(window.out, units)
    if pointwise(window):
        return tuple(_even_cut(made, style, size) for size in _even_sizes(-(-window.out // units)))
    by_tiles: dict[tuple[tuple[Tile, ...], ...], Cut] = {}
    if style == "uniform":
        for size in range(-(-window.out // units), 0, -1):
            tiles = tuple(tuple(_uniform(block, size)) for block in made)
            by_tiles.setdefault(tiles, Cut("uniform", size, tiles))
        return tuple(by_tiles.values())
    smallest = max(touched(window, o, o + 1).bit_count() for o in range(window.out))
    largest = max(touched(window, *block).bit_count() for block in made)
    best: dict[int, Cut] = {}
    for size in range(largest, smallest - 1, -1):
        cut = footprint_cut(window, units, size)
        best[cut.steps] = cut
    return tuple(best[steps] for steps in sorted(best))


def _even_sizes(longest: int) -> list[int]:
    """For each number of tiles the smallest size that needs no more."""
    return sorted({-(-longest // n) for n in range(1, longest + 1)}, reverse=True)


def uniform_cut(window: Window, units: int, size: int) -> Cut:
    """The cut whose tiles have ``size`` outputs, a block's last one perhaps fewer."""
    return _even_cut(blocks(window.out, units), "uniform", size)


def _even_cut(made: tuple[Tile, ...], style: Style, size: int) -> Cut:
    return Cut(style, size, tuple(tuple(_uniform(block, size)) for block in made))


def _uniform(block: Tile, size: int) -> Iterator[Tile]:
    for first in range(block[0], block[1], size):
        yield first, min(first + size, block[1])


@lru_cache(maxsize=4096)
def footprint_cut(window: Window, units: int, size: int) -> Cut:
    """The cut whose tiles are the longest runs that touch at most ``size`` input coordinates."""
    made = blocks(window.out, units)
    if pointwise(window):
        return _even_cut(made, "footprint", size)
    return Cut("footprint", size, tuple(tuple(_greedy(window, block, size)) for block in made))


def _greedy(window: Window, block: Tile, size: int) -> Iterator[Tile]:
    first, mask = block[0], 0
    for o in range(*block):
        grown = mask | touched(window, o, o + 1)
        if o > first and grown.bit_count() > size:
            yield first, o
            first, grown = o, touched(window, o, o + 1)
        mask = grown
    if first < block[1]:
        yield first, block[1]


@dataclass(frozen=True, slots=True)
class Halo:
    """The input sets of a cut, for each unit and step, with or without moves between units.

    Attributes:
        need: what the tile of unit u in step i touches, less what u has received for good (``received[u]``).
        received: rows that a neighbour loads and sends over; held beside the tiles from the step in ``sent``
            to the end of the block. With a single step they land in the tile itself and are not taken off ``need``.
        sent: (step, from, to, rows) of every move.
    """

    need: tuple[tuple[int, ...], ...]
    received: tuple[int, ...]
    sent: tuple[tuple[int, int, int, int], ...]
    steps: int

    def load(self, unit: int, step: int, keep: bool) -> int:
        """Rows that the unit loads from DRAM in this step, keeping what the tile before holds or not."""
        need = self.need[unit][step]
        if self.steps == 1:
            return need & ~self.received[unit]
        return need & ~self.need[unit][step - 1] if keep and step else need


@lru_cache(maxsize=8192)
def halo(window: Window, cut: Cut, move: bool) -> Halo | None:
    """The halo account of a cut; None where rows cannot be moved (none shared, or a third unit needs one)."""
    need = tuple(tuple(touched(window, *tile) for tile in block) for block in cut.tiles)
    received = [0] * len(need)
    if not move:
        return Halo(need, tuple(received), (), cut.steps)
    whole = [_union(block) for block in need]
    shared = [a & b for a, b in pairwise(whole)]
    if not any(shared) or any(a & b for a, b in zip(whole, whole[2:], strict=False)):
        return None
    sent: list[tuple[int, int, int, int]] = []
    for u, mask in enumerate(shared):
        for row in rows(mask):
            above, below = _first(need[u], row), _first(need[u + 1], row)
            loader, receiver = (u, u + 1) if above < below else (u + 1, u)
            received[receiver] |= 1 << row
            sent.append((min(above, below), loader, receiver, 1 << row))
    if cut.steps > 1:
        need = tuple(tuple(t & ~r for t in block) for block, r in zip(need, received, strict=True))
    return Halo(need, tuple(received), _merged(sent), cut.steps)


def _first(steps: tuple[int, ...], row: int) -> int:
    return next(i for i, mask in enumerate(steps) if mask >> row & 1)


def _merged(sent: list[tuple[int, int, int, int]]) -> tuple[tuple[int, int, int, int], ...]:
    by_pair: dict[tuple[int, int, int], int] = {}
    for step, loader, receiver, row in sent:
        by_pair[step, loader, receiver] = by_pair.get((step, loader, receiver), 0) | row
    return tuple((*key, mask) for key, mask in sorted(by_pair.items()))


def _union(masks: tuple[int, ...]) -> int:
    out = 0
    for mask in masks:
        out |= mask
    return out


@dataclass(frozen=True, slots=True)
class PoolSteps:
    """Which windows of a fused pool each unit completes and keeps begun, step by step.

    Attributes:
        complete: windows stored by unit u in step i.
        pending: windows whose partial results unit u holds after step i, and needs later.
        heads: (step, from, to, windows): begun below a block's edge and sent up to the unit that stores them.
    """

    complete: tuple[tuple[tuple[int, ...], ...], ...]
    pending: tuple[tuple[tuple[int, ...], ...], ...]
    heads: tuple[tuple[int, int, int, tuple[int, ...]], ...]

    @property
    def slots(self) -> int:
        """Partial results that a unit holds at most at once: those of before and arriving, or those of after and
        leaving."""
        most = 0
        for u, steps in enumerate(self.pending):
            for i, after in enumerate(steps):
                before = self.pending[u][i - 1] if i else ()
                arriving = sum(len(ws) for step, _, to, ws in self.heads if (step, to) == (i, u))
                leaving = sum(len(ws) for step, source, _, ws in self.heads if (step, source) == (i, u))
                most = max(most, len(before) + arriving, len(after) + leaving)
        return most


@lru_cache(maxsize=4096)
def pool_steps(pool: Window, cut: Cut) -> PoolSteps | None:
    """The account of a pool over the rows of a cut; None where a window spans more than two units' blocks,
    or its lower part comes after the unit that stores it has finished its block."""
    where = {o: (u, i) for u, block in enumerate(cut.tiles) for i, t in enumerate(block) for o in range(*t)}
    shape = [len(block) for block in cut.tiles]
    complete = [[list[int]() for _ in range(n)] for n in shape]
    pending = [[set[int]() for _ in range(n)] for n in shape]
    heads: dict[tuple[int, int, int], list[int]] = {}
    for w in range(pool.out):
        covered = rows(touched(pool, w, w + 1))
        (owner, begun), (last, done) = where[covered[0]], where[covered[-1]]
        finish, held = done, begun
        if last != owner:
            finish = shape[owner] - 1
            if last > owner + 1 or done > finish:
                return None
            for i in range(done):
                pending[last][i].add(w)
            heads.setdefault((done, last, owner), []).append(w)
            held = min(begun, done)
        complete[owner][finish].append(w)
        for i in range(held, finish):
            pending[owner][i].add(w)
    return PoolSteps(
        tuple(tuple(tuple(s) for s in block) for block in complete),
        tuple(tuple(tuple(sorted(s)) for s in block) for block in pending),
        tuple((*key, tuple(ws)) for key, ws in sorted(heads.items())),
    )
