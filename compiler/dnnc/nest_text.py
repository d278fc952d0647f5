"""A layer's loop nest as text: at which loop each operand is loaded or stored, how often and how many bytes.

The places follow from the schedule; the counts are read off the program's instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dnnc.axis import Cut
from dnnc.plan import LayerPlan
from dnnc.report import plural
from dnnc.schedule import Dim
from dnnc.space import locate
from dnnc.traffic import Model
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Load, Move, Role, Section, Store
from dnnc_runtime.tensor import elements

Verb = Literal["load", "move", "store"]

_ORDER = ("bias", "scale", "slope", "input", "weights", "second", "partial_sums", "residual", "pending", "output")
_VERBS: dict[type[Load] | type[Store] | type[Move], Verb] = {Load: "load", Store: "store", Move: "move"}
_WAYS: dict[Verb, str] = {
    "load": "load {name} into {memory}",
    "store": "store {name} from {memory}",
    "move": "move {name} between units' {memory}",
}
_WORDS = {"second": "second operand", "partial_sums": "partial sums", "pending": "begun pool windows"}
_NOUNS: dict[Dim, str] = {"y": "rows", "x": "columns", "k": "planes", "c": "channels", "g": "groups"}


@dataclass(frozen=True, slots=True)
class Transfer:
    """Everything that a layer moves of one operand in one way.

    Attributes:
        verb: "load" and "store" are between DRAM and the memory, "move" is between two units' memories.
        loop: the innermost loop in whose body it stands; None if it stands outside all.
        after: it stands behind the loops inside that one.
        when: what else has to hold, as a clause.
        times, least, most, total: how often, and bytes of the smallest, the largest and all of them.
        broadcast: some words go to several units in one read.
    """

    verb: Verb
    role: Role
    memory: str
    loop: Dim | None
    after: bool
    when: str
    times: int
    least: int
    most: int
    total: int
    broadcast: bool

    def __str__(self) -> str:
        name = _WORDS.get(self.role, self.role)
        way = _WAYS[self.verb].format(name=name, memory=self.memory)
        if self.times == 1:
            sizes = f"{self.total:,} B once"
        elif self.least == self.most:
            sizes = f"{self.times:,} x {self.most:,} B = {self.total:,} B"
        else:
            sizes = f"{self.times:,} x {self.least:,} to {self.most:,} B, {self.total:,} B in all"
        notes = ", ".join(filter(None, (self.when, "broadcast" if self.broadcast else "")))
        return f"{way}: {sizes}" + (f" ({notes})" if notes else "")


def transfers(plan: LayerPlan, section: Section, machine: Machine) -> tuple[Transfer, ...]:
    """A layer's transfers, one for each operand and way, in the order of a visit."""
    model, _ = locate(plan.layer.shape, machine, plan.schedule)
    moved: dict[tuple[Verb, Role], list[Load | Store | Move]] = {}
    for instruction in section.instructions:
        if isinstance(instruction, Load | Store | Move):
            moved.setdefault((_VERBS[type(instruction)], instruction.role), []).append(instruction)
    found = [_transfer(plan, model, verb, role, these) for (verb, role), these in moved.items()]
    return tuple(sorted(found, key=lambda t: (t.after, _ORDER.index(t.role), t.verb)))


def _transfer(
    plan: LayerPlan, model: Model, verb: Verb, role: Role, instructions: list[Load | Store | Move]
) -> Transfer:
    machine = model.machine
    size = {"word": machine.word_bytes, "accumulator": machine.accumulator_bytes}
    counts = [_elements(instruction) * size[instruction.width] for instruction in instructions]
    loop, after, when = _place(model, verb, role)
    pin = plan.schedule.pin
    if pin and pin.operand == role and verb == "load":
        tiles = plan.schedule.trips(plan.layer.shape)[pin.dim]
        when = f"{pin.tiles} of {tiles} {pin.dim} tiles stay while {pin.loop} runs"
    elif role == "input" and verb == "load" and _keeps(plan, model):
        when = "halo kept"
    broadcast = any(isinstance(i, Load) and any(len(p.instances) > 1 for p in i.pieces) for i in instructions)
    memory = instructions[0].memory
    return Transfer(
        verb, role, memory, loop, after, when, len(counts), min(counts), max(counts), sum(counts), broadcast
    )


def _elements(instruction: Load | Store | Move) -> int:
    if isinstance(instruction, Move):
        return sum(piece.size for piece in instruction.source)
    return sum(elements(region) for region in instruction.transfers)


