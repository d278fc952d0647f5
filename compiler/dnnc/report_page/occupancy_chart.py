"""How full every memory is over time, against its size."""

from __future__ import annotations

import numpy as np

from dnnc.report import capacity
from dnnc.report_page.figures import Block, Network
from dnnc.report_page.markup import Markup, join, line, path
from dnnc.report_page.over_time import LEFT, RIGHT, Course, staircase
from dnnc.report_page.picture import Picture, across, upright
from dnnc.report_page.scale import Scale
from dnnc.report_page.series import envelope
from dnnc_runtime.machine import Memory

_HIGH, _GAP, _TOP = 130.0, 34.0, 30.0

_CAPTION = (
    "Bytes in use in each memory over time; dashed: its size. KiB = 1,024 bytes. A word is in use from when what "
    "writes it starts until what last reads it has ended; it counts if any unit's memory holds something there. "
    "Solid: in use throughout a bin of the picture; pale: reached in it. Shades tell layers and groups apart."
)


def occupancy(network: Network) -> Picture:
    """A panel for each memory."""
    course, parts = Course(network), list[Markup]()
    top = _TOP
    for memory in network.machine.memories:
        parts += _panel(course, memory, top)
        top += _HIGH + _GAP
    bottom = top - _GAP
    axis = across(course.scale, bottom, bottom, "time (ms)")
    return Picture(
        f"{network.slug}-occupancy",
        network.name,
        "buffer occupancy over time",
        _CAPTION,
        bottom + 42,
        join([*parts, axis]),
    )


def _panel(course: Course, memory: Memory, top: float) -> list[Markup]:
    bottom = top + _HIGH
    scale = Scale(0, 1.08 * memory.bytes / 1024, bottom, top)
    steps = course.network.timing.occupancy[memory.name]
    found = envelope(steps, course.edges)
    least, most = ([scale(pair[i] / 1024) for pair in found] for i in (0, 1))
    size = scale(memory.bytes / 1024)

    def facts(at: Block) -> str:
        ((_, largest),) = envelope(steps, np.array((at.start, at.end), dtype=np.float64))
        return f"{memory.name}: {largest:,} B at most, {100 * largest / memory.bytes:.1f} % of {capacity(memory.bytes)}"

    return [
        *course.bands(top, bottom),
        upright(scale, LEFT, RIGHT, f"{memory.name} (KiB)", _quarters(memory)),
        path([(LEFT, bottom), *staircase(course.places, most), (RIGHT, bottom)], "s1 faint", closed=True),
        path([(LEFT, bottom), *staircase(course.places, least), (RIGHT, bottom)], "s1", closed=True),
        line(LEFT, size, RIGHT, size, "limit"),
        *course.marks(top, bottom, facts),
    ]


def _quarters(memory: Memory) -> list[float]:
    return [memory.bytes / 1024 * i / 4 for i in range(5)]
