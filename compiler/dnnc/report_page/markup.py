"""Elements of HTML and SVG as text that is known to be escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import NewType

Markup = NewType("Markup", str)
"""Text with elements in it: only :func:`text` and :func:`element` make it of other text."""

NOTHING = Markup("")

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML has no way to write."""


def text(content: str) -> Markup:
    """Text as it is to be read; what XML cannot hold becomes a replacement character."""
    return Markup(escape(_ILLEGAL.sub("\ufffd", content)))


def number(value: float) -> str:
    """A coordinate, to the hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def element(tag: str, *children: Markup, **attributes: str | float | None) -> Markup:
    """An element. Attributes that are None are left out; ``stroke_width`` is written stroke-width, ``class_`` class."""
    words = [tag]
    for name, value in attributes.items():
        if value is not None:
            content = text(value) if isinstance(value, str) else number(value)
            words.append(f'{name.rstrip("_").replace("_", "-")}="{content}"')
    return Markup(f"<{' '.join(words)}>{''.join(children)}</{tag}>")


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """Elements one after the other."""
    return Markup(between.join(parts))


# -- shapes of SVG ---------------------------------------------------------------------------------------------------


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle of a class."""
    return element("rect", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line of a class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def path(points: Iterable[tuple[float, float]], kind: str, closed: bool = False) -> Markup:
    """A line through points; an area where it is closed."""
    course = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{course}{'Z' if closed else ''}", class_=kind)


def label(x: float, y: float, content: str, kind: str = "", turn: float = 0.0) -> Markup:
    """Text at a point, of a class that says how it is aligned, turned by degrees."""
    turned = f"rotate({number(turn)} {number(x)} {number(y)})" if turn else None
    return element("text", text(content), x=x, y=y, class_=kind or None, transform=turned)


def mark(title: str, *children: Markup) -> Markup:
    """What can be pointed at, or reached by keyboard, and then says what it is."""
    return element("g", element("title", text(title)), *children, class_="mark", tabindex="0", role="img")


def wide(content: str, size: float = 12.0) -> float:
    """About how wide text is, in a font of this size."""
    return 0.56 * size * len(content)


def short(name: str, length: int) -> str:
    """A name that is too long, without its beginning: names of one network differ at their ends."""
    return name if len(name) <= length else f"…{name[1 - length :]}"
