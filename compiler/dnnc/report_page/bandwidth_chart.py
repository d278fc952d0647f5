"""How much the DRAM channel carries over time, against what it can."""

from __future__ import annotations

import numpy as np

from dnnc.report_page.figures import Block, Network
from dnnc.report_page.legends import ROLE_CLASS, role_name
from dnnc.report_page.markup import Markup, join, label, line, path
from dnnc.report_page.over_time import LEFT, RIGHT, Course, staircase
from dnnc.report_page.picture import Picture, across, legend, upright
from dnnc.report_page.scale import Scale
from dnnc.report_page.series import Floats, channel_bytes

_HIGH = 220.0

_CAPTION = (
    "Bytes on the DRAM channel per second, whole bursts, averaged over bins of the picture and stacked by tensor; "
    "dashed: what the channel can carry. Shades tell layers and groups apart."
)


def bandwidth(network: Network) -> Picture:
    """GB/s by tensor over time."""
    course = Course(network)
    moved = channel_bytes(network.timing, course.edges)
    names, high = legend([(ROLE_CLASS[role], role_name(role)) for role in moved], LEFT, 4)
    top = 4 + high + 18
    bottom = top + _HIGH
    roof = network.machine.dram.bytes_per_second / 1e9
    busy = _by_block(network)
    scale = Scale(0, 1.12 * roof, bottom, top)
    body = [
        names,
        *course.bands(top, bottom),
        upright(scale, LEFT, RIGHT, "DRAM (GB/s)"),
        *_stacked(course, {ROLE_CLASS[role]: found / course.bin_seconds / 1e9 for role, found in moved.items()}, scale),
        line(LEFT, scale(roof), RIGHT, scale(roof), "limit"),
        label(RIGHT - 4, scale(roof) - 5, f"channel {roof:g} GB/s", "end small"),
        *course.marks(top, bottom, lambda at: _facts(network, at, busy[at.start])),
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


def _by_block(network: Network) -> dict[int, float]:
    """Bytes on the bus in the time of every block, by its start; those of a block may run ahead into that before."""
    starts = [block.start for block in network.blocks]
    edges = np.array([*starts, network.timing.ends[-1]], dtype=np.float64)
    moved = sum(channel_bytes(network.timing, edges).values(), np.zeros(len(starts)))
    return dict(zip(starts, moved.tolist(), strict=True))


def _facts(network: Network, at: Block, moved: float) -> str:
    seconds = network.milliseconds(at.end - at.start) / 1e3
    rate, most = moved / seconds if seconds else 0.0, network.machine.dram.bytes_per_second
    return (
        f"{moved / 1e6:,.3f} MB on the bus: {rate / 1e9:,.3f} GB/s, channel busy {100 * rate / most:.1f} % of the time"
    )
