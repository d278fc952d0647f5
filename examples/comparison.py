"""A comparison with published figures: what is printed, and what has to agree."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill


def paragraph(text: str) -> str:
    """Text in lines, and an empty one behind."""
    return fill(text, 116) + "\n"


@dataclass(frozen=True, slots=True)
class Check:
    """A figure found here beside the published one, and by how many percent they may differ."""

    what: str
    found: float
    published: float
    percent: float

    @property
    def off(self) -> float:
        """Percent that the found figure is above the published one."""
        return 100 * (self.found / self.published - 1)

    @property
    def holds(self) -> bool:
        """Whether the figures agree."""
        return abs(self.off) <= self.percent

    def __str__(self) -> str:
        verdict = "agrees" if self.holds else "DIFFERS"
        figures = f"{self.found:9.3f} for {self.published:8.2f}"
        return f"  {self.what:42}{figures}{self.off:+7.2f} %, of {self.percent:g} % allowed: {verdict}"


@dataclass(frozen=True, slots=True)
class Section:
    """One comparison: its table, what is to be said of it, and what has to agree."""

    title: str
    table: tuple[str, ...]
    remarks: tuple[str, ...]
    checks: tuple[Check, ...] = ()

    def __str__(self) -> str:
        checks = [*map(str, self.checks), ""] if self.checks else []
        return "\n".join([self.title, "=" * len(self.title), "", *self.table, "", *self.remarks, *checks])
