"""A network's plan made concrete: every section with its rows, every row in its place, every layer with its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dnnc.chip import Chip
from dnnc.grouping import Grouping
from dnnc.kernels import Kernels, lay_out
from dnnc.lives import Lives, Scene, lives
from dnnc.nests import Nested
from dnnc.placement import Unplaced, grow, place
from dnnc.search import Figures
from dnnc.segments import Alone, Segment
from dnnc.steps import Step, Steps
from dnnc.strip_regions import loaded_regions, loads, output_of, stored_regions, whole_regions
from dnnc.weights import PARAMETERS, Grain, cycles
from dnnc_runtime.tensor import bursts, elements

Moved = dict[str, tuple[int, int]]
"""Bytes (read, written) by role."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a plan has to be another one: a segment is too full for everything to find a place.

    Attributes:
        segment: its number.
        missing: bytes that found none.
    """

    segment: int
    missing: int


@dataclass(frozen=True)
class Realized:
    """A plan's segments with all that follows from them.

    Attributes:
        lives: its sections and rows, in their places.
        stored: for every map the lines that go to DRAM.
    """

    steps: Steps
    chip: Chip
    segments: tuple[Segment, ...]
    lives: Lives
    stored: Mapping[int, int]

    @cached_property
    def kernels(self) -> tuple[Mapping[int, Kernels], ...]:
        """By segment, the kernels of every step of it that runs by strips."""
        return tuple(
            lay_out(self.chip.machine, self.steps, grouping, self.lives.of_segment(number)) if grouping else {}
            for number, grouping in enumerate(self.lives.groups)
        )

    @cached_property
    def program_sections(self) -> tuple[range, ...]:
        """For every section of the plan the numbers of those in the program: several where steps go on by turns."""
        out, number = list[range](), 0
        for scene in self.lives.scenes:
            by_turns = len(scene.steps) > 1
            turns = len(scene.steps) * len(self.kernels[scene.segment][scene.steps[-1]].tiles) if by_turns else 1
            out.append(range(number, number + turns))
            number += turns
        return tuple(out)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Bytes of feature maps on chip in every section, in the unit that holds most."""
        word, count = self.chip.machine.word_bytes, len(self.lives.scenes)
        most = list(self.lives.reserved)
        for unit in range(self.chip.units):
            change = [0] * (count + 1)
            for plot in self.lives.plots:
                if plot.unit == unit:
                    change[plot.start] += plot.words
                    change[plot.end + 1] -= plot.words
            held = 0
            for at in range(count):
                held += change[at]
                most[at] = max(most[at], held + self.lives.reserved[at])
        return tuple(words * word for words in most)

    def figures(self) -> dict[int, Figures]:
        """By position what every layer moves, holds and takes that runs by strips, or with operands on chip."""
        out: dict[int, Figures] = {}
        for number, nest in self.lives.nests.items():
            segment = self.segments[number]
            assert isinstance(segment, Alone)
            out[segment.position] = _nest_figures(self, number, nest)
        for number, grouping in enumerate(self.lives.groups):
            if grouping is not None:
                for position, made in _shares(self, number, grouping):
                    out[position] = _sum(out[position], made) if position in out else made
        return out


def realize(
    steps: Steps, chip: Chip, segments: Sequence[Segment], alone: Sequence[tuple[int, int]]
) -> Realized | Misfit:
    """Gives everything that a plan keeps on chip its place.

    Args:
        alone: for every position the DRAM bytes of its layer by itself, and the bytes of feature maps in a unit.

    Returns:
        A misfit, if not everything finds a place.
    """
    made = lives(steps, chip, segments, alone)
    words = chip.machine.memory(chip.memory).bytes // chip.machine.word_bytes
    failure = place(made, words)
    if failure is not None:
        return Misfit(_tightest(made, failure), failure.missing * chip.machine.word_bytes)
    grow(made, words)
    stored = {
        m: (1 << feature.lines) - 1 if feature.must_store else made.loaded.get(m, 0)
        for m, feature in enumerate(steps.maps)
    }
    realized = Realized(steps, chip, tuple(segments), made, stored)
    _trim(realized)
    return realized


