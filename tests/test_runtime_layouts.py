"""What is remembered of pieces that lie alike is what is found of each by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnnc_runtime.addressing import Bank, Taken, extents, placed, row_major, taken
from dnnc_runtime.layouts import Layouts
from dnnc_runtime.memo import Outlines
from dnnc_runtime.regions import covers, partitions
from dnnc_runtime.tensor import Piece, Region, Run, span

MAPS = Bank("maps", 4096, 3)
ROWS = 6


@st.composite
def accesses(draw: st.DrawFn) -> tuple[tuple[Piece, ...], Region]:
    """Rows of some planes in pieces, if any, one or more rows each, that may leave rows out or hold them twice."""
    first, rows = draw(st.integers(0, 3)), draw(st.integers(1, ROWS))
    planes = span(draw(st.integers(0, 8)), draw(st.integers(1, 4)))
    need: Region = (span(0, 1), span(first, rows), span(draw(st.integers(0, 2)), 3), span(0, 1), planes)
    pieces: list[Piece] = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(first, first + rows - 1))
        region = (need[0], span(start, draw(st.integers(1, first + rows - start))), *need[2:])
        some = draw(st.sampled_from([planes, span(planes[0].start, 1)]))
        pitch = draw(st.sampled_from([(0, 48, 16, 16, 1), (0, 64, 16, 16, 1)]))
        units = draw(st.sampled_from([(0,), (1,), (0, 1, 2)]))
        pieces.append(Piece(units, draw(st.integers(0, 64)), pitch, (*region[:-1], some)))
    return tuple(pieces), need


def moved(access: tuple[tuple[Piece, ...], Region], words: int, planes: int) -> tuple[tuple[Piece, ...], Region]:
    """The same places of other planes."""
    pieces, need = access

    def further(region: Region) -> Region:
        return *region[:-1], span(region[-1][0].start + planes, region[-1][0].count)

    return (
        tuple(piece._replace(base=piece.base + words, region=further(piece.region)) for piece in pieces),
        further(need),
    )


def words_of(some: Taken) -> dict[int, list[tuple[int, int]]]:
    return {unit: [(words.first, words.end) for words in found] for unit, found in some.by_unit().items()}


@given(st.lists(accesses(), min_size=1, max_size=3), st.data())
def test_layouts_are_those_of_the_pieces_themselves(
    drawn: list[tuple[tuple[Piece, ...], Region]], data: st.DataObject
) -> None:
    layouts = Layouts()
    for _ in range(6):
        access = data.draw(st.sampled_from(drawn))
        pieces, need = moved(access, data.draw(st.integers(0, 64)), data.draw(st.integers(0, 4)))
        found = layouts.of(MAPS, pieces, need, 2)
        assert words_of(found.taken()) == words_of(taken(MAPS, pieces, 2))
        strides = row_major(extents(need))
        first = -sum(axis[0].start * stride for axis, stride in zip(need, strides, strict=True))
        assert found.boxes() == placed(MAPS, pieces, first, strides)
        assert found.inside
        lower: Region = (need[0], span(need[1][0].start + 1, ROWS), *need[2:])
        above = any(piece.region[1][0].start < lower[1][0].start for piece in pieces)
        assert layouts.of(MAPS, pieces, lower, 2).inside != above


@given(st.lists(accesses(), min_size=1, max_size=3), st.data())
def test_outlines_hold_for_all_planes(drawn: list[tuple[tuple[Piece, ...], Region]], data: st.DataObject) -> None:
    covered, taken_up = Outlines(covers), Outlines(lambda parts, whole: partitions([whole], parts))
    for _ in range(6):
        pieces, need = moved(data.draw(st.sampled_from(drawn)), 0, data.draw(st.integers(0, 4)))
        regions = [piece.region for piece in pieces]
        assert covered.hold(regions, need) == covers(regions, need)
        assert taken_up.hold(regions, need) == partitions([need], regions)


@given(accesses(), accesses())
def test_words_meet_where_a_unit_has_one_of_both(
    a: tuple[tuple[Piece, ...], Region], b: tuple[tuple[Piece, ...], Region]
) -> None:
    one, two = taken(MAPS, a[0], 1), taken(MAPS, b[0], 1)
    both = {
        (unit, word)
        for unit, found in words_of(one).items()
        for first, end in found
        for word in range(first, end)
        if any(begin <= word < stop for begin, stop in words_of(two).get(unit, []))
    }
    assert one.meets(two) == two.meets(one) == bool(both)


def test_an_outline_is_of_as_many_axes_and_of_planes_that_there_are() -> None:
    one, planes, none = span(0, 1), span(0, 4), ()
    covered = Outlines(covers)
    assert covered.hold([(one, planes)] * 3, (one, planes))
    assert not covered.hold([], (one, one, one, one, planes))
    rows, others = span(0, 2), span(5, 1)
    assert covered.hold([(one, others, one, one, none)], (one, rows, one, one, none))
    assert not covered.hold([(one, others, one, one, planes)], (one, rows, one, one, planes))


def test_a_layout_is_of_planes_without_gaps() -> None:
    layouts, outer = Layouts(), (span(0, 1), span(0, 2), span(0, 1), span(0, 1))
    for planes in ((Run(0, 2), Run(4, 2)), span(2, 4)):
        pieces = (Piece((0,), 0, (0, 8, 8, 8, 1), (*outer, planes)),)
        found = layouts.of(MAPS, pieces, (*outer, planes), 1)
        assert found.inside == (len(planes) == 1)
    assert found.boxes() == [((2, 4), 0, (8, 1), 0, (4, 1))]