def _keeps(plan: LayerPlan, model: Model) -> bool:
    """Whether the tile before holds something of the next one, and it is kept."""
    axis = model.halo_axis
    if axis is None or not model.kept(axis):
        return False
    window = plan.layer.shape.y if axis == "y" else plan.layer.shape.x
    return (window.kernel - 1) * window.dilation + 1 > window.stride


def _place(model: Model, verb: Verb, role: Role) -> tuple[Dim | None, bool, str]:
    """(innermost loop around it, whether behind the loops inside, clause) of an operand's transfers."""
    order = model.order
    innermost = order[-1] if order else None
    last = "at the last c tile" if "c" in order else ""
    if role == "partial_sums":
        return innermost, verb == "store", f"but at the {'first' if verb == 'load' else 'last'} c tile"
    if role == "residual":
        return innermost, False, last
    if role in ("output", "pending"):
        if model.spills:
            return innermost, True, last
        rows_wait = model.shape.pool and "y" in order and verb == "store"
        return _loop(model, "output"), True, "pool windows as they are complete" if rows_wait else ""
    if role in ("bias", "scale", "slope"):
        return (_loop(model, "parameters") if model.structure.follow else None), False, ""
    return _loop(model, "other" if role == "second" else role), False, ""


def _loop(model: Model, role: str) -> Dim | None:
    position = model.structure.innermost(model.relevant[role])
    return model.order[position] if position >= 0 else None


def nest_lines(plan: LayerPlan, moved: Iterable[Transfer]) -> Iterator[str]:
    """The loop nest, indented, with every transfer at its loop."""
    order, listed = plan.schedule.order, tuple(moved)

    def at(loop: Dim | None, after: bool, depth: int) -> Iterator[str]:
        yield from (f"{'  ' * depth}{t}" for t in listed if (t.loop, t.after) == (loop, after))

    yield from at(None, False, 0)
    for depth, dim in enumerate(order):
        yield f"{'  ' * depth}for {dim} in {_tiles(plan, dim)}"
        yield from at(dim, False, depth + 1)
    yield from ("  " * len(order) + line for line in _compute(plan))
    for depth, dim in reversed(list(enumerate(order, start=1))):
        yield from at(dim, True, depth)
    yield from at(None, True, 0)


def _tiles(plan: LayerPlan, dim: Dim) -> str:
    schedule, shape = plan.schedule, plan.layer.shape
    trips = schedule.trips(shape)[dim]
    if dim in ("y", "x"):
        images = f"{shape.n} images x " if dim == "y" and shape.n > 1 else ""
        return f"{trips} tiles: {images}{_lengths(schedule.y if dim == 'y' else schedule.x)} {_NOUNS[dim]}"
    size, total = {"k": (schedule.k, shape.k), "c": (schedule.c, shape.c), "g": (schedule.g, shape.g)}[dim]
    last = total - (trips - 1) * size
    return f"{trips} tiles of {size} {_NOUNS[dim]}" + (f", the last of {last}" if last != size else "")


def _lengths(cut: Cut) -> str:
    """The tile lengths of every unit's block: 5-4-4, or 4 x 7 where they are all equal."""
    blocks = [lengths_text([stop - first for first, stop in block]) for block in cut.tiles]
    if len(blocks) == 1:
        return blocks[0]
    same = all(block == blocks[0] for block in blocks)
    return f"{blocks[0]} in each of {len(blocks)} units" if same else f"{' | '.join(blocks)} in {len(blocks)} units"


def lengths_text(lengths: Sequence[int]) -> str:
    """Lengths one after the other, or how many of which size where these are many."""
    if not lengths:
        return "none"
    if len(set(lengths)) == 1:
        return f"{len(lengths)} x {lengths[0]}" if len(lengths) > 1 else str(lengths[0])
    if len(lengths) <= 8:
        return "-".join(map(str, lengths))
    return f"{len(lengths)} x {min(lengths)} to {max(lengths)}"


def _compute(plan: LayerPlan) -> Iterator[str]:
    shape, schedule, kernel = plan.layer.shape, plan.schedule, plan.layer.kernel
    extents = (schedule.y.largest, "row"), (schedule.x.largest, "column"), (schedule.g * schedule.k, "plane")
    tile = " x ".join(plural(count, noun) for count, noun in extents)
    taps = f"{shape.y.kernel}x{shape.x.kernel} taps"
    if shape.kind == "array":
        yield f"multiply and accumulate {tile} from {plural(schedule.c, 'channel')}, {taps}"
    else:
        yield f"{kernel.operation} {tile}" + (f", {taps}" if kernel.operation == "pool" else "")
    if plan.fused:
        when = "at the last c tile" if "c" in schedule.order else "then"
        yield f"{when} {', '.join(plan.fused).replace('_', ' ')}"