def _trim(made: Realized) -> None:
    """Takes back from tiles that only pass through what they do not need of the room that they were given."""
    for kernels, scenes in zip(made.kernels, map(made.lives.of_segment, range(len(made.segments))), strict=True):
        granules = {step: max(of.granules(tile) for tile in of.tiles) for step, of in kernels.items()}
        for scene in scenes if kernels else ():
            most = max(granules[step] for step in scene.steps)
            for plot in scene.stage.values():
                given = plot.words // plot.granule
                if given > most:
                    plot.words, plot.pixel, plot.atom = (n // given * most for n in (plot.words, plot.pixel, plot.atom))
                    plot.chunks = ((0, plot.words, plot.chunks[0][2]),)


def _tightest(made: Lives, failure: Unplaced) -> int:
    """The segment with the fullest section in the life of what found no place."""
    first, last, unit = failure.plot.start, failure.plot.end, failure.plot.unit
    held = list(made.reserved[first : last + 1])
    for plot in made.plots:
        if plot.unit == unit:
            for at in range(max(first, plot.start), min(last, plot.end) + 1):
                held[at - first] += plot.words
    return made.scenes[first + max(range(len(held)), key=held.__getitem__)].segment


def _nest_figures(plan: Realized, segment: int, nest: Nested) -> Figures:
    """Those of a layer that runs with operands on chip: of its nest, and of the rows that it stores when it ends."""
    machine, at = plan.chip.machine, plan.lives.begins(segment)
    payload, bus = dict(nest.figures.traffic), dict(nest.figures.bus)
    output = nest.layer.operand("output")
    assert output is not None
    written = 0
    for unit in range(plan.chip.units) if "output" in nest.maps else ():
        made = plan.steps.maps[nest.output]
        going = sum(1 << line for line in plan.lives.scenes[at].rows[nest.output, 0, unit]) & plan.stored[nest.output]
        for region in whole_regions(made, output.view, going):
            moved = bursts(output.view, region, machine.word_bytes, machine.dram.burst_bytes) * machine.dram.burst_bytes
            written += moved
            _add(payload, "output", 0, elements(region) * machine.word_bytes)
            _add(bus, "output", 0, moved)
    took = round(written * machine.clock_hz / machine.dram.bytes_per_second)
    memory = {**nest.figures.memory, plan.chip.memory: plan.used[at]}
    return replace(nest.figures, traffic=payload, bus=bus, memory=memory, cycles=nest.figures.cycles + took)


def _shares(plan: Realized, segment: int, grouping: Grouping) -> Iterator[tuple[int, Figures]]:
    """(position, figures) of every step of a group."""
    first, loads = plan.lives.begins(segment), dict[int, int]()
    # Of steps with the same kernels the one that runs first loads them.
    for scene in plan.lives.of_segment(segment):
        for number in scene.steps:
            loads.setdefault(plan.kernels[segment][number].place, number)
    for number, cut, pinned in zip(grouping.numbers, grouping.grains, grouping.holding.pinned, strict=True):
        scenes = [
            (at, scene) for at, scene in enumerate(plan.lives.of_segment(segment), first) if number in scene.steps
        ]
        kernels = plan.kernels[segment][number]
        mine = loads[kernels.place] == number
        share = _Share(plan, grouping, plan.steps.steps[number], kernels, scenes, mine)
        yield share.step.position, share.figures(cut, pinned)


@dataclass
class _Share:
    """What one step of a group moves, holds and takes."""

    plan: Realized
    grouping: Grouping
    step: Step
    kernels: Kernels
    scenes: Sequence[tuple[int, Scene]]
    loads: bool

    def figures(self, cut: Grain, pinned: int) -> Figures:
        """All of it."""
        machine, layer = self.plan.chip.machine, self.step.layer
        payload, bus = self._kernels(cut, pinned), self._kernels_on_bus()
        per_byte = machine.clock_hz / machine.dram.bytes_per_second
        kernels = sum(read for read, _ in bus.values()) / max(1, len(self.scenes))
        took = computing = 0
        for _, scene in self.scenes:
            self._rows(scene, payload)
            moved = self._rows_on_bus(scene, bus)
            work = cycles(layer.shape, cut, self.plan.chip, _blocks(scene), _columns(scene))
            computing += work
            took += max(work, round((moved + kernels) * per_byte))
        used = {memory.name: 0 for memory in machine.memories}
        weights = machine.memory_of("weights")
        parameters = machine.memory_of("parameters")
        used[weights.name] = self.kernels.used * machine.word_bytes
        used[parameters.name] = max(used[parameters.name], self.kernels.apart * machine.word_bytes)
        used[self.plan.chip.memory] = max(self.plan.used[at] for at, _ in self.scenes)
        return Figures(payload, bus, used, {}, took, computing)

    def _kernels(self, cut: Grain, pinned: int) -> Moved:
        """Bytes of kernels and parameters: what stays once, the rest in every section."""
        out: Moved = {}
        if cut.each:
            stays = pinned * cut.each
            out["weights"] = self.loads * stays + len(self.scenes) * (cut.whole - stays), 0
        if cut.once and self.loads:
            out["bias"] = cut.once, 0
        return out

    def _kernels_on_bus(self) -> Moved:
        machine, layer = self.plan.chip.machine, self.step.layer
        word, burst = machine.word_bytes, machine.dram.burst_bytes
        views = {operand.role: operand.view for operand in layer.operands}
        out: Moved = {}
        for tile in self.kernels.tiles if layer.shape.kind == "array" else ():
            times = self.loads if tile.stays else len(self.scenes)
            for channels in self.kernels.channels():
                region = self.kernels.region(tile, channels)
                one = -(-elements(region) * word // burst) if layer.shape.packed else bursts(
                    views["weights"], region, word, burst
                )  # fmt: skip
                _add(out, "weights", one * burst * times, 0)
        for role in PARAMETERS:
            if role in views and self.loads:
                _add(out, "bias", bursts(views[role], self.kernels.all_planes, word, burst) * burst, 0)
        return out

    def _rows(self, scene: Scene, to: Moved) -> None:
        """Bytes of the rows that a section loads and stores."""
        assert scene.event is not None
        word, maps = self.plan.chip.machine.word_bytes, self.plan.steps.maps
        for operand, sources in loads(self.plan.steps, self.step, scene):
            for source in sources:
                made, columns = maps[source.map], next(iter(source.here.values())).columns
                pixels = columns.bit_count() if columns else made.geometry.columns
                _add(to, _role(operand.role), source.lines.bit_count() * pixels * made.channels * word, 0)
        made, lines = maps[self.step.map], 0
        for block in scene.event.section.output:
            lines += (block & self.plan.stored.get(self.step.map, 0)).bit_count()
        first, stop = _columns(scene)
        if lines:
            _add(to, "output", 0, lines * (stop - first) * made.channels * word)

    def _rows_on_bus(self, scene: Scene, to: Moved) -> int:
        """The same in bursts; the bytes in both directions."""
        machine, steps = self.plan.chip.machine, self.plan.steps
        word, burst = machine.word_bytes, machine.dram.burst_bytes
        total = 0
        for operand, sources in loads(steps, self.step, scene):
            for region in loaded_regions(steps, operand, sources):
                moved = bursts(operand.view, region, word, burst) * burst
                _add(to, _role(operand.role), moved, 0)
                total += moved
        stored = self.plan.stored.get(self.step.map, 0)
        for region in stored_regions(self.grouping, self.step, scene, stored, self.kernels.tiles):
            moved = bursts(output_of(self.step).view, region, word, burst) * burst
            _add(to, "output", 0, moved)
            total += moved
        return total


def _role(role: str) -> str:
    return "other" if role == "second" else role


def _add(to: Moved, role: str, read: int, written: int) -> None:
    before = to.get(role, (0, 0))
    to[role] = before[0] + read, before[1] + written


def _blocks(scene: Scene) -> tuple[tuple[int, int], ...]:
    assert scene.event is not None
    return tuple(block for block in scene.event.section.blocks if block[1] > block[0])


def _columns(scene: Scene) -> tuple[int, int]:
    assert scene.event is not None
    return scene.event.section.columns


def _sum(a: Figures, b: Figures) -> Figures:
    """The figures of both halves of a layer with a fused pool."""
    payload, bus = dict(a.traffic), dict(a.bus)
    for to, more in ((payload, b.traffic), (bus, b.bus)):
        for role, (read, written) in more.items():
            _add(to, role, read, written)
    memory = {name: max(used, b.memory[name]) for name, used in a.memory.items()}
    return Figures(payload, bus, memory, {}, a.cycles + b.cycles, a.compute_cycles + b.compute_cycles)
