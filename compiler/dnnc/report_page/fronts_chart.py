"""Small pictures of bytes against cycles, one for each distinct layer that has a choice."""

from __future__ import annotations

from itertools import pairwise

from dnnc.report_page.fronts import LayerFront
from dnnc.report_page.markup import Markup, element, join, label, line, mark, path, short, wide
from dnnc.report_page.picture import WIDTH, Picture, written_ticks
from dnnc.report_page.scale import Scale

COLUMNS, _HIGH = 4, 190.0

_CAPTION = (
    "DRAM payload against cycles (closed form) of schedules that no other beats in both, cycles told apart in steps of "
    "one percent; one picture for each distinct layer with more than one such schedule. Ringed: the "
    "artifact's schedule."
)


def fronts(slug: str, name: str, found: tuple[LayerFront, ...]) -> Picture | None:
    """The fronts of layers that can trade bytes for cycles; None if none can."""
    trading = [front for front in found if front.trades]
    if not trading:
        return None
    width = WIDTH / COLUMNS
    panels = [_panel(front, (i % COLUMNS) * width, (i // COLUMNS) * _HIGH, width) for i, front in enumerate(trading)]
    rows = -(-len(trading) // COLUMNS)
    return Picture(f"{slug}-fronts", name, "bytes against cycles", _CAPTION, rows * _HIGH, join(panels))


def _panel(front: LayerFront, left: float, top: float, width: float) -> Markup:
    every = [*front.points, front.chosen]
    x = _around([cycles / 1e3 for _, cycles in every], left + 54, left + width - 14)
    y = _around([moved / 1e6 for moved, _ in every], top + _HIGH - 44, top + 26)
    first, *others = front.layers
    count = f" (and {len(others)} alike)" if others else ""
    return join([
        label(left + 4, top + 14, short(first, 34 - len(count)) + count, "strong small"),
        _axes(x, y),
        path(_stairs(front, x, y), "course"),
        *(_point(front, point, x, y) for point in front.points),
        _chosen(front, x, y),
    ])  # fmt: skip


def _around(values: list[float], start: float, end: float) -> Scale:
    """A scale with some room on both sides."""
    least, most = min(values), max(values)
    room = 0.08 * (most - least) or 0.05 * most or 1.0
    return Scale(least - room, most + room, start, end)


def _stairs(front: LayerFront, x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The fewest bytes within so many cycles: those of a point, until the cycles of the next are reached."""
    places = [(x(cycles / 1e3), y(moved / 1e6)) for moved, cycles in reversed(front.points)]
    corners = [(after, before) for (_, before), (after, _) in pairwise(places)]
    return [place for pair in zip(places, [*corners, places[-1]], strict=True) for place in pair]


def _axes(x: Scale, y: Scale) -> Markup:
    parts = [line(x.start, y.start, x.end, y.start, "axis"), line(x.start, y.start, x.start, y.end, "axis")]
    for value, written in _ticks(x):
        at = x(value)
        parts += [line(at, y.start, at, y.end, "grid"), label(at, y.start + 14, written, "middle soft small")]
    for value, written in _ticks(y):
        at = y(value)
        parts += [line(x.start, at, x.end, at, "grid"), label(x.start - 5, at + 4, written, "end soft small")]
    parts.append(label((x.start + x.end) / 2, y.start + 29, "kilocycles", "middle soft small"))
    parts.append(label(x.start - 42, (y.start + y.end) / 2, "MB", "middle soft small", turn=-90))
    return join(parts)


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """As many ticks as there is room for beside one another."""
    found: list[tuple[float, str]] = []
    for about in (5, 4, 3, 2):
        values = scale.ticks(about)
        found = list(zip(values, written_ticks(scale, values), strict=True))
        if sum(wide(written, 11) + 10 for _, written in found) < abs(scale.end - scale.start):
            break
    return found


def _point(front: LayerFront, point: tuple[int, int], x: Scale, y: Scale) -> Markup:
    moved, cycles = point
    title = f"{front.layers[0]}\n{moved:,} B in {cycles:,} cycles"
    return mark(title, element("circle", cx=x(cycles / 1e3), cy=y(moved / 1e6), r=3.5, class_="s1 dot"))


def _chosen(front: LayerFront, x: Scale, y: Scale) -> Markup:
    moved, cycles = front.chosen
    return element("circle", cx=x(cycles / 1e3), cy=y(moved / 1e6), r=7, class_="ring")
