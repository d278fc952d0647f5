"""What is on chip over time: whose rows, for how long, who fills a memory, and why the rest goes to DRAM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from dnnc.grouping import Grouping
from dnnc.layer import HostLayer, Layer
from dnnc.lives import Plot, Scene
from dnnc.plan import Plan
from dnnc.realize import Realized
from dnnc.report import plural
from dnnc.segments import Alone
from dnnc.summary import Group, groups
from dnnc.traffic import MEMORY_ROLE
from dnnc_runtime.machine import Memory


class Tenant(NamedTuple):
    """What has a plot, from one section to another: a row of a map, a tile of its rows on their way, or what the nest
    that computes it holds."""

    plot: Plot
    start: int
    end: int
    map: int
    kind: Literal["row", "tile", "handed", "sums", "nest"]


class Holder(NamedTuple):
    """Something that is in a memory."""

    name: str
    what: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Fullest:
    """The fullest moment of a memory: in the unit that holds most, and who holds it.

    Attributes:
        when: layer and strip.
        used: bytes.
    """

    memory: Memory
    when: str
    used: int
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A feature map of which rows never come from DRAM; or of which rows stay for another segment, though all do once.

    Attributes:
        rows, of: how many of how many.
        bytes: of these rows; ``most``: on chip at once, with copies that several units have.
        first, last: the layer that computes it, or for which it is loaded, and the last one that reads it on chip.
        loaded: whether it is loaded.
    """

    value: str
    rows: int
    of: int
    bytes: int
    most: int
    first: str
    last: str
    loaded: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A feature map that goes to DRAM.

    Attributes:
        rows, of: how many rows go there, of how many.
        needed: bytes of all its rows.
        free: bytes of all units' memories that others leave free in the fullest section between its first row and its
            last reader; ``when``: that section. None where this is not the reason.
        why: what else demands it; empty if nothing does.
    """

    value: str
    rows: int
    of: int
    needed: int
    free: int | None
    when: str
    why: str

    @property
    def because(self) -> str:
        """The reason in a clause."""
        if self.free is None:
            return self.why
        room = f"{self.needed:,} B needed, {self.free:,} B free while {self.when} runs"
        spare = "no better plan that keeps more was found" if self.free >= self.needed else ""
        return "; ".join(filter(None, (self.why, room, spare)))


@dataclass(frozen=True)
class Residency:
    """A plan whose layers run together, and what that is made concrete as."""

    plan: Plan
    made: Realized

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups in execution order."""
        return groups(self.plan)

    def group_of(self, layer: str) -> Group | None:
        """The group that a layer is in."""
        return next((group for group in self.groups if layer in group.layers), None)

    def grouping(self, group: Group) -> Grouping:
        """The steps and kernels of a group."""
        found = self.made.lives.groups[group.segment]
        assert found is not None
        return found

    def by_rows(self, layer: str) -> Layer:
        """A layer as it is run by rows, without a fused pool."""
        return next(step.layer for step in self.made.steps.steps if step.layer.name == layer)

    # -- time ------------------------------------------------------------------------------------------------------

    def when(self, at: int) -> str:
        """The layer of a section, and its strip."""
        scene = self.made.lives.scenes[at]
        segment = self.made.segments[scene.segment]
        if isinstance(segment, Alone):
            return self.plan.layers[segment.position].name
        assert scene.event is not None
        assert scene.step is not None
        group, section = self._by_segment[scene.segment], scene.event.section
        name = self.plan.layer_of(self.made.steps.steps[scene.step].layer.name)
        strip = f"strip {section.strip + 1} of " if len(group.rows) > 1 else ""
        block = f"block {section.block + 1} of " if group.columns else ""
        image = f" of image {section.image + 1}" if self.grouping(group).group.images > 1 else ""
        return f"{name} ({strip}{block}group {group.number}{image})"

    @cached_property
    def _by_segment(self) -> dict[int, Group]:
        return {group.segment: group for group in self.groups}

    @cached_property
    def _segment_at(self) -> dict[int, int]:
        """By position the segment of a layer."""
        out: dict[int, int] = {}
        for number, segment in enumerate(self.made.segments):
            out.update(dict.fromkeys(segment.positions, number))
        return out

    def alone(self, position: int) -> bool:
        """Whether a layer runs by itself, from DRAM to DRAM."""
        number = self._segment_at[position]
        return isinstance(self.made.segments[number], Alone) and number not in self.made.lives.nests

    def stores_all(self, position: int) -> bool:
        """Whether a layer runs under its own loop nest, and all that it computes goes to DRAM."""
        number = self._segment_at[position]
        nest = self.made.lives.nests.get(number)
        return isinstance(self.made.segments[number], Alone) and (nest is None or "output" not in nest.maps)

    def position(self, m: int) -> int | None:
        """The layer that computes a map."""
        source = self.made.steps.maps[m].source
        return None if source is None else self.made.steps.steps[source].position

    # -- what is on chip ---------------------------------------------------------------------------------------------

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """Who has every plot, and when."""
        seen: dict[int, tuple[Plot, list[tuple[int, int]]]] = {}
        passing: list[Tenant] = []
        for at, scene in enumerate(self.made.lives.scenes):
            for m, plot in _rows_of(scene):
                owners = seen.setdefault(id(plot), (plot, []))[1]
                if not owners or owners[-1][1] != m:
                    owners.append((at, m))
            if scene.step is not None:
                m = self.made.steps.steps[scene.step].map
                passing += [
                    Tenant(plot, plot.start, plot.end, of, "tile" if of == m else "handed")
                    for (of, _, _), plot in scene.stage.items()
                ]
                passing += [Tenant(plot, plot.start, plot.end, m, "sums") for plot in scene.sums.values()]
            if scene.own:
                m = self.made.lives.nests[scene.segment].output
                passing.append(Tenant(scene.own, at, at, m, "nest"))
        return (*(tenant for plot, owners in seen.values() for tenant in _turns(plot, owners)), *passing)

    @property
    def _word(self) -> int:
        return self.made.chip.machine.word_bytes

    @property
    def memory(self) -> Memory:
        """The memory that feature maps lie in."""
        return self.made.chip.machine.memory(self.made.chip.memory)

    def held(self, unit: int) -> list[int]:
        """By section the bytes in one unit's memory."""
        words = _over_time(self.tenants, len(self.made.lives.scenes), unit)
        return [(a + b) * self._word for a, b in zip(words, self.made.lives.reserved, strict=True)]

    @cached_property
    def fullest_unit(self) -> int:
        """The unit whose memory is fullest at any time."""
        return max(range(self.made.chip.units), key=lambda unit: max(self.held(unit)))

    @cached_property
    def _of_map(self) -> dict[int, list[Tenant]]:
        out: dict[int, list[Tenant]] = {}
        for tenant in self.tenants:
            out.setdefault(tenant.map, []).append(tenant)
        return out

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """Every map of which something stays on chip: until its last reader, or for layers that follow."""
        return tuple(self._kept())

    def _kept(self) -> Iterator[Kept]:
        steps, count = self.made.steps, len(self.made.lives.scenes)
        for m, made in enumerate(steps.maps):
            position, readers = self.position(m), steps.readers.get(m, ())
            rows = 0
            if position is not None and readers and not self.stores_all(position):
                rows = (steps.wanted(m, 0) & ~self.made.lives.loaded.get(m, 0)).bit_count()
            if rows:
                last = max(readers, key=self._turn.__getitem__)
            else:
                rows, position, last = self._beyond(m)
            if rows and position is not None:
                most = max(_over_time(self._of_map.get(m, ()), count)) * self._word
                begin, end = self.plan.layers[position].name, self.plan.layers[last].name
                loaded = m not in steps.computed(position)
                yield Kept(made.value, rows, made.lines, rows * made.words * self._word, most, begin, end, loaded)

    def _beyond(self, m: int) -> tuple[int, int, int]:
        """Of a map that is loaded all the same the rows that stay for another segment at most; the position that first
        computes or reads it and leaves it on chip, and the last that finds it there."""
        made = self.made
        there = [number for number, held in enumerate(made.lives.staying) if m in held]
        if not there:
            return 0, -1, -1
        rows = max(made.lives.staying[number][m].bit_count() for number in there)
        ends = made.segments[there[0] - 1], made.segments[there[-1]]
        first, last = (
            [p for p in segment.positions if m in (*made.steps.reads[p], *made.steps.computed(p))] for segment in ends
        )
        return rows, first[0], last[-1]

    @cached_property
    def stored(self) -> tuple[Stored, ...]:
        """Every map that goes to DRAM, and why."""
        return tuple(self._stored())

    def _stored(self) -> Iterator[Stored]:
        steps = self.made.steps
        inner = {tensor.name for tensor in steps.inner}
        for m, made in enumerate(steps.maps):
            position = self.position(m)
            if position is None or (made.tensor in inner and self._in_one(position)):
                continue
            rows = made.lines if self.stores_all(position) else self.made.stored[m].bit_count()
            if not rows:
                continue
            why = made.must_store or made.why or self._alone_why(m, position)
            needed = made.lines * made.words * self._word
            forced = bool(made.must_store or made.why)
            at, free = (0, None) if forced else self._free(m, position)
            yield Stored(made.value, rows, made.lines, needed, free, "" if forced else self.when(at), why)

    def _in_one(self, position: int) -> bool:
        """Whether a layer runs in one, not in two halves."""
        return isinstance(self.made.segments[self._segment_at[position]], Alone)

    def _alone_why(self, m: int, position: int) -> str:
        """Which layers beside a map run by themselves."""
        found = [p for p in (position, *self.made.steps.readers.get(m, ())) if self.alone(p)]
        names = [self.plan.layers[p].name for p in dict.fromkeys(found)]
        return f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} by {_SELF[len(names) > 1]}" if names else ""

    def _free(self, m: int, position: int) -> tuple[int, int]:
        """The fullest section of a map's life, and the bytes that others leave free in it."""
        turn = self._turn
        last = max(turn[p] for p in (position, *self.made.steps.readers.get(m, ())))
        sections = [at for at, between in enumerate(self._positions) if turn[position] <= turn[between] <= last]
        mine = _over_time(self._of_map.get(m, ()), len(self._positions))
        room = self.made.chip.units * self.memory.bytes // self._word
        free = {at: room - self._all[at] + mine[at] for at in range(sections[0], sections[-1] + 1)}
        at = min(free, key=lambda at: free[at])
        return at, free[at] * self._word

    @cached_property
    def _turn(self) -> dict[int, int]:
        """When every layer is executed: the model's order need not be kept."""
        positions = (position for segment in self.made.segments for position in segment.positions)
        return {position: turn for turn, position in enumerate(positions)}

    @cached_property
    def _positions(self) -> tuple[int, ...]:
        """The position of the layer of every section."""
        out: list[int] = []
        for scene in self.made.lives.scenes:
            segment = self.made.segments[scene.segment]
            if isinstance(segment, Alone):
                out.append(segment.position)
            else:
                assert scene.step is not None
                out.append(self.made.steps.steps[scene.step].position)
        return tuple(out)

    @cached_property
    def _all(self) -> list[int]:
        """Words in all units' memories by section."""
        words = _over_time(self.tenants, len(self.made.lives.scenes))
        return [a + self.made.chip.units * b for a, b in zip(words, self.made.lives.reserved, strict=True)]

    # -- memories ----------------------------------------------------------------------------------------------------

    @cached_property
    def fullest(self) -> tuple[Fullest, ...]:
        """The fullest moment of every memory."""
        return tuple(
            self._maps() if memory.name == self.memory.name else self._others(memory)
            for memory in self.made.chip.machine.memories
        )

    def _maps(self) -> Fullest:
        unit = self.fullest_unit
        held = self.held(unit)
        at = max(range(len(held)), key=lambda at: held[at])
        scene, maps = self.made.lives.scenes[at], self.made.steps.maps
        rows: dict[tuple[int, str], list[int]] = {}
        for tenant in self.tenants:
            if tenant.plot.unit == unit and tenant.start <= at <= tenant.end:
                rows.setdefault((tenant.map, tenant.kind), []).append(tenant.plot.words * self._word)
        holders = [
            Holder(maps[m].value, self._rows(m, sizes) if kind == "row" else _PASSING[kind], sum(sizes))
            for (m, kind), sizes in rows.items()
        ]
        reserved = self.made.lives.reserved[at] * self._word
        if reserved:
            holders.append(Holder(self.when(at), "its own tiles" if scene.event is None else "kernels", reserved))
        return Fullest(self.memory, self.when(at), held[at], _largest_first(holders))

    def _rows(self, m: int, sizes: Sequence[int]) -> str:
        """How many rows of a map there are, of these bytes each."""
        made = self.made.steps.maps[m]
        if any(size < made.words * self._word for size in sizes):
            return f"some columns of {made.lines} rows"
        return f"{len(sizes)} of {made.lines} rows"

    def _others(self, memory: Memory) -> Fullest:
        """Of a memory for kernels and parameters: group by group, and layer by layer."""
        found = [
            self._kernels(memory, self._by_segment[number])
            if number in self._by_segment
            else self._own(memory, segment)
            for number, segment in enumerate(self.made.segments)
        ]
        return max(found, key=lambda fullest: fullest.used)

    def _kernels(self, memory: Memory, group: Group) -> Fullest:
        grouping, kernels = self.grouping(group), self.made.kernels[group.segment]
        machine, holders = self.made.chip.machine, list[Holder]()
        own = {number for number in grouping.numbers if kernels[number].place == number}
        for number, cut in zip(grouping.numbers, grouping.grains, strict=True):
            name, pinned = kernels[number].layer.name, kernels[number].pinned
            if memory.name == machine.memory_of("weights").name and pinned and number in own:
                size = -(-pinned // cut.planes) * cut.bytes
                holders.append(Holder(name, f"kernels of {pinned} of {cut.total} {_PLANES[cut.along]}", size))
        parameters = sum(kernels[number].cut.parameters for number in own)
        if memory.name == machine.memory_of("parameters").name and parameters:
            holders.append(Holder(f"group {group.number}", "parameters", parameters))
        one = next(iter(kernels.values()))
        again = any(not tile.stays for of in kernels.values() if of.cut.each for tile in of.tiles)
        if memory.name == machine.memory_of("weights").name and again:
            others = "the other kernels" if any(of.pinned for of in kernels.values()) else "kernels"
            what = f"{plural(len(one.buffers), 'buffer')} for {others}"
            holders.append(Holder(f"group {group.number}", what, len(one.buffers) * one.room * self._word))
        used = sum(holder.bytes for holder in holders)
        return Fullest(memory, f"group {group.number}", used, _largest_first(holders))

    def _own(self, memory: Memory, segment: object) -> Fullest:
        assert isinstance(segment, Alone)
        layer = self.plan.layers[segment.position]
        if isinstance(layer, HostLayer):
            return Fullest(memory, layer.name, 0, ())
        own, machine = layer.figures, self.made.chip.machine
        holders = [
            Holder(layer.name, role.replace("_", " "), size)
            for role, size in own.residents.items()
            if size and machine.memory_of(MEMORY_ROLE[role]).name == memory.name
        ]
        return Fullest(memory, layer.name, own.memory[memory.name], _largest_first(holders))

    # -- kernels -----------------------------------------------------------------------------------------------------

    def layer_kernels(self, layer: str) -> str:
        """What of a layer's kernels stays on chip, in a clause; empty if it has none."""
        group = self.group_of(layer)
        assert group is not None
        grouping = self.grouping(group)
        number = next(n for n in grouping.numbers if self.made.steps.steps[n].layer.name == layer)
        kernels = self.made.kernels[group.segment][number]
        cut = kernels.cut
        if not cut.each:
            return ""
        stay = kernels.pinned * cut.each
        return kernels_text(group.turns, stay, cut.whole - stay)

    def kernel_bytes(self, group: Group) -> tuple[int, int]:
        """Bytes in DRAM of a group's kernels: of those that stay on chip, and of those that come with every strip."""
        kernels = self.made.kernels[group.segment]
        stay = sum(of.pinned * of.cut.each for number, of in kernels.items() if of.place == number)
        return stay, sum(of.cut.whole - of.pinned * of.cut.each for of in kernels.values())


_SELF = ("itself", "themselves")
_PASSING = {
    "tile": "rows on their way to DRAM",
    "handed": "tiles on their way to the next layer",
    "sums": "accumulators",
    "nest": "tiles of the layer that computes it",
}
_PLANES = {"k": "planes", "g": "groups"}


def _largest_first(holders: Iterable[Holder]) -> tuple[Holder, ...]:
    return tuple(sorted(holders, key=lambda holder: -holder.bytes))


def _rows_of(scene: Scene) -> Iterator[tuple[int, Plot]]:
    """(map, plot) of all rows that a section reads, computes or sends; what it computes last."""
    for (m, _, _), rows in scene.rows.items():
        yield from ((m, plot) for plot in rows.values())
    for source in scene.sent:
        yield from ((source.map, plot) for plot in source.here.values())


def _turns(plot: Plot, owners: Sequence[tuple[int, int]]) -> Iterator[Tenant]:
    """A plot's owners one after the other: an output may be written over an operand."""
    starts = [plot.start, *(at for at, _ in owners[1:])]
    ends = [*(at - 1 for at, _ in owners[1:]), plot.end]
    for (_, m), start, end in zip(owners, starts, ends, strict=True):
        if start <= end:
            yield Tenant(plot, start, end, m, "row")


def _over_time(tenants: Iterable[Tenant], sections: int, unit: int | None = None) -> list[int]:
    """By section the words of some tenants, in one unit or in all."""
    change = [0] * (sections + 1)
    for tenant in tenants:
        if unit in (None, tenant.plot.unit):
            change[tenant.start] += tenant.plot.words
            change[tenant.end + 1] -= tenant.plot.words
    held, out = 0, list[int]()
    for more in change[:-1]:
        held += more
        out.append(held)
    return out


def kernels_text(strips: int, stay: int, again: int) -> str:
    """What of a group's kernels stays on chip, and what comes with every strip, in bytes."""
    if strips == 1:
        return f"{stay + again:,} B, loaded once"
    return f"{stay:,} B stay on chip" + (f", {again:,} B come with every strip" if again else "")
