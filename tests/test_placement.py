"""Placement: no two plots share a word, whatever is torn; and what may be torn finds a place if its words do."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dnnc import placement
from dnnc.lives import Lives, Plot, Scene
from dnnc.placement import Unplaced, grow, merged, place

SECTIONS = 12


@st.composite
def rows(draw: st.DrawFn, whole: bool) -> Plot:
    """A row of some pixels, which may be torn between words; ``whole``: or only between pixels, or not at all."""
    start = draw(st.integers(0, SECTIONS - 1))
    end = draw(st.integers(start, SECTIONS - 1))
    pixel, pixels = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    atoms = (1, pixel, pixel * pixels) if whole else (1,)
    return Plot(draw(st.integers(0, 1)), start, end, pixel * pixels, pixel, draw(st.sampled_from(atoms)))


@st.composite
def tiles(draw: st.DrawFn) -> Plot:
    """A tile that passes through in one section."""
    at, pixel, pixels = draw(st.integers(0, SECTIONS - 1)), draw(st.integers(1, 9)), draw(st.integers(1, 6))
    words = pixel * pixels
    return Plot(draw(st.integers(0, 1)), at, at, words, pixel, draw(st.sampled_from((pixel, words))), granule=words)


FLOORS = st.lists(st.sampled_from((0, 0, 0, 20, 40)), min_size=SECTIONS, max_size=SECTIONS)


def living(plots: list[Plot], reserved: list[int]) -> Lives:
    """Plots by themselves, with a scene for every section in which a tile passes through."""
    scenes = tuple(
        Scene(0, None, None, stage={(i, 0, p.unit): p for i, p in enumerate(plots) if p.granule and p.start == at})
        for at in range(SECTIONS)
    )
    return Lives(scenes, tuple(plots), tuple(reserved), (), {}, {}, ())


def needed(lives: Lives) -> int:
    """Words of memory that are needed in the fullest section of the fullest unit."""
    return max(
        floor + sum(plot.words for plot in lives.plots if plot.unit == unit and plot.start <= at <= plot.end)
        for unit in (0, 1)
        for at, floor in enumerate(lives.reserved)
    )


def assert_apart(lives: Lives, words: int) -> None:
    """Every plot has all its words, torn where it may be, and nobody else has them meanwhile."""
    for plot in lives.plots:
        assert [0, *(before + n for before, n, _ in plot.chunks)] == [*(b for b, _, _ in plot.chunks), plot.words]
        assert all(before % plot.atom == 0 for before, _, _ in plot.chunks)
    for at, floor in enumerate(lives.reserved):
        for unit in (0, 1):
            here = [plot for plot in lives.plots if plot.unit == unit and plot.start <= at <= plot.end]
            taken = sorted((first, first + n) for plot in here for _, n, first in plot.chunks)
            bounds = [floor, *(bound for gap in taken for bound in gap), words]
            assert all(a <= b for a, b in pairwise(bounds))


@given(st.lists(rows(whole=True) | tiles(), max_size=40), FLOORS, st.integers(0, 60))
def test_no_two_plots_share_a_word(plots: list[Plot], reserved: list[int], spare: int) -> None:
    lives = living(plots, reserved)
    words = needed(lives) + spare
    failure = place(lives, words)
    if failure is not None:
        assert 0 < failure.missing <= failure.plot.words
        return
    assert_apart(lives, words)
    before = [plot.words for plot in plots]
    grow(lives, words)
    assert_apart(lives, words)
    for plot, least in zip(plots, before, strict=True):
        assert plot.words % (plot.granule or least) == 0
        assert plot.words == least or (plot.granule and plot.words > least)


@given(st.lists(rows(whole=False), min_size=1, max_size=60))
def test_what_may_be_torn_anywhere_finds_a_place_if_its_words_do(plots: list[Plot]) -> None:
    lives = living(plots, [0] * SECTIONS)
    words = needed(lives)
    assert place(lives, words) is None
    assert_apart(lives, words)
    assert place(lives, words - 1) is not None


@given(st.lists(rows(whole=True) | tiles(), min_size=1, max_size=20), FLOORS)
def test_where_there_is_room_for_all_nothing_is_torn(plots: list[Plot], reserved: list[int]) -> None:
    lives = living(plots, reserved)
    assert place(lives, max(reserved) + sum(plot.words for plot in plots)) is None
    assert all(len(plot.chunks) == 1 for plot in plots)


@given(st.lists(rows(whole=True) | tiles(), min_size=1, max_size=20), FLOORS)
def test_no_more_is_placed_than_there_is_room_for(plots: list[Plot], reserved: list[int]) -> None:
    lives = living(plots, reserved)
    assume(needed(lives) > max(reserved))
    assert isinstance(place(lives, needed(lives) - 1), Unplaced)


def test_what_found_no_place_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the second row is put above the first, and when that ends no six of the ten words that are left touch;
    with the tile at the bottom first, the second row is put above it."""
    first, second, tile = Plot(0, 0, 1, 3, 3, 3), Plot(0, 1, 3, 4, 4, 4), Plot(0, 2, 2, 6, 6, 6, granule=6)
    lives = living([first, second, tile], [0] * SECTIONS)
    assert place(lives, 10) is None
    assert_apart(lives, 10)
    assert [plot.chunks for plot in lives.plots] == [((0, 3, 0),), ((0, 4, 6),), ((0, 6, 0),)]
    monkeypatch.setattr(placement, "ATTEMPTS", 1)
    assert place(lives, 10) == Unplaced(tile, 3)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=12))
def test_merged(gaps: list[tuple[int, int]]) -> None:
    found = list(merged((first, first + count) for first, count in gaps))
    assert {word for first, end in found for word in range(first, end)} == {
        word for first, count in gaps for word in range(first, first + count)
    }
    assert all(a[1] < b[0] for a, b in pairwise(found))
