"""What lies where in the memory of feature maps, and for how long: time from left to right, addresses upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dnnc.report import capacity, plural
from dnnc.report_page.figures import Network
from dnnc.report_page.markup import NOTHING, Markup, join, label, line, mark, rect, short, wide
from dnnc.report_page.over_time import LEFT, RIGHT, Course
from dnnc.report_page.palette import colour
from dnnc.report_page.picture import Picture, across, legend, upright
from dnnc.report_page.scale import Scale
from dnnc.residency import Residency

_HIGH = 420.0

_CAPTION = (
    "Addresses of the memory for feature maps over time, in the unit whose memory is fullest. A rectangle is rows of "
    "one tensor that are there for equally long, from the section that loads or computes them to the last one that "
    "reads them; colours repeat. Pale: rows on their way to DRAM, and accumulators. Grey: tiles of a layer that runs "
    "by itself, or kernels. White is free. Point at a tensor for its figures; the tables below say the same."
)


class Box(NamedTuple):
    """Words [low, high) that are taken from one section to another, both inclusive; ``map`` -1: by no feature map."""

    map: int
    kind: str
    low: int
    high: int
    start: int
    end: int


def boxes(of: Residency, unit: int) -> tuple[Box, ...]:
    """Everything in one unit's memory, with as few rectangles as there can be without cutting any."""
    found = [
        Box(tenant.map, tenant.kind, address, address + words, tenant.start, tenant.end)
        for tenant in of.tenants
        if tenant.plot.unit == unit
        for _, words, address in tenant.plot.chunks
    ]
    reserved = enumerate(of.made.lives.reserved)
    own = [Box(-1, "own", 0, words, at, at) for at, words in reserved if words]
    return tuple(_in_time(_in_space([*found, *own])))


def _in_space(found: Iterable[Box]) -> Iterator[Box]:
    """Boxes of one map and time that touch as one."""
    ordered = sorted(found, key=lambda box: (box.map, box.kind, box.start, box.end, box.low))
    return _joined(ordered, lambda a, b: a._replace(high=b.high) if _alike(a, b) and a.high == b.low else None)


def _alike(a: Box, b: Box) -> bool:
    """Whether two boxes are of one map and time."""
    return a[:2] == b[:2] and a[4:] == b[4:]


def _in_time(found: Iterable[Box]) -> Iterator[Box]:
    """Boxes of one map and place that follow each other as one."""
    ordered = sorted(found, key=lambda box: (box.map, box.kind, box.low, box.high, box.start))
    return _joined(ordered, lambda a, b: a._replace(end=b.end) if a[:4] == b[:4] and b.start == a.end + 1 else None)


def _joined(boxes: Iterable[Box], join: Callable[[Box, Box], Box | None]) -> Iterator[Box]:
    """Boxes in order, those that can be joined with the one before as one."""
    before: Box | None = None
    for box in boxes:
        both = join(before, box) if before else None
        if before and both is None:
            yield before
        before = both or box
    if before:
        yield before


def memory_map(network: Network) -> Picture | None:
    """The picture; None where every layer runs by itself."""
    if network.made is None or not network.made.lives.plots:
        return None
    of = Residency(network.plan, network.made)
    drawing = _Drawing(network, of, of.fullest_unit)
    title = f"what lies where in the {of.memory.name} memory"
    return Picture(f"{network.slug}-memory", network.name, title, _CAPTION, *drawing.all())


