"""One layer: its optimum, the proof, and what the other dataflows would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from math import isqrt
from typing import Literal, get_args

from dnnc.cycles import ClosedForm
from dnnc.enumerate import Stopped, best, quickest_legal
from dnnc.front import Front, front
from dnnc.layer import Shape
from dnnc.points import Found
from dnnc.schedule import Schedule, dataflow
from dnnc.space import ANYTHING, Limits, Space, locate
from dnnc.tables import valid_taps
from dnnc.traffic import compulsory
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.toml_table import nearest

COST_MODEL = "2"
"""Version of the closed forms: results of another version are not comparable, nor taken from a cache."""

Goal = Literal["traffic", "latency", "balanced"]
GOALS: tuple[Goal, ...] = get_args(Goal)
DATAFLOWS = ("weight-stationary", "input-stationary", "output-stationary")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. ``balanced``: fewest bytes within ``percent`` of the fewest cycles.

    Raises:
        UsageFault: there is no such goal, or the percentage is negative or not finite.
    """

    goal: Goal = "traffic"
    percent: float = 5.0

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise UsageFault(f"no objective {self.goal!r}; {nearest(str(self.goal), GOALS)}")
        if not 0 <= self.percent < float("inf"):
            raise UsageFault(f"a balanced objective within {self.percent} %; expected a percentage of 0 or more")

    def __str__(self) -> str:
        return f"balanced ({self.percent:g} %)" if self.goal == "balanced" else self.goal


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a schedule is the best of its space.

    Attributes:
        status: "optimal", or "feasible" where the search was cut short.
        method: "lower bound" (the schedule meets one), "cp-sat", or "enumeration" (every schedule was looked at).
        quantity: "bytes" or "cycles" (of the closed form).
        value, bound: the best figure found, and one that no schedule of the space beats. It is the schedule's own
            under ``traffic``; under ``latency`` and ``balanced`` the timeline settles the choice among those near it.
        solver, seed, deterministic_time: of the solver, where one was needed.
    """

    status: Literal["optimal", "feasible"]
    method: Literal["lower bound", "cp-sat", "enumeration", "none"]
    quantity: Literal["bytes", "cycles"]
    value: int
    bound: int
    solver: str = ""
    seed: int = 0
    deterministic_time: float = 0.0

    @property
    def gap(self) -> float:
        """(value - bound) / value."""
        return (self.value - self.bound) / self.value if self.value else 0.0


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best schedule of another dataflow."""

    dataflow: str
    bytes: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Result:
    """A layer's schedule and its proof."""

    schedule: Schedule
    proof: Proof


class NoSchedule(Exception):
    """A space holds no legal schedule."""


Timed = Callable[[Schedule], float]
"""Cycles of a layer's schedule on the timeline."""

NEAR = 1.03
"""The timeline settles the choice among schedules of the front with up to 3 % more closed-form cycles than the fewest:
the closed form is seldom further from it than that."""

FEW = 4
"""Schedules of the front that are timed."""


def optimize(
    shape: Shape,
    machine: Machine,
    limits: Limits = ANYTHING,
    objective: Objective = Objective(),
    limit: float = 60.0,
    timed: Timed | None = None,
) -> Result:
    """The best schedule of a layer, with its proof.

    Args:
        limits: what a user allows of the space.
        limit: deterministic seconds for the solver.
        timed: settles the choice among the front's best; the closed form's cycles do unless given.

    Raises:
        NoSchedule: nothing in the space is legal and fits.
    """
    space = Space(shape, machine, limits)
    try:
        if objective.goal == "traffic":
            found = _need(best(space))
            return Result(found.schedule, _prove(space, found, limit))
        of = front(space)
        if of is None:
            raise NoSchedule
        return _fastest(of, timed) if objective.goal == "latency" else _balanced(space, of, objective, timed)
    except Stopped as stopped:
        return Result(stopped.found.schedule, _unproven(space, stopped.found))


def _fastest(of: Front, timed: Timed | None) -> Result:
    """The fewest cycles are proven; of the front's points near them, the timeline takes the fastest."""
    choice = min(_near(of), key=lambda point: (_time(point, timed), point.bytes))
    return Result(choice.schedule, Proof("optimal", "enumeration", "cycles", of.fewest_cycles, of.fewest_cycles))


def _balanced(space: Space, of: Front, objective: Objective, timed: Timed | None) -> Result:
    """The fewest bytes within a percentage of the fewest cycles are proven; of the front's points from there on, the
    first that is within that percentage on the timeline too is taken."""
    within = 1 + objective.percent / 100
    most = max(int(of.fewest_cycles * within), of.fewest_cycles)
    legal = [point for point in of.points if point.cycles <= most]
    found = _need(best(space, most, legal[0] if legal else None))
    slowest = min(_time(point, timed) for point in _near(of)) * within
    options = [found, *(point for point in of.points if point.cycles < found.cycles)][:FEW]
    choice = next((point for point in options if _time(point, timed) <= slowest), found)
    return Result(choice.schedule, Proof("optimal", "enumeration", "bytes", found.bytes, found.bytes))


def _near(of: Front) -> list[Found]:
    """The front's points with about the fewest cycles."""
    near = [point for point in of.points if point.cycles <= of.fewest_cycles * NEAR]
    return near[-FEW:] or [of.points[-1]]


def _time(point: Found, timed: Timed | None) -> float:
    return timed(point.schedule) if timed else float(point.cycles)


