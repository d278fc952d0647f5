"""A picture: what is drawn, and the two forms it takes, in a page and in a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dnnc.report_page.markup import Markup, element, join, label, line, rect, text, wide
from dnnc.report_page.palette import hatches, picture_rules
from dnnc.report_page.scale import Scale, tick_text

WIDTH = 960.0
"""Of every picture, in its own pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Something drawn.

    Attributes:
        name: of its file, and its id in the page.
        subject: the network that it is of; "" for all.
        title: what it shows; ``caption``: how to read it.
        height: in pixels.
        body: what is inside the svg element.
    """

    name: str
    subject: str
    title: str
    caption: str
    height: float
    body: Markup

    @property
    def heading(self) -> str:
        """Subject and title."""
        return f"{self.subject}: {self.title}" if self.subject else self.title

    def inline(self) -> Markup:
        """For a page that has the rules and the hatches."""
        return element("svg", self.body, **self._frame(), role="group", aria_label=self.heading)

    def file(self) -> str:
        """As a file of its own."""
        surface = rect(0, 0, WIDTH, self.height, "surface")
        rules = element("style", Markup(f"\n{picture_rules()}\n"))
        named = element("title", text(self.heading)), element("desc", text(self.caption))
        xmlns = "http://www.w3.org/2000/svg"
        svg = element("svg", *named, rules, hatches(), surface, self.body, xmlns=xmlns, **self._frame())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'

    def _frame(self) -> dict[str, str | float | None]:
        size = f"0 0 {WIDTH:g} {self.height:g}"
        return {"viewBox": size, "width": WIDTH, "height": self.height, "class_": "picture"}


# -- parts of pictures -----------------------------------------------------------------------------------------------


def legend(entries: Sequence[tuple[str, str]], x: float, y: float) -> tuple[Markup, float]:
    """(class, name) entries from left to right in as many lines as they take; and how high that is."""
    parts: list[Markup] = []
    across, down = x, y
    for kind, name in entries:
        width = 18 + wide(name) + 18
        if across > x and across + width > WIDTH:
            across, down = x, down + 18
        parts += [rect(across, down, 12, 12, kind), label(across + 18, down + 10.5, name)]
        across += width
    return join(parts), down + 22 - y


def across(scale: Scale, top: float, bottom: float, name: str, ticks: Iterable[float] | None = None) -> Markup:
    """The horizontal axis below a plot, its grid lines, and its name with the unit."""
    values = tuple(scale.ticks(8) if ticks is None else ticks)
    parts = [line(scale.start, bottom, scale.end, bottom, "axis")]
    for value, written in zip(values, written_ticks(scale, values), strict=True):
        at = scale(value)
        parts += [line(at, top, at, bottom, "grid"), label(at, bottom + 16, written, "middle soft")]
    parts.append(label((scale.start + scale.end) / 2, bottom + 34, name, "middle"))
    return join(parts)


def upright(scale: Scale, left: float, right: float, name: str, ticks: Iterable[float] | None = None) -> Markup:
    """The vertical axis left of a plot, its grid lines, and its name with the unit."""
    values = tuple(scale.ticks(5) if ticks is None else ticks)
    parts = [line(left, scale.start, left, scale.end, "axis")]
    for value, written in zip(values, written_ticks(scale, values), strict=True):
        at = scale(value)
        parts += [line(left, at, right, at, "grid"), label(left - 6, at + 4, written, "end soft")]
    parts.append(label(left - 46, (scale.start + scale.end) / 2, name, "middle", turn=-90))
    return join(parts)


def written_ticks(scale: Scale, values: Sequence[float]) -> list[str]:
    """What stands at ticks."""
    if scale.log:
        return [f"{value:g}" if value < 1e4 else f"{value:,.0f}" for value in values]
    step = values[1] - values[0] if len(values) > 1 else (values[0] if values and values[0] else 1.0)
    return [tick_text(value, step) for value in values]
