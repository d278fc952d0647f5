"""The roofline: what networks and layers attain, under what their machines could."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import atan2, cos, degrees, hypot, pi, sin

from dnnc.performance import Performance
from dnnc.report_page.figures import Network, intensity, peak
from dnnc.report_page.markup import NOTHING, Markup, element, join, label, mark, number, path, wide
from dnnc.report_page.palette import colour
from dnnc.report_page.picture import WIDTH, Picture, across, upright
from dnnc.report_page.scale import Scale
from dnnc_runtime.machine import Machine

_TOP, _BOTTOM, _LEFT, _RIGHT = 20.0, 470.0, 66.0, WIDTH - 20.0

_CAPTION = (
    "Operations per second against operations per DRAM payload byte, both axes logarithmic. Large marks are networks, "
    "small ones their layers; lines are what the machine can do at most: flat, every multiplier busy; sloped, the DRAM "
    "channel busy. Layers without multiply-accumulates (pools, sums) do no operations in this sense and are no points."
)


def roofline(networks: Sequence[Network]) -> Picture:
    """All networks and their layers under the roofs of their machines."""
    machines = tuple({network.machine.digest: network.machine for network in networks}.values())
    x, y = _scales(networks, machines)
    axes = across(x, _TOP, _BOTTOM, "operations per DRAM byte (op/B)"), upright(y, _LEFT, _RIGHT, "Gop/s")
    roofs = [_roof(machine, x, y, len(machines) > 1) for machine in machines]
    small = [point for i, network in enumerate(networks) for point in _layers(network, i, x, y)]
    body = join([*axes, *roofs, *small, *_networks(networks, x, y)])
    return Picture("roofline", "", "Roofline", _CAPTION, _BOTTOM + 46, body)


def _points(networks: Iterable[Network]) -> list[Performance]:
    every = [(network.performance, *(line.performance for line in network.layers)) for network in networks]
    return [of for found in every for of in found if _is_point(of)]


def _is_point(of: Performance) -> bool:
    """Whether it computes, and moves anything: both axes are logarithmic."""
    return bool(of.ops_per_second and of.dram_bytes)


def _scales(networks: Sequence[Network], machines: Sequence[Machine]) -> tuple[Scale, Scale]:
    points = _points(networks)
    ridges = [peak(m) / m.dram.bytes_per_second for m in machines]
    intensities = [*(intensity(of) for of in points), *ridges]
    rates = [*(of.ops_per_second for of in points), *(peak(m) / 4 for m in machines)]
    x = Scale(min(intensities) / 2, max(*intensities, 4 * max(ridges)) * 1.5, _LEFT, _RIGHT, log=True)
    y = Scale(min(rates) / 2e9, 1.6 * max(peak(m) for m in machines) / 1e9, _BOTTOM, _TOP, log=True)
    return x, y


def _roof(machine: Machine, x: Scale, y: Scale, several: bool) -> Markup:
    speed, top = machine.dram.bytes_per_second / 1e9, peak(machine) / 1e9
    foot = max(x.least, y.least / speed)
    points = [(x(a), y(b)) for a, b in ((foot, foot * speed), (top / speed, top), (x.most, top))]
    (x0, y0), (x1, y1), (x2, y2) = points
    of = f"{machine.name}: " if several else ""
    channel = f"{of}DRAM {speed:g} GB/s"
    roomy = hypot(x1 - x0, y1 - y0) > wide(channel) + 20
    flat = f"{of}{top:g} Gop/s" + ("" if roomy else f", DRAM {speed:g} GB/s")
    return mark(
        f"{machine.name}\n{top:g} Gop/s = 2 x {machine.macs_per_cycle} multipliers x {machine.clock_hz / 1e6:g} MHz\n"
        f"DRAM {speed:g} GB/s",
        path(points, "roof"),
        _along(points[0], points[1], channel) if roomy else NOTHING,
        label(x2 - 4, y2 - 8, flat, "end"),
    )


def _along(start: tuple[float, float], end: tuple[float, float], content: str) -> Markup:
    """Text above the middle of a slope."""
    (x0, y0), (x1, y1) = start, end
    turn = atan2(y1 - y0, x1 - x0)
    middle = (x0 + x1) / 2 + 9 * sin(turn), (y0 + y1) / 2 - 9 * cos(turn)
    return label(*middle, content, "middle", turn=degrees(turn))


def _layers(network: Network, index: int, x: Scale, y: Scale) -> list[Markup]:
    return [
        mark(
            f"{network.name}: {line.name}\n{_facts(of)}",
            shape(index, x(intensity(of)), y(of.ops_per_second / 1e9), 4.5),
        )
        for line in network.layers
        if _is_point(of := line.performance)
    ]


def _networks(networks: Sequence[Network], x: Scale, y: Scale) -> list[Markup]:
    """Large marks, and a legend where no roof is high enough to have points: at the lower right."""
    widest = max(wide(network.name, 13) for network in networks)
    parts: list[Markup] = []
    for index, network in enumerate(networks):
        of, down = network.performance, _BOTTOM - 22 * (len(networks) - index)
        parts.append(shape(index, _RIGHT - widest - 24, down - 4, 6))
        parts.append(label(_RIGHT - widest - 10, down, network.name, "strong halo"))
        if _is_point(of):
            large = shape(index, x(intensity(of)), y(of.ops_per_second / 1e9), 9)
            parts.append(mark(f"{network.name}\n{_facts(of)}", large))
    return parts


def _facts(of: Performance) -> str:
    return (
        f"{of.ops / 1e6:,.3f} Mop, {of.dram_bytes / 1e6:,.3f} MB of DRAM payload: {intensity(of):,.2f} op/B\n"
        f"{1e3 * of.seconds:,.3f} ms: {of.ops_per_second / 1e9:,.2f} Gop/s, {100 * of.efficiency:.1f} % of the peak"
    )


def shape(index: int, x: float, y: float, size: float) -> Markup:
    """The mark of the index-th network: forms and colours differ, and repeat after many."""
    kind = f"s{colour(index)} dot"
    corners = (0, 4, 3, 5, 6)[index % 5]
    if not corners:
        return element("circle", cx=x, cy=y, r=size, class_=kind)
    turns = [pi * (2 * i / corners - 0.5) for i in range(corners)]
    points = " ".join(f"{number(x + 1.25 * size * cos(t))},{number(y + 1.25 * size * sin(t))}" for t in turns)
    return element("polygon", points=points, class_=kind)