def hurried(shape: Shape, machine: Machine, limits: Limits = ANYTHING) -> Result:
    """Some legal schedule, at once, proven to be nothing: for a search that was interrupted.

    Raises:
        NoSchedule: nothing in the space is legal and fits.
    """
    space = Space(shape, machine, limits)
    found = _need(quickest_legal(space))
    return Result(found.schedule, _unproven(space, found))


def _unproven(space: Space, found: Found) -> Proof:
    """Of a schedule that a search was interrupted at."""
    bound = lower_bound(space.shape, space.machine)
    return Proof("feasible", "none", "bytes", found.bytes, min(bound, found.bytes))


def _need(found: Found | None) -> Found:
    if found is None:
        raise NoSchedule
    return found


def _prove(space: Space, found: Found, limit: float) -> Proof:
    bound = lower_bound(space.shape, space.machine)
    if found.bytes <= bound:
        return Proof("optimal", "lower bound", "bytes", found.bytes, found.bytes)
    from concurrent.futures import ThreadPoolExecutor

    try:
        with ThreadPoolExecutor(1) as thread:
            # In a thread of its own: libraries in C that are imported make an ImportError of Ctrl-C, or lose it.
            thread.submit(import_module, "dnnc.proof").result()
        from dnnc.proof import SEED, minimum

        solved = minimum(space, found.bytes, limit)
    except KeyboardInterrupt:
        raise Stopped(found) from None
    if solved.bytes is not None and solved.bytes < found.bytes:
        raise AssertionError(f"the solver found {solved.bytes} bytes where the enumeration found {found.bytes}")
    status: Literal["optimal", "feasible"] = "optimal" if solved.closed else "feasible"
    value = found.bytes if solved.closed else max(bound, solved.bound)
    solver = f"ortools {version('ortools')}"
    return Proof(status, "cp-sat", "bytes", found.bytes, value, solver, SEED, solved.deterministic_time)


def runner_ups(shape: Shape, machine: Machine, schedule: Schedule, limits: Limits = ANYTHING) -> tuple[RunnerUp, ...]:
    """What the best schedule of every dataflow that this one is not would cost, fewest bytes first."""
    mine = dataflow(schedule.order)
    out: list[RunnerUp] = []
    for name in DATAFLOWS:
        if name in mine:
            continue
        found = best(Space(shape, machine, replace(limits, dataflow=name, order=None)))
        if found:
            out.append(RunnerUp(name, found.bytes, found.cycles))
    return tuple(sorted(out, key=lambda r: (r.bytes, r.cycles)))


def valid_macs(shape: Shape) -> int:
    """Multiply-accumulates on valid taps: padding is not multiplied."""
    if shape.kind != "array":
        return 0
    return shape.n * shape.g * shape.k * shape.c * sum(valid_taps(shape.y)) * sum(valid_taps(shape.x))


def macs(shape: Shape) -> int:
    """Multiply-accumulates with padding taps counted."""
    if shape.kind != "array":
        return 0
    taps = shape.y.kernel * shape.x.kernel
    return shape.n * shape.g * shape.k * shape.c * shape.y.out * shape.x.out * taps


def lower_bound(shape: Shape, machine: Machine) -> int:
    """Bytes that no schedule beats: compulsory traffic, or 2 MACs / sqrt(R_w S) - 2 S words per group.

    S is all on-chip words, R_w the reuse that a sliding window gives, at least one in each direction.
    """
    least = compulsory(shape, machine)
    if shape.kind != "array":
        return least
    words = sum(m.bytes * machine.instances(m) for m in machine.memories) // machine.word_bytes
    # ceil(kernel / stride) is never less than the reuse factor, so that the bound stays sound in integers.
    reuse = max(1, -(-shape.y.kernel // shape.y.stride)) * max(1, -(-shape.x.kernel // shape.x.stride))
    per_group = valid_macs(shape) // shape.g
    moved = 2 * per_group // (isqrt(reuse * words) + 1) - 2 * words
    return max(least, shape.g * moved * machine.word_bytes)


def figures(shape: Shape, machine: Machine, schedule: Schedule) -> Figures:
    """Everything that the closed forms say of a schedule."""
    model, tiles = locate(shape, machine, schedule)
    form = ClosedForm(model)
    return Figures(
        traffic=_pairs(model.traffic(tiles)),
        bus=_pairs(form.bus.bytes(tiles)),
        memory={name: int(used) for name, used in model.memory(tiles).items()},
        residents={role: int(words) * machine.word_bytes for role, words in model.residents(tiles).items()},
        cycles=int(form.cycles(tiles)),
        compute_cycles=int(form.compute(tiles)),
    )


def _pairs(figures: Mapping[str, tuple[object, object]]) -> dict[str, tuple[int, int]]:
    return {role: (int(r), int(w)) for role, (r, w) in figures.items()}  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a schedule moves, holds and takes.

    Attributes:
        traffic: payload bytes (read, written) in DRAM by role.
        bus: the same rounded up to bursts.
        memory: bytes used of the fullest instance of each memory; residents: the same by what is held.
        cycles, compute_cycles: closed-form time, and the array's part of it.
    """

    traffic: Mapping[str, tuple[int, int]]
    bus: Mapping[str, tuple[int, int]]
    memory: Mapping[str, int]
    residents: Mapping[str, int]
    cycles: int
    compute_cycles: int

    @property
    def dram_bytes(self) -> int:
        """Payload bytes read and written."""
        return sum(r + w for r, w in self.traffic.values())

    @property
    def bus_bytes(self) -> int:
        """Bytes on the bus, read and written."""
        return sum(r + w for r, w in self.bus.values())