@dataclass(frozen=True)
class _Drawing:
    network: Network
    of: Residency
    unit: int

    def all(self) -> tuple[float, Markup]:
        """Height and body."""
        memory, course = self.of.memory, Course(self.network)
        entries = [("s1", "feature maps, by colour"), ("s1 faint", "on their way"), ("bound faint", "other")]
        names, high = legend(entries, LEFT, 4)
        top = 4 + high + 18
        bottom = top + _HIGH
        scale = Scale(0, 1.04 * memory.bytes / 1024, bottom, top)
        size = scale(memory.bytes / 1024)
        by_map: dict[int, list[Box]] = {}
        for box in sorted(boxes(self.of, self.unit), key=lambda box: box.start):
            by_map.setdefault(box.map, []).append(box)
        ordered = sorted(by_map, key=lambda m: (m >= 0, by_map[m][0].start, m))
        colours = {m: colour(i) for i, m in enumerate(m for m in ordered if m >= 0)}
        quarters = [memory.bytes / 1024 * i / 4 for i in range(5)]
        title = f"address in {memory.name} (KiB)"
        body = [
            names,
            *course.bands(top, bottom),
            upright(scale, LEFT, RIGHT, title, quarters),
            across(course.scale, bottom, bottom, "time (ms)"),
            *(self._map(course, scale, m, by_map[m], colours.get(m, 0)) for m in ordered),
            line(LEFT, size, RIGHT, size, "limit"),
            *(self._name(course, scale, m, by_map[m]) for m in ordered if m >= 0),
        ]
        return bottom + 42, join(body)

    def _map(self, course: Course, scale: Scale, m: int, found: list[Box], index: int) -> Markup:
        """All rectangles of one map."""
        shapes: list[Markup] = []
        for box in found:
            kind = f"s{index}" if box.kind == "row" else (f"s{index} faint" if m >= 0 else "bound faint")
            shapes.append(rect(*self._place(course, scale, box), f"{kind} room"))
        return mark(self._facts(m, found), *shapes)

    def _place(self, course: Course, scale: Scale, box: Box) -> tuple[float, float, float, float]:
        left, right = course.at(self._ticks(box.start)[0]), course.at(self._ticks(box.end)[1])
        word = self.network.machine.word_bytes
        low, high = scale(box.low * word / 1024), scale(box.high * word / 1024)
        return left, high, right - left, low - high

    def _ticks(self, section: int) -> tuple[int, int]:
        """When a section of the plan starts and ends."""
        timing, sections = self.network.timing, self.of.made.program_sections[section]
        first, last = timing.times[sections[0]], timing.times[sections[-1]]
        return round(first.start * timing.ticks_per_cycle), round((last.start + last.cycles) * timing.ticks_per_cycle)

    def _facts(self, m: int, found: list[Box]) -> str:
        first = self.network.milliseconds(self._ticks(min(box.start for box in found))[0])
        last = self.network.milliseconds(self._ticks(max(box.end for box in found))[1])
        when = f"{first:,.3f} to {last:,.3f} ms"
        if m < 0:
            return f"tiles of layers that run by themselves, or kernels\n{when}"
        made, most = self.of.made.steps.maps[m], self._most(found)
        by = "an input" if made.source is None else f"computed by {self.of.made.steps.steps[made.source].layer.name}"
        size = f"{most:,} B at most at once, of {capacity(self.of.memory.bytes)}"
        row = f"{plural(made.lines, 'row')} of {made.words * self.network.machine.word_bytes:,} B"
        return f"{made.value}: {by}\n{when}\n{size}\n{row}{self._fate(made.value)}"

    def _most(self, found: list[Box]) -> int:
        """Bytes at most at once."""
        change: dict[int, int] = {}
        for box in found:
            change[box.start] = change.get(box.start, 0) + box.high - box.low
            change[box.end + 1] = change.get(box.end + 1, 0) - (box.high - box.low)
        held = most = 0
        for at in sorted(change):
            held += change[at]
            most = max(most, held)
        return most * self.network.machine.word_bytes

    def _fate(self, value: str) -> str:
        stored = next((found.rows for found in self.of.stored if found.value == value), 0)
        kept = next((found.rows for found in self.of.kept if found.value == value), 0)
        return f", {stored:,} to DRAM, {kept:,} stay on chip" if stored or kept else ""

    def _name(self, course: Course, scale: Scale, m: int, found: list[Box]) -> Markup:
        """A map's name on its largest rectangle, if that has room for it."""
        places = [self._place(course, scale, box) for box in found if box.kind == "row"]
        left, top, across_, high = max(places, key=lambda place: place[2] * min(place[3], 20), default=(0, 0, 0, 0))
        value = self.of.made.steps.maps[m].value
        length = int((across_ - 6) / wide("n", 11))
        if high < 13 or length < min(7, len(value)):
            return NOTHING
        return label(left + across_ / 2, top + high / 2 + 4, short(value, length), "middle small halo quiet")
