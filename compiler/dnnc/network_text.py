"""How layers run together, as text: groups, what stays on chip and for how long, who fills a memory, and why the rest
goes to DRAM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import NamedTuple

from dnnc.grid import Grid
from dnnc.lives import Scene
from dnnc.nest_text import lengths_text
from dnnc.plan import LayerPlan
from dnnc.report import percent, plural
from dnnc.residency import Fullest, Residency, kernels_text
from dnnc.steps import Step
from dnnc.summary import Data, Group

WIDTH = 110
"""Columns that a list of names may take."""


# -- text --------------------------------------------------------------------------------------------------------------


def network_lines(of: Residency) -> Iterator[str]:
    """Groups, memories, what stays on chip and what goes to DRAM, for reading."""
    for group in of.groups:
        yield from (*_group(of, group), "")
    for fullest in of.fullest:
        yield from (*_moment(of, fullest), "")
    for grid, note in ((kept_grid(of), KEPT), (stored_grid(of), STORED)):
        if grid.rows:
            yield from (*grid.lines(), f"  {note}", "")


def _group(of: Residency, group: Group) -> Iterator[str]:
    stay, again = of.kernel_bytes(group)
    rows = [stop - first for first, stop in group.rows]
    some = f"{lengths_text(rows)} rows" if len(rows) > 1 else f"all at once: {plural(rows[0], 'row')}"
    columns = [stop - first for first, stop in group.columns]
    blocks = f" of each of {plural(len(columns), 'block')} of columns" if columns else ""
    yield f"group {group.number}: {plural(len(group.layers), 'layer')} in {plural(len(rows), 'strip')}{blocks}"
    facts = {
        "layers": ", ".join(group.layers),
        "strips": f"{some} of {group.layers[-1]}",
        "blocks": f"{lengths_text(columns)} columns" if columns else "",
        "kernels": kernels_text(group.turns, stay, again),
        "by tiles": _values(of, group.strips.handed, "goes tile by tile from the layer that computes it to the next"),
        "again": _values(of, group.strips.spilled, "does not wait for the next strip, but is loaded again"),
        "before": _on_chip(of, of.made.lives.staying[group.segment]),
        "after": _on_chip(of, of.made.lives.staying[group.segment + 1]),
    }
    for name, fact in facts.items():
        if fact:
            yield from _wrapped(f"  {name:<8} ", fact)


def _values(of: Residency, maps: Sequence[int], what: str) -> str:
    return ", ".join(f"{of.made.steps.maps[m].value} {what}" for m in maps)


def _wrapped(name: str, fact: str) -> list[str]:
    """A fact in lines of whole words."""
    margin = " " * len(name)
    return wrap(
        fact, WIDTH, initial_indent=name, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def _on_chip(of: Residency, lines: Mapping[int, int]) -> str:
    """What is on chip between two groups."""
    found = ((of.made.steps.maps[m], mask.bit_count()) for m, mask in sorted(lines.items()))
    return ", ".join(f"{m.value} ({count} of {m.lines} rows)" for m, count in found)


def _moment(of: Residency, fullest: Fullest) -> Iterator[str]:
    memory, used = fullest.memory, fullest.used
    share = percent(used, memory.bytes)
    yield f"{memory.name} memory: {used:,} B of {memory.bytes:,} B ({share}) at most, while {fullest.when} runs"
    names = [f"{holder.name}: {holder.what}" for holder in fullest.holders]
    width = max(map(len, names), default=0)
    for name, holder in zip(names, fullest.holders, strict=True):
        yield f"  {name:<{width}}  {holder.bytes:>9,} B"


KEPT = "at once: bytes at most at the same time, with the copies that several units have; (n): in group n"
STORED = "needed: by all rows; free: of all units' memories, beside what else is there"


def groups_grid(of: Residency) -> Grid:
    """A line for each group."""
    headings = ("group", "layers", "names", "strips", "rows of the last", "columns", "kernels")
    rows: list[tuple[str, ...]] = []
    for group in of.groups:
        lengths = [stop - first for first, stop in group.rows]
        names = " to ".join(dict.fromkeys((group.layers[0], group.layers[-1])))
        kernels = kernels_text(group.turns, *of.kernel_bytes(group))
        columns = lengths_text([stop - first for first, stop in group.columns]) if group.columns else "all"
        number, count, strips = str(group.number), str(len(group.layers)), str(len(lengths))
        rows.append((number, count, names, strips, lengths_text(lengths), columns, kernels))
    text = frozenset({"names", "rows of the last", "columns", "kernels"})
    return Grid(headings, tuple(rows), text, frozenset({"names"}))


def fullest_grid(of: Residency) -> Grid:
    """A line for everything that is in a memory at its fullest moment."""
    headings = ("memory", "while", "who", "what", "bytes")
    rows: list[tuple[str, ...]] = []
    for found in of.fullest:
        name = found.memory.name
        rows += [(name, found.when, who.name, who.what, f"{who.bytes:,}") for who in found.holders]
        rows.append((name, found.when, "all", f"of {found.memory.bytes:,} B", f"{found.used:,}"))
    return Grid(headings, tuple(rows), frozenset(headings[:-1]), frozenset(headings[1:4]))


def kept_grid(of: Residency) -> Grid:
    """A line for each map that stays on chip: how much of it, and from which layer to which."""
    headings = ("on chip", "rows", "of", "bytes", "at once", "from", "to")
    rows = tuple(
        (
            *(k.value, str(k.rows), str(k.of), f"{k.bytes:,}", f"{k.most:,}"),
            f"{'loaded for ' if k.loaded else ''}{_in_group(of, k.first)}",
            _in_group(of, k.last),
        )
        for k in of.kept
    )
    return Grid(headings, rows, frozenset({"on chip", "from", "to"}), frozenset({"on chip", "from", "to"}))


def _in_group(of: Residency, layer: str) -> str:
    group = of.group_of(layer)
    return f"{layer} ({group.number})" if group else layer


def stored_grid(of: Residency) -> Grid:
    """A line for each map that goes to DRAM: how much of it, and why."""
    headings = ("to DRAM", "rows", "of", "because")
    rows = tuple((s.value, str(s.rows), str(s.of), s.because) for s in of.stored)
    return Grid(headings, rows, frozenset({"to DRAM", "because"}), frozenset({"to DRAM", "because"}))


def together_data(of: Residency) -> Data:
    """The same as plain data."""
    return {
        "kernels": [
            {"group": group.number, "stay_bytes": stay, "with_every_strip_bytes": again}
            for group in of.groups
            for stay, again in (of.kernel_bytes(group),)
        ],
        "on_chip": [asdict(stays) for stays in of.kept],
        "to_dram": [{**asdict(stored), "because": stored.because} for stored in of.stored],
        "fullest": [
            {
                "memory": fullest.memory.name,
                "bytes": fullest.memory.bytes,
                "used_bytes": fullest.used,
                "when": fullest.when,
                "holders": [holder._asdict() for holder in fullest.holders],
            }
            for fullest in of.fullest
        ],
    }


# -- one layer ---------------------------------------------------------------------------------------------------------


class Section(NamedTuple):
    """What a layer does in one section.

    Attributes:
        strip, block: from 1; ``half``: "pool" and "unpooled" where a fused pool is a section of its own, else empty.
        first, stop: rows of its output; ``columns``: likewise.
        chip, dram, stored: (value, rows) that it reads from chip, from DRAM, and that it writes to DRAM.
    """

    strip: int
    block: int
    half: str
    first: int
    stop: int
    columns: tuple[int, int]
    chip: tuple[tuple[str, int], ...]
    dram: tuple[tuple[str, int], ...]
    stored: tuple[tuple[str, int], ...]


def strips_grid(of: Residency, layer: LayerPlan) -> Grid:
    """A line for each section of a layer: the rows it computes, and what it reads from chip and from DRAM."""
    headings = ("block", "strip", "rows", "columns", "from chip", "from DRAM", "to DRAM")
    rows = tuple(
        (
            str(s.block),
            str(s.strip),
            f"{s.half} {s.first + 1} to {s.stop}".strip(),
            f"{s.columns[0] + 1} to {s.columns[1]}",
            *(", ".join(f"{value} {count}" for value, count in found) or "-" for found in (s.chip, s.dram, s.stored)),
        )
        for s in sections(of, layer)
    )
    return Grid(headings, rows, frozenset(headings[2:]), frozenset(headings[4:]))


def strips_data(of: Residency, layer: LayerPlan) -> list[Data]:
    """The same as plain data."""
    found: list[Data] = []
    for section in sections(of, layer):
        data = section._asdict()
        for way in ("chip", "dram", "stored"):
            data[way] = [{"value": value, "rows": count} for value, count in data[way]]
        found.append(data)
    return found


def sections(of: Residency, layer: LayerPlan) -> Iterator[Section]:
    """The sections of a layer of a group, in order."""
    group = of.group_of(layer.name)
    assert group is not None
    halves = of.made.steps.at[of.plan.layers.index(layer)]
    for scene in of.made.lives.of_segment(group.segment):
        for number in scene.steps:
            if number in halves:
                half = ("unpooled", "pool")[halves.index(number)] if len(halves) > 1 else ""
                yield _section(of, group, scene, of.made.steps.steps[number], half)


def _section(of: Residency, group: Group, scene: Scene, step: Step, half: str) -> Section:
    event, maps = scene.event, of.grouping(group).maps
    assert event is not None
    section, out = event.section, step.map
    read_by = {m for read in step.reads for m in read.maps}
    needed = _united((m, lines) for m, _, lines in section.needs if maps[m] in read_by)
    loaded = _united((m, lines) for m, _, lines in event.loads)
    chip = _united((maps[m], lines & ~loaded.get(m, 0)) for m, lines in needed.items())
    dram = _united((maps[m], lines) for m, lines in loaded.items() if m in needed)
    for handed in read_by & {m for m, _, _ in scene.stage} - {out}:
        chip[handed] = sum(section.output)
    stored = _united((out, lines & of.made.stored[out]) for lines in section.output)
    read, fetched, written = (_counted(of, found) for found in (chip, dram, stored))
    where = section.first, section.stop, section.columns
    return Section(section.strip + 1, section.block + 1, half, *where, read, fetched, written)


def _united(found: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The lines of every map, of all units together."""
    out: dict[int, int] = {}
    for m, lines in found:
        out[m] = out.get(m, 0) | lines
    return out


def _counted(of: Residency, found: dict[int, int]) -> tuple[tuple[str, int], ...]:
    """Maps with the number of their rows."""
    return tuple((of.made.steps.maps[m].value, lines.bit_count()) for m, lines in found.items() if lines)
