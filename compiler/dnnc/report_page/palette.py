"""Colours and patterns of pictures, for light and dark.

The eight of :data:`SERIES` can be told apart in print, on either surface (at least 3:1 against it), and by those who do
not see red, green or blue; hatches and the order of legends say the same once more.
"""

from __future__ import annotations

from collections.abc import Mapping

from dnnc.report_page.markup import Markup, element, join, rect

SERIES = (
    ("#0047B4", "#2773EE"),
    ("#A45B00", "#F08902"),
    ("#0EA687", "#79F9D1"),
    ("#73196D", "#A54997"),
    ("#007BB4", "#64C2FD"),
    ("#8E1900", "#D23300"),
    ("#A69300", "#FCDC45"),
    ("#655E60", "#999497"),
)
"""Light and dark colour of what stands in a legend, in its order; classes c1 to c8, without hatches s1 to s8."""

INKS: Mapping[str, tuple[str, str]] = {
    "surface": ("#FFFFFF", "#14181D"),
    "ink": ("#1B1F24", "#E6E9ED"),
    "soft": ("#57606A", "#A0A8B2"),
    "line": ("#D5DAE0", "#363D46"),
    "band": ("#F1F4F7", "#1D232B"),
    "accent": ("#0047B4", "#7FB2FF"),
}
"""Light and dark of everything else: of these, ink, soft and accent are what is read."""

HATCHES: Mapping[int, str] = {
    2: "M-1 1L1 -1M0 6L6 0M5 7L7 5",
    3: "M1.5 1.5h1.4M4.5 4.5h1.4",
    5: "M-1 5L1 7M0 0L6 6M5 -1L7 1",
    6: "M0 1.5h6M0 4.5h6",
    7: "M1.5 0v6M4.5 0v6",
    8: "M0 0L6 6M6 0L0 6",
}
"""Lines in the surface's colour over six by six; the other colours are plain."""

_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"

_FORMS = f"""\
.picture{{{_FONT};font-size:12px}}
.picture text{{font-variant-numeric:tabular-nums}}
.end{{text-anchor:end}}
.middle{{text-anchor:middle}}
.strong{{font-weight:600}}
.small{{font-size:11px}}
.hit{{fill:none;pointer-events:all}}
.grid,.axis,.roof,.course,.ring{{fill:none}}
.grid,.axis{{stroke-width:1}}
.roof{{stroke-width:1.6}}
.course{{stroke-width:1.2}}
.ring{{stroke-width:2}}
.limit{{stroke-width:1.4;stroke-dasharray:6 3}}
.faint{{opacity:.45}}
.hatch{{fill:none;stroke-width:1;opacity:.75}}
.halo{{paint-order:stroke;stroke-width:3;stroke-linejoin:round}}
.mark:hover .hit,.mark:focus .hit{{fill-opacity:.15}}
.mark:focus{{outline:none}}
.mark:focus .hit{{stroke-width:1.5}}
.mark:focus .dot{{stroke-width:2.5}}
.quiet{{pointer-events:none}}
.mark:hover .room,.mark:focus .room{{stroke-width:1;opacity:1}}"""


def variables() -> str:
    """The colours of a page's text and surfaces as variables."""
    light, dark = (";".join(f"--{name}:{pair[theme]}" for name, pair in INKS.items()) for theme in (0, 1))
    return f":root{{{light}}}\n{_in_the_dark(f':root{{{dark}}}')}"


def picture_rules() -> str:
    """The rules that pictures are drawn by, in a page or alone; they need no variables, which few programs know."""
    return f"{_FORMS}\n{_rules(0)}\n{_in_the_dark(_rules(1))}"


def _in_the_dark(rules: str) -> str:
    return f"@media screen and (prefers-color-scheme:dark){{\n{rules}\n}}"


def _rules(theme: int) -> str:
    ink = {name: pair[theme] for name, pair in INKS.items()}
    rules = [
        f".surface{{fill:{ink['surface']}}}",
        f".picture text{{fill:{ink['ink']}}}",
        f".picture .soft{{fill:{ink['soft']}}}",
        f".band{{fill:{ink['band']}}}",
        f".grid{{stroke:{ink['line']}}}",
        f".axis,.roof,.limit,.course{{stroke:{ink['ink']}}}",
        f".ring{{stroke:{SERIES[5][theme]}}}",
        f".hatch{{stroke:{ink['surface']}}}",
        f".dot,.halo{{stroke:{ink['surface']}}}",
        f".bound{{fill:{ink['soft']}}}",
        f".mark:hover .hit,.mark:focus .hit{{fill:{ink['accent']}}}",
        f".mark:focus .hit{{stroke:{ink['accent']}}}",
        f".mark:focus .dot,.mark:hover .room,.mark:focus .room{{stroke:{ink['ink']}}}",
    ]
    for i, pair in enumerate(SERIES, 1):
        fill = f"url(#hatch{i})" if i in HATCHES else pair[theme]
        rules.append(f".s{i}{{fill:{pair[theme]}}}.c{i}{{fill:{fill}}}")
    return "\n".join(rules)


def hatches() -> Markup:
    """The patterns behind the classes c1 to c8: once in every document."""
    made = (
        element(
            "pattern",
            rect(0, 0, 6, 6, f"s{i}"),
            element("path", d=lines, class_="hatch"),
            id=f"hatch{i}", width=6, height=6, patternUnits="userSpaceOnUse",
        )
        for i, lines in HATCHES.items()
    )  # fmt: skip
    return element("defs", join(made))


def colour(index: int) -> int:
    """The colour of the index-th of things that may be more than there are colours."""
    return index % len(SERIES) + 1
