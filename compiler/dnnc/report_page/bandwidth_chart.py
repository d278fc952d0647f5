"""How much the DRAM channel carries over time, against what it can."""

from __future__ import annotations

import numpy as np

from dnnc.report_page.figures import Line, Network
from dnnc.report_page.legends import ROLE_CLASS, role_name
from dnnc.report_page.markup import Markup, join, label, line, path
from dnnc.report_page.over_time import LEFT, RIGHT, Course, staircase
from dnnc.report_page.picture import Picture, across, legend, upright
from dnnc.report_page.scale import Scale
from dnnc.report_page.series import Floats, channel_bytes

_HIGH = 220.0

_CAPTION = (
    "Bytes on the DRAM channel per second, whole bursts, averaged over bins of the picture and stacked by tensor; "
    "dashed: what the channel can carry. Shades tell layers apart."
)


def bandwidth(network: Network) -> Picture:
    """GB/s by tensor over time."""
    course = Course(network)
    moved = channel_bytes(network.timing, course.edges)
    names, high = legend([(ROLE_CLASS[role], role_name(role)) for role in moved], LEFT, 4)
    top = 4 + high + 18
    bottom = top + _HIGH
    roof = network.machine.dram.bytes_per_second / 1e9
    scale = Scale(0, 1.12 * roof, bottom, top)
    body = [
        names,
        *course.bands(top, bottom),
        upright(scale, LEFT, RIGHT, "DRAM (GB/s)"),
        *_stacked(course, {ROLE_CLASS[role]: found / course.bin_seconds / 1e9 for role, found in moved.items()}, scale),
        line(LEFT, scale(roof), RIGHT, scale(roof), "limit"),
        label(RIGHT - 4, scale(roof) - 5, f"channel {roof:g} GB/s", "end small"),
        *course.marks(top, bottom, lambda at: _facts(network, at)),
        across(course.scale, bottom, bottom, "time (ms)"),
    ]
    return Picture(
        f"{network.slug}-bandwidth", network.name, "DRAM bandwidth over time", _CAPTION, bottom + 42, join(body)
    )


def _stacked(course: Course, rates: dict[str, Floats], scale: Scale) -> list[Markup]:
    """An area for each class, on top of those before it."""
    below: Floats = np.zeros(len(course.edges) - 1)
    areas: list[Markup] = []
    for kind, rate in rates.items():
        above = below + rate
        over, under = (staircase(course.places, [scale(v) for v in edge.tolist()]) for edge in (above, below))
        areas.append(path([*over, *reversed(under)], kind, closed=True))
        below = above
    return areas


def _facts(network: Network, at: Line) -> str:
    moved = at.plan.figures.bus_bytes
    rate = moved / at.seconds / 1e9 if at.seconds else 0.0
    return f"{moved / 1e6:,.3f} MB on the bus: {rate:,.3f} GB/s, channel busy {_busy(at):.1f} % of the time"


def _busy(at: Line) -> float:
    return 100 * at.time.channel / at.time.cycles if at.time.cycles else 0.0
