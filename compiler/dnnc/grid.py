"""Tables before they are drawn: for a terminal, as plain text, as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

NAME = 18
"""Columns that a name keeps, however narrow the terminal."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table before it is drawn: headings, rows of as many cells, which headings stand over text, and which columns
    may be broken where the terminal is too narrow."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: frozenset[str]
    folds: frozenset[str] = frozenset()

    def rich(self) -> Table:
        """For a terminal: text to the left, numbers to the right."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for i, heading in enumerate(self.headings):
            justify: Literal["left", "right"] = "left" if heading in self.text else "right"
            least = 0 if i else min(NAME, max(len(row[0]) for row in self.rows))
            whole = heading not in self.folds
            table.add_column(heading, justify=justify, overflow="fold", no_wrap=whole, min_width=least)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def lines(self) -> tuple[str, ...]:
        """As plain text, a line for each row."""
        table = (self.headings, *self.rows)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        cells = list(zip(widths, (heading in self.text for heading in self.headings), strict=True))

        def line(row: tuple[str, ...]) -> str:
            padded = (c.ljust(width) if text else c.rjust(width) for c, (width, text) in zip(row, cells, strict=True))
            return "  ".join(padded).rstrip()

        return tuple(map(line, table))

    def html(self) -> str:
        """As an HTML table."""
        head = "".join(f"<th>{escape(heading)}</th>" for heading in self.headings)
        lines = [f"<tr>{head}</tr>"]
        for row in self.rows:
            sides = ["left" if heading in self.text else "right" for heading in self.headings]
            cells = zip(sides, row, strict=True)
            lines.append("<tr>" + "".join(f'<td style="text-align:{s}">{escape(c)}</td>' for s, c in cells) + "</tr>")
        return "<table>" + "\n".join(lines) + "</table>"
