"""The whole network: which layers run together, by which strips, and what stays on chip; minimal, and proven so.

A plan cuts the layers, in their order, into *segments*. A segment is one layer that runs from DRAM to DRAM under its
own schedule, or a group of layers that runs by strips. Between segments a state says how many rows of every map that
is still wanted are on chip. The cheapest plan is a shortest path through these states: labels are extended segment by
segment, and one that another can take the place of, at no more bytes, is dropped. No label is dropped otherwise,
unless the limit of work is reached; then the cheapest label dropped bounds what the plan may miss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from math import ceil
from typing import Literal, NamedTuple

from dnnc.axis import touched
from dnnc.chip import Chip
from dnnc.steps import Steps
from dnnc.strips import Group, Part, Reading, Run, Walk, estimate, kept, run, walk
from dnnc.weights import Grain, Holding, columns_touched, grain, hold, weights_bytes
from dnnc_runtime.program import Window

Scope = Literal["layerwise", "resident", "fused"]
"""What a plan may do: nothing beyond single layers; tensors that stay on chip; groups that run by strips, too."""

LONGEST = 16
"""Layers of a group at most."""


class Alone(NamedTuple):
    """A segment of one layer, from DRAM to DRAM (or of one node of the host)."""

    position: int


class Strips(NamedTuple):
    """A segment of layers that run strip by strip.

    Attributes:
        first, stop: positions of its layers.
        bounds: rows of the last step's output computed by the end of every strip.
        entering: (map, lines of every unit's block on chip when it starts) of maps that it reads or that stay.
        leaving: likewise when it ends.
    """

    first: int
    stop: int
    bounds: tuple[int, ...]
    entering: tuple[tuple[int, int], ...]
    leaving: tuple[tuple[int, int], ...]


Segment = Alone | Strips


class Held(NamedTuple):
    """A map between two segments: lines on chip of every unit's block, and whether all of it is in DRAM, too."""

    map: int
    each: int
    stored: bool


State = tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """The cheapest way found into a state."""

    bytes: int
    sections: int
    state: State
    segment: Segment | None
    before: Label | None


@dataclass(frozen=True, slots=True)
class Found:
    """The segments of the cheapest plan, its DRAM bytes, and bytes that no plan of the space goes below."""

    segments: tuple[Segment, ...]
    bytes: int
    bound: int
    labels: int
    work: int


@dataclass
class Search:
    """The search for one network.

    Attributes:
        alone: for every position the bytes that its layer moves by itself, and bytes per unit of feature maps that it
            holds meanwhile; (0, 0) for the host's.
        limit: work that may be done: sections gone through.
    """

    steps: Steps
    chip: Chip
    alone: Sequence[tuple[int, int]]
    scope: Scope = "fused"
    limit: int = 4_000_000
    work: int = 0
    best: int | None = None
    _groups: dict[tuple[int, int], _Options | None] = field(default_factory=dict[tuple[int, int], "_Options | None"])
    _known: dict[Group, _Shared] = field(default_factory=dict[Group, "_Shared"])

    def find(self) -> Found:
        """The cheapest plan."""
        ends = len(self.alone)
        fronts: list[dict[State, Label]] = [{} for _ in range(ends + 1)]
        fronts[0][()] = Label(0, 0, (), None, None)
        labels = 0
        lost: int | None = None
        for position in range(ends):
            open_labels = self._undominated(position, list(fronts[position].values()))
            if self.work > self.limit:
                for label in open_labels[1:]:
                    reach = label.bytes + self.floor[position]
                    lost = reach if lost is None else min(lost, reach)
                open_labels = open_labels[:1]
            labels += len(open_labels)
            for label in open_labels:
                for stop, made in self._extend(position, label):
                    known = fronts[stop].get(made.state)
                    if known is None or (made.bytes, made.sections) < (known.bytes, known.sections):
                        fronts[stop][made.state] = made
        best = min(fronts[ends].values(), key=lambda label: (label.bytes, label.sections))
        segments: list[Segment] = []
        at: Label | None = best
        while at is not None and at.segment is not None:
            segments.append(at.segment)
            at = at.before
        bound = best.bytes if lost is None else min(best.bytes, lost)
        return Found(tuple(reversed(segments)), best.bytes, bound, labels, self.work)

    # -- what is true of maps whatever the plan -------------------------------------------------------------------

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """For every map the positions that read it, ascending."""
        out: dict[int, list[int]] = {}
        for position, maps in enumerate(self.steps.reads):
            for m in dict.fromkeys(maps):
                out.setdefault(m, []).append(position)
        return {m: tuple(found) for m, found in out.items()}

    @cached_property
    def floor(self) -> list[int]:
        """Bytes that all plans move from a position on: kernels once, and what has to be in DRAM in any case."""
        word, machine = self.chip.machine.word_bytes, self.chip.machine
        out = [0]
        for position in reversed(range(len(self.alone))):
            least = 0
            for number in self.steps.at[position]:
                step = self.steps.steps[number]
                made = self.steps.maps[step.map]
                shape = step.layer.shape
                least += weights_bytes(shape, machine) + shape.parameters * shape.g * shape.k * word
                least += made.lines * made.words * word if made.must_store else 0
            out.append(out[-1] + (least if self.steps.at[position] else 0))
        return out[::-1]

    def wanted(self, m: int, position: int) -> int:
        """Lines of a map that positions from this one on read."""
        key = m, position
        if key not in self._wanted:
            mask = 0
            for reader in self.readers.get(m, ()):
                if reader >= position:
                    mask |= self._touched(reader, m)
            self._wanted[key] = mask
        return self._wanted[key]

    @cached_property
    def _wanted(self) -> dict[tuple[int, int], int]:
        return {}

    def _touched(self, position: int, m: int) -> int:
        """Lines of a map that a position reads."""
        lines = self.steps.maps[m].lines
        everything = (1 << lines) - 1
        mask = 0
        for number in self.steps.at[position]:
            step = self.steps.steps[number]
            if not step.reads:
                return everything
            for read in step.reads:
                if m in read.maps:
                    for image in range(step.layer.shape.n):
                        mask |= touched(read.rows, 0, read.rows.out) << (image * read.rows.size)
        return mask or everything

    def _line(self, m: int) -> int:
        return self.steps.maps[m].words * self.chip.machine.word_bytes

    def _block(self, m: int) -> int:
        return -(-self.steps.maps[m].lines // self.chip.units)

    def _mask(self, m: int, each: int) -> int:
        return kept(self.steps.maps[m].lines, self.chip.units, each)

    def _store(self, m: int, lines: int, position: int) -> int:
        """Bytes to write the lines that are read from a position on."""
        return (lines & self.wanted(m, position)).bit_count() * self._line(m)

    # -- dominance ------------------------------------------------------------------------------------------------

    def _undominated(self, position: int, labels: list[Label]) -> list[Label]:
        """The labels that no other can take the place of, cheapest first."""
        labels.sort(key=lambda label: (label.bytes, label.sections))
        out: list[Label] = []
        for label in labels:
            if not any(self._covers(position, other, label) for other in out):
                out.append(label)
        return out

    def _covers(self, position: int, a: Label, b: Label) -> bool:
        """Whether a label can turn into another at no more bytes: by writing and dropping rows."""
        held = {h.map: h for h in a.state}
        total = a.bytes
        for m, each, stored in b.state:
            mine = held.get(m, Held(m, 0, True))
            if mine.each < each:
                return False
            if not mine.stored:
                lines = self._mask(m, mine.each) if stored else self._mask(m, mine.each) & ~self._mask(m, each)
                total += self._store(m, lines, position)
            if total > b.bytes:
                return False
        return True

    # -- segments -------------------------------------------------------------------------------------------------

    def _extend(self, position: int, label: Label) -> Iterator[tuple[int, Label]]:
        alone = self._alone(position, label)
        if alone is not None:
            yield position + 1, alone
        if self.scope == "layerwise" or self.chip.why:
            return
        longest = LONGEST if self.scope == "fused" else 1
        for stop in range(position + 1, min(len(self.alone), position + longest) + 1):
            options = self._options(position, stop)
            if options is None:
                break
            if self._first(options) is None:
                break
            for made in self._strips(options, label):
                yield stop, made

    def _alone(self, position: int, label: Label) -> Label | None:
        """The layer by itself: what it reads is written first if it is only on chip; the rest stays if there is room."""
        cost, room = self.alone[position]
        reads = set(self.steps.reads[position])
        state: list[Held] = []
        total = label.bytes + cost
        used = room
        for m, each, stored in label.state:
            if m in reads and not stored:
                total += self._store(m, self._mask(m, each), position)
                stored = True
            if self.wanted(m, position + 1):
                used += each * self._line(m)
                state.append(Held(m, each, stored))
        if used > self.chip.bytes:
            total += sum(
                self._store(m, self._mask(m, each), position + 1) for m, each, stored in state if not stored and each
            )
            state = [Held(m, 0, True) for m, _, _ in state]
        for number in self.steps.at[position]:
            out = self.steps.steps[number].map
            if self.wanted(out, position + 1):
                state.append(Held(out, 0, True))
        return Label(total, label.sections + 1, tuple(sorted(state)), Alone(position), label)

    def _options(self, first: int, stop: int) -> _Options | None:
        """What is known of a group; None where one of its layers cannot be run by strips, or it never fits."""
        key = first, stop
        if key not in self._groups:
            self._groups[key] = self._make_options(first, stop)
        return self._groups[key]

    def _make_options(self, first: int, stop: int) -> _Options | None:
        numbers = tuple(number for position in range(first, stop) for number in self.steps.at[position])
        if any(not self.steps.at[position] for position in range(first, stop)):
            return None
        steps = [self.steps.steps[number] for number in numbers]
        if any(step.why for step in steps) or len({step.layer.shape.n for step in steps}) > 1:
            return None
        cuts = [grain(step.layer.shape, self.chip) for step in steps]
        grains = [cut for cut in cuts if cut is not None]
        holding = hold(grains, self.chip.machine) if len(grains) == len(cuts) else None
        if holding is None:
            return None
        made = {step.map for step in steps}
        later = frozenset(m for m in made if self.steps.maps[m].must_store or self.wanted(m, stop))
        word, wide = self.chip.machine.word_bytes, self.chip.machine.accumulator_bytes
        local: dict[int, int] = {}
        parts: list[Part] = []
        for step, cut in zip(steps, grains, strict=True):
            reads = (Reading(m, r.rows, r.pointwise and len(r.maps) == 1) for r in step.reads for m in r.maps)
            local_reads = tuple(Reading(local.setdefault(m, len(local)), *how) for m, *how in reads)
            tile = step.layer.shape.x.out * cut.passing
            sums = tile * wide if cut.tile < cut.bytes else 0
            output = local.setdefault(step.map, len(local))
            parts.append(Part(step.layer.shape.y.out, local_reads, output, tile * word, sums))
        maps = tuple(local)
        group = Group(
            tuple(parts),
            tuple(self.steps.maps[m].lines for m in maps),
            tuple(self._line(m) for m in maps),
            frozenset(local[m] for m in later),
            steps[0].layer.shape.n,
            self.chip.units,
        )
        shared = self._known.setdefault(group, _Shared(group))
        return _Options(first, stop, self.steps, numbers, shared, local, tuple(sorted(later)), tuple(grains), holding)

    def _strips(self, options: _Options, label: Label) -> Iterator[Label]:
        """Every useful way to run a group by strips from a label."""
        first = self._first(options)
        if first is None:
            return
        choice = self._everything(options, label)
        levels = options.shared.levels
        most = self._search(options, choice, first, len(levels))
        whole: Label | None = None
        if most < len(levels):
            bounds = levels[most]
            if self._promises(options, label, bounds):
                whole = self._label(options, label, bounds, choice)
                yield whole
        for bounds in self._worthwhile(options, label, choice, levels[first:most], whole):
            seen: set[object] = set()
            for order in self._orders(choice):
                fitting = self._fit(options, bounds, choice, order)
                if fitting is not None and (key := fitting.key()) not in seen:
                    seen.add(key)
                    yield self._label(options, label, bounds, fitting)

    def _worthwhile(
        self, options: _Options, label: Label, choice: _Choice, levels: Sequence[tuple[int, ...]], whole: Label | None
    ) -> Iterator[tuple[int, ...]]:
        """The cuts with which it may pay to drop rows.

        More strips take less memory, so that more rows stay; but that saves no more than writing those rows, and reading
        them again for everyone who wants them. Where the kernels of more strips cost more, the cut is passed over.
        """
        wanted = [m for part in choice for m in part]
        reads = max((sum(at >= options.first for at in self.readers.get(m, ())) for m in wanted), default=0)
        stored = any(self.steps.maps[m].must_store for m in wanted)
        tried: list[tuple[int, int]] = []
        for bounds in levels:
            if not self._promises(options, label, bounds) or self.work > self.limit:
                return
            kernels = options.kernels(options.shared.walk(bounds).sections)
            peak = self._run(options, bounds, _Choice({}, {}, {})).peak
            if any(kernels - fewer >= (1 + reads) * (more - peak) for fewer, more in tried):
                continue
            tried.append((kernels, peak))
            least = options.moved(bounds, self._run(options, bounds, choice), self.chip.machine.word_bytes)
            excess = self._excess(options, bounds, choice)
            if whole is None or label.bytes + least + (0 if stored else excess) < whole.bytes:
                yield bounds

    def _everything(self, options: _Options, label: Label) -> _Choice:
        """All rows that may be on chip: what is there, and what is computed or loaded for those behind."""
        stop, state = options.stop, {h.map: h.each for h in label.state if h.each}
        passing = {m: each for m, each in state.items() if m not in options.entering}
        entering = {m: state[m] for m in options.entering if m in state}
        leaving = {m: self._block(m) for m in options.later if self.wanted(m, stop) and not self.steps.maps[m].why}
        for m in options.entering:
            if self.wanted(m, stop) and not self.steps.maps[m].why:
                if m in entering:
                    leaving[m] = entering[m]
                elif self._can_stay(options, m):
                    leaving[m] = self._block(m)
        return _Choice(entering, leaving, passing)

    def _first(self, options: _Options) -> int | None:
        """The fewest strips (as a level) with which a group fits at all, when everything else is in DRAM."""
        if options.first_level is None:
            levels = len(options.shared.levels)
            found = self._search(options, _Choice({}, {}, {}), 0, levels)
            options.first_level = found
        return options.first_level if options.first_level < len(options.shared.levels) else None

    def _search(self, options: _Options, choice: _Choice, low: int, high: int) -> int:
        """The first level from ``low`` on at which a choice fits; ``high`` if at none."""
        step, below = 1, low
        while low < high:
            middle = min(below + step - 1, high - 1) if below == low else (low + high) // 2
            if self._fits(options, options.shared.levels[middle], choice):
                high, below = middle, -1
            else:
                low = middle + 1
                below, step = (low, 2 * step) if below >= 0 else (-1, step)
        return low

    def _promises(self, options: _Options, label: Label, bounds: tuple[int, ...]) -> bool:
        """Whether a plan with this segment may be cheaper than the best known."""
        least = options.kernels(options.shared.walk(bounds).sections) + label.bytes
        return self.best is None or least + self.floor[options.stop] < self.best

    def _excess(self, options: _Options, bounds: tuple[int, ...], choice: _Choice) -> int:
        """Bytes that are missing at the fullest moment."""
        return max(0, self._run(options, bounds, choice).peak - self._room(options, choice))

    def _can_stay(self, options: _Options, m: int) -> bool:
        """Whether a map that the group loads has all that later readers want."""
        lines = 0
        for position in range(options.first, options.stop):
            if m in self.steps.reads[position]:
                lines |= self._touched(position, m)
        whole = options.columns[m] == self.steps.maps[m].geometry.columns
        return whole and not self.wanted(m, options.stop) & ~lines

    def _room(self, options: _Options, choice: _Choice) -> int:
        """Bytes of a unit's memory that are left to a group."""
        through = sum(each * self._line(m) for m, each in choice.passing.items())
        return self.chip.bytes - options.holding.maps - through

    def _fits(self, options: _Options, bounds: tuple[int, ...], choice: _Choice) -> bool:
        room = self._room(options, choice)
        if sum(each * self._line(m) for m, each in choice.entering.items()) > room:
            return False
        return room > 0 and self._run(options, bounds, choice).peak <= room

    def _masks(self, options: _Options, choice: _Choice) -> tuple[_Lines, _Lines]:
        """Lines on chip before and behind a group, by its own numbers of maps."""
        local, stop = options.local, options.stop
        entering = tuple(sorted((local[m], self._mask(m, each)) for m, each in choice.entering.items()))
        leaving = ((local[m], self._mask(m, each) & self.wanted(m, stop)) for m, each in choice.leaving.items())
        return entering, tuple(sorted(leaving))

    def _run(self, options: _Options, bounds: tuple[int, ...], choice: _Choice) -> Run:
        entering, leaving = self._masks(options, choice)
        key = bounds, entering, leaving
        found = options.shared.runs.get(key)
        if found is None:
            way = options.shared.walk(bounds)
            found = options.shared.runs[key] = run(way, dict(entering), dict(leaving))
            self.work += len(way.visits)
        return found

    def _orders(self, choice: _Choice) -> Iterator[tuple[tuple[str, int], ...]]:
        """In which order maps are dropped: each of them first, the others by size."""
        kinds = [("passing", m) for m in choice.passing]
        kinds += [("leaving", m) for m in choice.leaving]
        kinds += [("entering", m) for m in choice.entering]
        sized = sorted(kinds, key=lambda kind: -self._line(kind[1]) * choice.of(kind[0])[kind[1]])
        for first in sized:
            yield (first, *(kind for kind in sized if kind != first))

    def _fit(
        self, options: _Options, bounds: tuple[int, ...], choice: _Choice, order: Sequence[tuple[str, int]]
    ) -> _Choice | None:
        """Drops rows of one map after the other until the group fits: of the last one no more than it takes."""
        for kind, m in order:
            most = choice.of(kind).get(m, 0)
            without = choice.with_rows(kind, m, 0)
            if not self._about(options, bounds, without):
                choice = without
                continue
            low, high = 0, most
            while high - low > 1:
                middle = (low + high) // 2
                if self._about(options, bounds, choice.with_rows(kind, m, middle)):
                    low = middle
                else:
                    high = middle
            # That was an estimate: now to the row.
            while low + 1 < most and self._fits(options, bounds, choice.with_rows(kind, m, low + 1)):
                low += 1
            while low >= 0 and not self._fits(options, bounds, choice.with_rows(kind, m, low)):
                low -= 1
            if low >= 0:
                return choice.with_rows(kind, m, low)
            choice = without
        return None

    def _about(self, options: _Options, bounds: tuple[int, ...], choice: _Choice) -> bool:
        """Whether a choice fits by an estimate."""
        room = self._room(options, choice)
        shared = options.shared
        watch = options.watched
        found = shared.bare.get(bounds)
        if found is None:
            way = shared.walk(bounds)
            found = shared.bare[bounds] = run(way, {}, {}, watch=watch)
            self.work += len(way.visits)
        entering, leaving = self._masks(options, choice)
        return room > 0 and estimate(shared.group, found.moments, watch, dict(entering), dict(leaving)) <= room

    def _label(self, options: _Options, label: Label, bounds: tuple[int, ...], choice: _Choice) -> Label:
        """The label behind a segment: what it moves, and what is written because it goes."""
        found = self._run(options, bounds, choice)
        total = label.bytes + options.moved(bounds, found, self.chip.machine.word_bytes)
        way = options.shared.walk(bounds)
        needed, after = way.needed, dict[int, Held]()
        for m, each, stored in label.state:
            if m in options.local:
                enters, leaves = choice.entering.get(m, 0), choice.leaving.get(m, 0)
                gone = self._mask(m, each) & ~self._mask(m, enters) & needed.get(options.local[m], 0)
                gone |= self._mask(m, each) & ~self._mask(m, leaves) & self.wanted(m, options.stop)
                total += 0 if stored else gone.bit_count() * self._line(m)
                after[m] = Held(m, leaves, stored)
            else:
                stays = choice.passing.get(m, 0)
                gone = self._mask(m, each) & ~self._mask(m, stays)
                total += 0 if stored else self._store(m, gone, options.first)
                after[m] = Held(m, stays, stored)
        for m in options.entering:
            after.setdefault(m, Held(m, choice.leaving.get(m, 0), True))
        for m in options.later:
            made = self.steps.maps[m]
            stays = choice.leaving.get(m, 0)
            everything = (1 << made.lines) - 1
            if made.must_store:
                total += made.lines * self._line(m)
            else:
                total += self._store(m, everything & ~self._mask(m, stays), options.stop)
            after[m] = Held(m, stays, bool(made.must_store))
        segment = Strips(
            options.first,
            options.stop,
            bounds,
            tuple(sorted((*choice.entering.items(), *choice.passing.items()))),
            tuple(sorted((*choice.leaving.items(), *choice.passing.items()))),
        )
        state = tuple(sorted(held for m, held in after.items() if self.wanted(m, options.stop)))
        return Label(total, label.sections + len(way.visits), state, segment, label)


_Lines = tuple[tuple[int, int], ...]
"""Masks of lines by map."""


class _Choice(NamedTuple):
    """Lines of every unit's block on chip: of maps read when a group starts, of maps when it ends, of others meanwhile."""

    entering: Mapping[int, int]
    leaving: Mapping[int, int]
    passing: Mapping[int, int]

    def of(self, kind: str) -> Mapping[int, int]:
        """One of the three."""
        return {"entering": self.entering, "leaving": self.leaving, "passing": self.passing}[kind]

    def with_rows(self, kind: str, m: int, each: int) -> _Choice:
        """With so many lines of one map, and no more of it at the end than at the start."""
        changed = {name: {**self.of(name)} for name in ("entering", "leaving", "passing")}
        changed[kind][m] = each
        if kind == "entering" and m in changed["leaving"]:
            changed["leaving"][m] = min(each, changed["leaving"][m])
        cleaned = [{k: v for k, v in changed[name].items() if v} for name in ("entering", "leaving", "passing")]
        return _Choice(*cleaned)

    def key(self) -> object:
        """What makes it equal to another."""
        return tuple(tuple(sorted(part.items())) for part in self)


@dataclass
class _Shared:
    """What equal groups have in common: their cuts, and all runs so far."""

    group: Group
    runs: dict[object, Run] = field(default_factory=dict[object, Run])
    bare: dict[tuple[int, ...], Run] = field(default_factory=dict[tuple[int, ...], Run])

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The cuts, fewest strips first: strips of equal height, but for the first and the last.

        The first strip takes more rows of the earlier steps than the others, by what the windows reach over; so it
        is as much shorter.
        """
        group = self.group
        rows = group.parts[-1].rows
        ahead = group.cumulative((1, rows))[0][0] * rows // group.parts[0].rows if rows > 1 else 0
        heights = dict.fromkeys(
            min(rows, -(-(-(-rows // strips)) // group.units) * group.units) for strips in range(1, rows + 1)
        )
        firsts = ((height, height - ahead if ahead < height < rows else height) for height in heights)
        return tuple(tuple([*range(first, rows, height), rows]) for height, first in firsts)

    def walk(self, bounds: tuple[int, ...]) -> Walk:
        """The sections of a cut."""
        if bounds not in self._walks:
            self._walks[bounds] = walk(self.group, bounds)
        return self._walks[bounds]

    @cached_property
    def _walks(self) -> dict[tuple[int, ...], Walk]:
        return {}


@dataclass
class _Options:
    """A group of layers, and what has been found out about it; ``local`` numbers its maps as its group does."""

    first: int
    stop: int
    steps: Steps
    numbers: tuple[int, ...]
    shared: _Shared
    local: dict[int, int]
    later: tuple[int, ...]
    grains: tuple[Grain, ...]
    holding: Holding
    first_level: int | None = None

    @cached_property
    def entering(self) -> tuple[int, ...]:
        """Maps read that are not computed in the group."""
        computed = {self.steps.steps[number].map for number in self.numbers}
        return tuple(m for m in self.local if m not in computed)

    @cached_property
    def watched(self) -> tuple[int, ...]:
        """The maps that may be on chip before the group or behind it, by its own numbers."""
        return tuple(self.local[m] for m in (*self.entering, *self.later))

    @cached_property
    def columns(self) -> dict[int, int]:
        """Columns of every map that the group touches."""
        found: dict[int, list[Window]] = {}
        for number in self.numbers:
            for read in self.steps.steps[number].reads:
                for m in read.maps:
                    found.setdefault(m, []).append(read.columns)
        return {m: columns_touched(tuple(windows)) for m, windows in found.items()}

    def kernels(self, sections: Sequence[int]) -> int:
        """Bytes of kernels and parameters, with as many sections of every step."""
        total = 0
        for cut, pinned, times in zip(self.grains, self.holding.pinned, sections, strict=True):
            total += cut.once + cut.whole + (times - 1) * (cut.whole - pinned * cut.each)
        return total

    def moved(self, bounds: tuple[int, ...], found: Run, word: int) -> int:
        """Bytes of kernels, parameters and maps loaded."""
        total = self.kernels(self.shared.walk(bounds).sections)
        maps = tuple(self.local)
        for number, lines in found.loaded.items():
            m = maps[number]
            total += lines.bit_count() * self.columns[m] * self.steps.maps[m].channels * word
        return total
