"""A group's strips gone through: which rows are where, from when to when, in every unit's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import NamedTuple

from dnnc.strips import End, Group, Masks, Section, Visit, Walk


class Event(NamedTuple):
    """What happens in a section, map by map and unit by unit.

    Attributes:
        loads: (map, unit, lines) loaded from DRAM.
        moves: (map, from, to, lines) sent before the section computes; ``homing``: after it has.
        over: (map read, map computed, unit, lines): lines of the output that are written over those of an operand.
        rows: (map, unit, lines) of the output that get room as rows; the rest is only passed on to DRAM, or dead.
        dead: (map, unit, lines) that end with the section.
    """

    section: Section
    loads: tuple[tuple[int, int, int], ...]
    moves: tuple[tuple[int, int, int, int], ...]
    homing: tuple[tuple[int, int, int, int], ...]
    over: tuple[tuple[int, int, int, int], ...]
    rows: tuple[tuple[int, int, int], ...]
    dead: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class Run:
    """A group's strips gone through once.

    Attributes:
        peak: bytes in the fullest unit's memory at the fullest moment.
        loaded: for every map the lines loaded from DRAM.
        whole: whether it was gone through to the end: a run may stop where there is no room for it.
    """

    peak: int = 0
    loaded: dict[int, int] = field(default_factory=dict[int, int])
    events: list[Event] = field(default_factory=list[Event])
    whole: bool = True

    def settles(self, room: int | None) -> bool:
        """Whether there is nothing more to know with so much room; None: without any end to it."""
        return self.whole or (room is not None and self.peak > room)


def run(
    way: Walk,
    entering: Mapping[int, int],
    leaving: Mapping[int, int],
    record: bool = False,
    room: int | None = None,
) -> Run:
    """Goes through a group's sections.

    Args:
        entering: lines of maps that are on chip when the group starts, every unit its block of each.
        leaving: lines of maps that have to be on chip when it ends; else what nobody in the group needs any more goes.
        record: whether to list what happens.
        room: bytes of a unit's memory; where more is taken, the run stops.
    """
    group, found = way.group, Run()
    units = range(group.units)
    nothing = [0] * group.units
    present = [
        [entering[m] & block for block in homes] if m in entering else nothing[:] for m, homes in enumerate(group.homes)
    ]
    held = [sum(mine[u].bit_count() * size for mine, size in zip(present, group.sizes, strict=True)) for u in units]
    found.peak = max(held)
    running = _Running(group, leaving, present, [list(masks) for masks in present], held)
    for visit in way.visits:
        event, full = running.through(visit)
        found.peak = max(found.peak, full)
        for m, _, lines in event.loads:
            found.loaded[m] = found.loaded.get(m, 0) | lines
        if record:
            found.events.append(event)
        if room is not None and full > room:
            found.whole = False
            break
    return found


_Lines = list[tuple[int, int, int]]
_Moves = list[tuple[int, int, int, int]]


@dataclass(slots=True)
class _Running:
    """What is on chip in the course of a run.

    Attributes:
        present: of every map the lines in every unit; ``homes``: those that are not only sent there for a while.
        held: bytes in every unit.
    """

    group: Group
    leaving: Mapping[int, int]
    present: list[Masks]
    homes: list[Masks]
    held: Masks

    def through(self, visit: Visit) -> tuple[Event, int]:
        """Goes through a section: what happens, and the bytes in the fullest unit at its fullest moment."""
        group, section = self.group, visit.section
        loads: _Lines = []
        moves: _Moves = []
        for m, u, lines in section.needs:
            miss = lines & ~self.present[m][u]
            if miss:
                self._fetch(m, u, miss, loads, moves)
        over, rows, extra = self._compute(visit)
        leaving = [out for out, _, _ in visit.made if out in self.leaving] if group.units > 1 else ()
        homing = tuple(move for out in leaving for move in self._to_homes(section, out))
        full = max(map(add, self.held, extra))
        dead = self._end(visit)
        for m, _, u, lines in over:
            self.held[u] += lines.bit_count() * group.sizes[m]
        return Event(section, tuple(loads), tuple(moves), homing, tuple(over), tuple(rows), tuple(dead)), full

    def _fetch(self, m: int, unit: int, miss: int, loads: _Lines, moves: _Moves) -> None:
        """Brings lines to a unit that needs them: from another unit that has them, else from DRAM."""
        self.held[unit] += miss.bit_count() * self.group.sizes[m]
        mine = self.present[m]
        for other, theirs in enumerate(mine):
            there = miss & theirs
            if there:
                moves.append((m, other, unit, there))
                mine[unit] |= there
                miss &= ~there
        if miss:
            loads.append((m, unit, miss))
            self.homes[m][unit] |= miss
            mine[unit] |= miss

    def _compute(self, visit: Visit) -> tuple[_Moves, _Lines, Masks]:
        """Room for what is computed: over an operand, as rows, or as tiles that pass, with bytes of those."""
        group, section = self.group, visit.section
        sums = group.parts[section.part].sums
        over: _Moves = []
        rows: _Lines = []
        extra = [block.bit_count() * sums for block in section.output]
        for out, still, others in visit.made:
            stay = still | self.leaving.get(out, 0)
            for u, block in enumerate(section.output):
                left = block
                for m, lines in self._written_over(u, block, others):
                    left &= ~lines
                    over.append((m, out, u, lines))
                room = left & stay
                if room:
                    rows.append((out, u, room))
                    self.held[u] += room.bit_count() * group.sizes[out]
                self.present[out][u] |= room | (block & ~left)
                self.homes[out][u] |= block
                extra[u] += (left & ~stay).bit_count() * group.passing[out]
        return over, rows, extra

    def _written_over(self, u: int, left: int, others: Sequence[End]) -> Iterator[tuple[int, int]]:
        """(map, lines) of operands that nobody needs any more, under lines that a unit computes."""
        for m, still, of_unit in others if left else ():
            keep = (self.homes[m][u] & (still | self.leaving.get(m, 0))) | of_unit[u]
            lines = self.present[m][u] & ~keep & left
            if lines:
                left &= ~lines
                yield m, lines

    def _to_homes(self, section: Section, out: int) -> _Moves:
        """Lines that stay behind the group go to the units whose block of the map they are in."""
        group, leaving = self.group, self.leaving[out]
        own, at_home = self.present[out], self.homes[out]
        found: _Moves = []
        for u, block in enumerate(section.output):
            stay = block & leaving
            for v, block_of in enumerate(group.homes[out]) if stay else ():
                sent = stay & block_of
                if not sent or v == u:
                    continue
                found.append((out, u, v, sent))
                self.held[v] += (sent & ~own[v]).bit_count() * group.sizes[out]
                own[v] |= sent
                at_home[v] |= sent
                at_home[u] &= ~sent
        return found

    def _end(self, visit: Visit) -> _Lines:
        """What nobody needs any more goes."""
        dead: _Lines = []
        for m, still, of_unit in visit.ends:
            stays, mine, own = still | self.leaving.get(m, 0), self.present[m], self.homes[m]
            for u in range(self.group.units):
                if mine[u] and (gone := mine[u] & ~((own[u] & stays) | of_unit[u])):
                    mine[u] &= ~gone
                    own[u] &= ~gone
                    dead.append((m, u, gone))
                    self.held[u] -= gone.bit_count() * self.group.sizes[m]
        return dead
