"""How a cut axis touches its input: tiles, footprints, kept halos, moves between units, pools over tile edges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dnnc.axis import (
    Cut,
    Halo,
    Style,
    blocks,
    cuts,
    footprint_cut,
    halo,
    pool_steps,
    rows,
    run_lengths,
    touched,
    uniform_cut,
)
from dnnc_runtime.program import Window
from strategies import overlapping, touching, windows

STYLES: tuple[Style, ...] = ("footprint", "uniform")


@st.composite
def cut_axes(draw: st.DrawFn, axis: st.SearchStrategy[Window] | None = None) -> tuple[Window, Cut]:
    """A window cut for one to four units."""
    window = draw(windows(14) if axis is None else axis)
    return window, draw(st.sampled_from(cuts(window, draw(st.integers(1, 4)), draw(st.sampled_from(STYLES)))))


def footprint(window: Window, first: int, stop: int) -> int:
    """Distinct input coordinates of some outputs, one by one."""
    return len({i for o in range(first, stop) for i in window.touched(o, o)})


# -- worked by hand --------------------------------------------------------------------------------------------------


def test_thirteen_rows_in_three_tiles_are_5_4_4_with_a_footprint_of_6() -> None:
    """3x3, pad 1: outputs 0-4 touch rows 0-5, outputs 5-8 rows 4-9, outputs 9-12 rows 8-12. 5-5-3 would need 7."""
    window = Window(13, 13, 3, 1, 1, 1, 1)
    (cut,) = [c for c in cuts(window, 1, "footprint") if c.steps == 3]
    assert cut == Cut("footprint", 6, (((0, 5), (5, 9), (9, 13)),))
    account = halo(window, cut, move=False)
    assert account is not None
    assert [rows(mask) for mask in account.need[0]] == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [8, 9, 10, 11, 12]]
    assert [rows(account.load(0, i, keep=True)) for i in range(3)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]


def test_alexnets_first_layer_shares_21_rows_between_four_blocks() -> None:
    """11x11 stride 4 pad 2 on 224 rows: 55 outputs in blocks of 14, 14, 14, 13 touch 0-60, 54-116, 110-172, 166-223,
    245 rows together. Neighbours share seven rows each; in one step, each is loaded once and sent over."""
    window = Window(224, 55, 11, 4, 1, 2, 1)
    cut = cuts(window, 4, "footprint")[0]
    assert cut.tiles == (((0, 14),), ((14, 28),), ((28, 42),), ((42, 55),))
    reloaded, moved = halo(window, cut, move=False), halo(window, cut, move=True)
    assert reloaded is not None
    assert moved is not None
    assert [mask.bit_count() for (mask,) in reloaded.need] == [61, 63, 63, 58]
    assert sum(moved.load(u, 0, keep=True).bit_count() for u in range(4)) == 224
    assert [mask.bit_count() for _, _, _, mask in moved.sent] == [7, 7, 7]


def test_a_row_that_three_units_need_cannot_be_moved() -> None:
    """Nine outputs of 7 taps on three units: outputs 0-2 touch 0-8, outputs 6-8 touch 6-14; rows 6-8 are in all."""
    window = Window(15, 9, 7)
    assert halo(window, footprint_cut(window, 3, 15), move=True) is None
    assert halo(window, footprint_cut(window, 3, 15), move=False) is not None


def test_blocks_are_even_and_the_last_may_be_short_or_empty() -> None:
    assert blocks(55, 4) == ((0, 14), (14, 28), (28, 42), (42, 55))
    assert blocks(5, 4) == ((0, 2), (2, 4), (4, 5), (5, 5))


def test_a_pool_over_a_tiles_edge_keeps_what_it_has_begun() -> None:
    """Windows of 3 rows, stride 2, tiles of 4: window 1 (rows 2-4) begins in the first tile, ends in the second."""
    steps = pool_steps(Window(8, 3, 3, 2), uniform_cut(Window(8, 8), 1, 4))
    assert steps is not None
    assert steps.complete == (((0,), (1, 2)),)
    assert steps.pending == (((1,), ()),)
    assert steps.slots == 1


def test_a_pool_over_a_blocks_edge_sends_its_lower_part_up() -> None:
    """Blocks 0-3 and 4-7, one step: the lower unit begins window 1 at row 4 and sends it to the unit of rows 2, 3."""
    steps = pool_steps(Window(8, 3, 3, 2), uniform_cut(Window(8, 8), 2, 4))
    assert steps is not None
    assert steps.complete == (((0, 1),), ((2,),))
    assert steps.heads == ((0, 1, 0, (1,)),)


# -- laws ------------------------------------------------------------------------------------------------------------


@given(windows(14), st.data())
def test_touched_is_the_windows_own_account(window: Window, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, window.out - 1))
    stop = data.draw(st.integers(first + 1, window.out))
    assert rows(touched(window, first, stop)) == window.touched(first, stop - 1)


@given(st.sets(st.integers(0, 40)))
def test_runs_of_a_mask(points: set[int]) -> None:
    mask = sum(1 << p for p in points)
    assert rows(mask) == sorted(points)
    starts = [p for p in points if p - 1 not in points]
    assert len(run_lengths(mask)) == len(starts)
    assert sum(run_lengths(mask)) == len(points)


@given(cut_axes())
def test_tiles_partition_the_outputs_in_equal_blocks(axis: tuple[Window, Cut]) -> None:
    window, cut = axis
    assert [o for block in cut.tiles for tile in block for o in range(*tile)] == list(range(window.out))
    for block, (first, stop) in zip(cut.tiles, blocks(window.out, len(cut.tiles)), strict=True):
        assert sum(b - a for a, b in block) == stop - first
    # The first block may have fewer tiles than others: padding above it takes up no part of a footprint.
    assert all(len(block) <= cut.steps for block in cut.tiles)


@given(windows(14), st.integers(1, 4))
def test_footprint_tiles_are_greedy_and_the_footprint_is_minimal(window: Window, units: int) -> None:
    for cut in cuts(window, units, "footprint"):
        for block in cut.tiles:
            sizes = [footprint(window, *tile) for tile in block]
            assert max(sizes, default=0) <= cut.size
            for (first, stop), (_, end) in pairwise(block):
                assert stop < end
                assert footprint(window, first, stop + 1) > cut.size
        smallest = max(footprint(window, o, o + 1) for o in range(window.out))
        if cut.size > smallest:
            assert footprint_cut(window, units, cut.size - 1).steps > cut.steps


@given(windows(14), st.integers(1, 4))
def test_every_number_of_tiles_that_a_footprint_gives_is_a_candidate(window: Window, units: int) -> None:
    found = {cut.steps for cut in cuts(window, units, "footprint")}
    smallest = max(footprint(window, o, o + 1) for o in range(window.out))
    assert found == {footprint_cut(window, units, f).steps for f in range(max(1, smallest), window.size + 1)}


@given(windows(14), st.integers(1, 4), st.integers(1, 14))
def test_uniform_tiles_are_of_one_size_but_the_last(window: Window, units: int, size: int) -> None:
    cut = uniform_cut(window, units, size)
    for block in cut.tiles:
        lengths = [b - a for a, b in block]
        assert all(n == size for n in lengths[:-1])
        assert all(0 < n <= size for n in lengths[-1:])
    counts = {c.steps for c in cuts(window, units, "uniform")}
    assert cut.steps in counts


@given(cut_axes())
def test_loads_with_kept_halos_are_all_that_is_touched_and_nothing_twice(axis: tuple[Window, Cut]) -> None:
    window, cut = axis
    account = halo(window, cut, move=False)
    assert account is not None
    for u, block in enumerate(cut.tiles):
        held = 0
        for i, tile in enumerate(block):
            need, load = touched(window, *tile), account.load(u, i, keep=True)
            assert account.load(u, i, keep=False) == account.need[u][i] == need
            assert load & ~need == 0
            assert (load | held) & need == need
            assert load & held & need == 0
            held = need
        if block:
            assert _union(account, u, keep=True) == touched(window, block[0][0], block[-1][1])


def _union(account: Halo, unit: int, keep: bool) -> int:
    out = 0
    for step in range(len(account.need[unit])):
        out |= account.load(unit, step, keep)
    return out


@given(cut_axes(overlapping()), st.booleans())
def test_a_moved_row_is_loaded_by_one_unit_and_there_when_it_is_needed(axis: tuple[Window, Cut], keep: bool) -> None:
    window, cut = axis
    moved = halo(window, cut, move=True)
    assume(moved is not None)
    assert moved is not None
    loads = [_union(moved, u, keep) for u in range(len(cut.tiles))]
    for a, one in enumerate(loads):
        for other in loads[a + 1 :]:
            assert one & other == 0
    assert sum(loads) == touched(window, 0, window.out)
    for u, block in enumerate(cut.tiles):
        for i, tile in enumerate(block):
            here = _present(moved, u, i)
            assert here & touched(window, *tile) == touched(window, *tile)
    for step, source, target, mask in moved.sent:
        assert abs(source - target) == 1
        assert moved.load(source, step, keep=False) & mask == mask, "sent in the step in which it is loaded or held"
        assert mask & ~moved.received[target] == 0


def _present(account: Halo, unit: int, step: int) -> int:
    """Rows that a unit has in a step: its own tile's, and those sent to it so far."""
    here = account.need[unit][step]
    for when, _, target, mask in account.sent:
        if target == unit and when <= step:
            here |= mask
    return here


