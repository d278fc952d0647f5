"""Bars from left to right, a row for each layer: of what parts they are made, and a value at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnnc.report_page.markup import Markup, join, label, line, mark, rect, short, wide
from dnnc.report_page.picture import WIDTH, across, legend, written_ticks
from dnnc.report_page.scale import Scale

ROW, NAME, VALUE, NOTE = 20.0, 34, 164.0, 70.0
"""Height of a row, characters of a name, width of values and notes together, and of notes."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A layer's row.

    Attributes:
        name: the layer's.
        parts: (class, length) of what is stacked.
        beside: length of the thin bar to compare with; None for none.
        value, note: what stands at the end of the row.
        title: what it says when pointed at.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    beside: float | None
    value: str
    note: str
    title: str

    @property
    def length(self) -> float:
        """Of all parts, or of what they are compared with."""
        return max(sum(length for _, length in self.parts), self.beside or 0.0)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars drawn: what is inside the svg, and how high it is."""

    body: Markup
    height: float


def bars(rows: Sequence[Bar], entries: Sequence[tuple[str, str]], axis: str) -> Bars:
    """Rows under a legend, with ticks above them and below."""
    names, high = legend(entries, 0, 4)
    left = max((wide(short(row.name, NAME)) for row in rows), default=0.0) + 14
    scale = Scale(0, max((row.length for row in rows), default=0.0) or 1.0, left, WIDTH - VALUE)
    top = 4 + high + 14
    bottom = top + ROW * len(rows) + 4
    drawn = [_row(row, scale, top + 2 + ROW * i) for i, row in enumerate(rows)]
    stripes = [rect(0, top + 2 + ROW * i, WIDTH, ROW, "band") for i in range(0, len(rows), 2)]
    values = scale.ticks(8)
    above = [
        label(scale(v), top - 5, t, "middle soft") for v, t in zip(values, written_ticks(scale, values), strict=True)
    ]
    return Bars(join([names, *stripes, *above, across(scale, top, bottom, axis), *drawn]), bottom + 42)


def _row(bar: Bar, scale: Scale, top: float) -> Markup:
    thick = 11.0 if bar.beside is not None else 13.0
    at, stacked = scale(0), list[Markup]()
    for kind, length in bar.parts:
        wide_ = scale(length) - scale(0)
        stacked.append(rect(at, top + 2, wide_, thick, kind))
        at += wide_
    if bar.beside is not None:
        stacked.append(rect(scale(0), top + 2 + thick + 1, scale(bar.beside) - scale(0), 3, "bound"))
    seams = line(scale(0), top + 1, scale(0), top + ROW - 1, "axis")
    return mark(
        bar.title,
        rect(0, top, WIDTH, ROW, "hit"),
        label(scale(0) - 8, top + 14, short(bar.name, NAME), "end"),
        *stacked,
        seams,
        label(WIDTH - NOTE - 8, top + 14, bar.value, "end small"),
        label(WIDTH - NOTE, top + 14, bar.note, "small"),
    )
