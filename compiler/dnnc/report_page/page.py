"""The page: every picture and table of some networks in one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources

import dnnc
from dnnc.network_text import KEPT, STORED, fullest_grid, groups_grid, kept_grid, stored_grid
from dnnc.report import layer_by_layer, plan_lines, plural, verdict
from dnnc.report_page.bandwidth_chart import bandwidth
from dnnc.report_page.definitions import DEFINITIONS
from dnnc.report_page.figures import Network, figures_data
from dnnc.report_page.fronts import LayerFront
from dnnc.report_page.fronts_chart import fronts
from dnnc.report_page.markup import NOTHING, Markup, element, join, text
from dnnc.report_page.memory_map import memory_map
from dnnc.report_page.occupancy_chart import occupancy
from dnnc.report_page.palette import hatches, picture_rules, variables
from dnnc.report_page.per_layer import time, traffic
from dnnc.report_page.picture import Picture
from dnnc.report_page.roofline import roofline
from dnnc.report_page.schedule_table import host_table, network_table, plain_table, schedule_table
from dnnc.residency import Residency

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="generator" content="dnnc {version}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
"""


def pictures(networks: Sequence[Network]) -> tuple[Picture, ...]:
    """All pictures: the roofline, and those of each network."""
    return (roofline(networks), *(picture for network in networks for picture in _pictures(network)))


def _pictures(network: Network) -> list[Picture]:
    """Of one network; none if the array runs none of it."""
    if not network.timing.cycles:
        return []
    drawn = [traffic(network), time(network), occupancy(network), bandwidth(network)]
    where = memory_map(network)
    drawn += [where] if where else []
    front = fronts(network.slug, network.name, network.fronts) if network.fronts else None
    return [*drawn, front] if front else drawn


def page(networks: Sequence[Network]) -> str:
    """The page as HTML."""
    names = ", ".join(network.name for network in networks) if len(networks) < 4 else f"{len(networks)} networks"
    title = f"{names}: DRAM traffic and time"
    style = f"{variables()}\n{picture_rules()}\n{_resource('page.css')}"
    parts = [
        element("svg", hatches(), class_="defs", aria_hidden="true"),
        _header(networks, title),
        element("main", _overview(networks), join(map(_network, networks)), _definitions()),
        element("div", id="tip", role="tooltip", hidden=""),
        element("script", _figures(networks), type="application/json", id="figures"),
        element("script", Markup(f"\n{_resource('page.js')}")),
    ]
    head = _HEAD.format(version=text(dnnc.__version__), title=text(title), style=style)
    return f"{head}{join(parts, chr(10))}\n</body>\n</html>\n"


def _resource(name: str) -> str:
    return (resources.files("dnnc.report_page") / name).read_text("utf-8")


def _figures(networks: Sequence[Network]) -> Markup:
    """The figures as JSON, in which nothing can end the element that it stands in."""
    data = {"dnnc": dnnc.__version__, "networks": [figures_data(network) for network in networks]}
    written = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written)


def _header(networks: Sequence[Network], title: str) -> Markup:
    lead = (
        f"dnnc {dnnc.__version__}. MB = 10⁶ bytes, KiB = 1,024 bytes. "
        "Point at a mark, or go to it with Tab and the arrow keys, for its figures."
    )
    items = [
        ("overview", "Overview"),
        *((f"{n.slug}-network", n.name) for n in networks),
        ("definitions", "Definitions"),
    ]
    links = join(element("li", element("a", text(name), href=f"#{place}")) for place, name in items)
    nav = element("nav", element("ul", links), aria_label="On this page")
    return element("header", element("h1", text(title)), element("p", text(lead), class_="lead"), nav)


def _overview(networks: Sequence[Network]) -> Markup:
    heading = element("h2", text("Overview"), class_="near")
    return element(
        "section", heading, _scrolled(network_table(networks), "Networks"), _figure(roofline(networks)), id="overview"
    )


def _network(network: Network) -> Markup:
    drawn = _pictures(network)
    contents = [(picture.name, picture.title) for picture in drawn]
    contents += [(f"{network.slug}-chip", "what stays on chip")] if network.made else []
    contents.append((f"{network.slug}-schedules", "schedules"))
    links = join(element("li", element("a", text(name), href=f"#{place}")) for place, name in contents)
    return element(
        "section",
        element("h2", text(network.name)),
        element("p", text(f"On {verdict(network.plan)}.")),
        _plan(network),
        element("nav", element("ul", links), aria_label=f"Of {network.name}"),
        join(map(_figure, drawn)),
        _untraded(network.fronts) if network.fronts else NOTHING,
        _on_chip(network),
        _schedules(network),
        id=f"{network.slug}-network",
    )


def _plan(network: Network) -> Markup:
    """The plan's bytes and time, against those of plans that do less."""
    found = [f"{word} {fact}".strip() for word, fact in plan_lines(network.plan)]
    if not found:
        return NOTHING
    told = "; ".join(found)
    if network.plan.network:
        ms = 1e3 * network.performance.seconds
        told += f". {ms:,.2f} ms; {layer_by_layer(network.plan, network.performance)}"
    return element("p", text(f"{told[:1].upper()}{told[1:]}."), class_="note")


def _on_chip(network: Network) -> Markup:
    """Groups, what stays on chip and what goes to DRAM as tables."""
    if network.made is None:
        return NOTHING
    of = Residency(network.plan, network.made)
    heading = element("h3", text(f"{network.name}: what stays on chip"), id=f"{network.slug}-chip")
    captions = {
        "Groups of layers that run by strips": groups_grid(of),
        f"On chip from layer to layer; {KEPT}": kept_grid(of),
        f"To DRAM; {STORED}": stored_grid(of),
        "Who fills each memory at its fullest moment": fullest_grid(of),
    }
    tables = (
        _scrolled(plain_table(caption, grid.headings, grid.rows, frozenset(grid.headings) - grid.text), caption)
        for caption, grid in captions.items()
        if grid.rows
    )
    return element("div", heading, *tables, class_="table")


def _schedules(network: Network) -> Markup:
    heading = element("h3", text(f"{network.name}: schedules"), id=f"{network.slug}-schedules")
    table = _scrolled(schedule_table(network), f"{network.name}: schedules")
    return element("div", heading, table, _hosts(network), class_="table")


def _untraded(found: Sequence[LayerFront]) -> Markup:
    """Names the layers that have no picture of their front."""
    names = [name for front in found if not front.trades for name in front.layers]
    if not names:
        return NOTHING
    told = f"{plural(len(names), 'layer')} with one schedule that has both the fewest bytes and the fewest cycles"
    return element("p", text(f"{told}: {', '.join(names)}."), class_="note")


def _hosts(network: Network) -> Markup:
    return _scrolled(host_table(network.plan.on_host), "On the host") if network.plan.on_host else NOTHING


def _figure(picture: Picture) -> Markup:
    heading = element("h3", text(picture.heading))
    drawn = _scrolled(picture.inline(), picture.heading)
    return element("figure", heading, drawn, element("figcaption", text(picture.caption)), id=picture.name)


def _scrolled(content: Markup, name: str) -> Markup:
    """Content that may be wider than the screen."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def _definitions() -> Markup:
    terms = join(join([element("dt", text(term)), element("dd", text(meaning))]) for term, meaning in DEFINITIONS)
    return element("section", element("h2", text("Definitions")), element("dl", terms), id="definitions")


def standalone(networks: Sequence[Network]) -> Mapping[str, str]:
    """Every picture as a file: names and contents."""
    return {f"{picture.name}.svg": picture.file() for picture in pictures(networks)}