@given(cut_axes(touching(windows(12))), st.data())
def test_every_pool_window_is_completed_once_and_held_from_its_first_row_to_its_last(
    axis: tuple[Window, Cut], data: st.DataObject
) -> None:
    window, cut = axis
    kernel = data.draw(st.integers(1, min(3, window.out)))
    pool = Window(window.out, (window.out - kernel) // 2 + 1, kernel, 2)
    steps = pool_steps(pool, cut)
    assume(steps is not None)
    assert steps is not None
    completed = [w for block in steps.complete for tile in block for w in tile]
    assert sorted(completed) == list(range(pool.out))
    if len(cut.tiles) == 1:
        ((*tiles,),) = cut.tiles
        for i, (_, stop) in enumerate(tiles):
            begun = [w for w in range(pool.out) if pool.touched(w, w)[0] < stop <= pool.touched(w, w)[-1]]
            assert steps.pending[0][i] == tuple(begun)
    for when, source, target, windows_sent in steps.heads:
        assert source == target + 1
        assert when < len(cut.tiles[target])
        assert set(windows_sent) <= {w for tile in steps.complete[target] for w in tile}


@pytest.mark.parametrize("style", STYLES)
def test_an_axis_of_single_pixels_is_cut_evenly(style: Style) -> None:
    """Ten pixels: for every number of tiles the smallest size that needs no more."""
    assert [c.size for c in cuts(Window(10, 10), 1, style)] == [10, 5, 4, 3, 2, 1]
