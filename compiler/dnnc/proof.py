"""The proof that no schedule of a space moves fewer bytes: CP-SAT over the closed forms' own tables.

Under one structure (mode, loop order, pin), every term of the traffic and of the memory use depends on few axes. Each
is a table over the candidates of those axes, read off the same function that predicts the bytes; the solver joins the
tables, adds up and minimises. It is only asked about candidates for which the least of all terms leaves room, and that
is few: most structures have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from dnnc.schedule import DIMS, Dim, Ints
from dnnc.space import Space, active_sets, grid
from dnnc.structure import Array, Structure, Tiles
from dnnc.traffic import MEMORY_ROLE, Model

SEED = 1
"""Random seed of the solver; with one worker, results are the same every time."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What the solver says of a space.

    Attributes:
        bytes: the least payload bytes that it found, None if every schedule was ruled out.
        bound: no schedule of the space moves fewer.
        closed: whether the search was exhausted within the limit.
        deterministic_time: the solver's own measure of its work, in its deterministic seconds.
        structures: structures looked at, and how many of them needed the solver.
    """

    bytes: int | None
    bound: int
    closed: bool
    deterministic_time: float
    structures: tuple[int, int]


def minimum(space: Space, known: int | None = None, limit: float = 60.0) -> Solved:
    """The fewest bytes of a space, by CP-SAT.

    Args:
        space: the layer's schedules.
        known: bytes of a schedule at hand; only what moves fewer, or as many, is looked for.
        limit: deterministic seconds for all structures together.
    """
    best, spent, looked, solved = known, 0.0, 0, 0
    found: int | None = None
    open_bound: int | None = None
    for model, tiles in _structures(space):
        looked += 1
        problem = _Problem.of(model, tiles).narrowed(best)
        if problem is None:
            continue
        solved += 1
        value, bound, closed, work = problem.solve(best, max(limit - spent, 0.01))
        spent += work
        if value is not None and (found is None or value < found):
            found = value
            best = value if best is None else min(best, value)
        if not closed:
            open_bound = bound if open_bound is None else min(open_bound, bound)
    bound = min(b for b in (best, open_bound, found) if b is not None) if best is not None or open_bound else 0
    return Solved(found, bound, open_bound is None, spent, (looked, solved))


def _structures(space: Space) -> Iterator[tuple[Model, Tiles]]:
    """Every structure of a space with the grid of its candidates, pinned tiles expanded along their axis."""
    buffers = tuple(limit or 1 for limit in space.limits.buffers)
    for deal in space.deals:
        tables = space.tables(deal)
        for active, index in active_sets(tables):
            for order, keep, pin in space.structures(active):
                for follow in (False, True) if space.shape.parameters else (False,):
                    structure = Structure(deal, order, keep, (buffers[0], buffers[1], buffers[2]), pin, follow)
                    model = Model(space.shape, space.machine, structure)
                    if pin is None:
                        yield model, grid(tables, index)
                    elif (tiles := _with_pins(space, model, grid(tables, index), index)) is not None:
                        yield model, tiles


def _with_pins(space: Space, model: Model, tiles: Tiles, index: dict[Dim, Ints]) -> Tiles | None:
    """Candidates of the pinned axis become pairs of candidate and number of pinned tiles."""
    assert model.structure.pin
    operand, _, dim = model.structure.pin
    index = dict(index)
    if operand == "input":
        table = tiles.axis("y")
        still = [i for i in index["y"] if not (table.moved[i] and table.trips[i] > 1)]
        index["y"] = np.array(still, dtype=np.int64)
        if not still:
            return None
    asked = getattr(space.limits.pin, "tiles", 0)
    pairs = [
        (i, p)
        for i in index[dim]
        for p in ([asked] if asked else range(1, int(tiles.tables[dim].trips[i])))
        if p < tiles.tables[dim].trips[i]
    ]
    if not pairs:
        return None
    index[dim] = np.array([i for i, _ in pairs], dtype=np.int64)
    shape = [1] * len(DIMS)
    shape[DIMS.index(dim)] = len(pairs)
    pinned = np.array([p for _, p in pairs], dtype=np.int64).reshape(shape)
    return replace(grid(tiles.tables, index), pinned=pinned)


@dataclass(frozen=True)
class _Problem:
    """One structure: candidates of each axis, terms of the objective, and for each memory its terms and its words.

    A term has an entry for each candidate of the axes that it depends on, and one alone along every other axis.
    """

    sizes: tuple[int, ...]
    traffic: tuple[Ints, ...]
    memories: tuple[tuple[tuple[Ints, ...], int], ...]

    @staticmethod
    def of(model: Model, tiles: Tiles) -> _Problem:
        """The problem of all candidates."""
        sizes = tuple(np.size(tiles.index[d]) for d in DIMS)
        traffic = tuple(_table(r) + _table(w) for r, w in model.traffic(tiles).values())
        by_memory: dict[str, list[Ints]] = {}
        for role, words in model.residents(tiles).items():
            by_memory.setdefault(model.machine.memory_of(MEMORY_ROLE[role]).name, []).append(_table(words))
        memories = ((tuple(terms), model.machine.memory(name).bytes // model.word) for name, terms in by_memory.items())
        return _Problem(sizes, traffic, tuple(memories))

    @property
    def least(self) -> int:
        """The sum of what every term of the objective is at least."""
        return sum(int(term.min()) for term in self.traffic)

    def narrowed(self, most: int | None) -> _Problem | None:
        """Without the candidates that move more bytes than ``most``, or overflow a memory, whatever the other axes'.

        None if there are no others.
        """
        problem, axis, unchanged = self, 0, 0
        while unchanged < len(DIMS):
            keep = problem._possible(axis, most)
            if not np.any(keep):
                return None
            unchanged = unchanged + 1 if np.all(keep) else 0
            problem = problem if np.all(keep) else problem._only(axis, np.flatnonzero(keep))
            axis = (axis + 1) % len(DIMS)
        return problem

    def _possible(self, axis: int, most: int | None) -> Array:
        """For each candidate of an axis whether the least of all terms leaves room."""
        others = tuple(a for a in range(len(DIMS)) if a != axis)
        keep = np.ones(self.sizes[axis], dtype=bool)
        for terms, room in (*self.memories, *([] if most is None else [(self.traffic, most)])):
            keep &= sum(term.min(axis=others) for term in terms) <= room
        return keep

    def _only(self, axis: int, candidates: Ints) -> _Problem:
        """The problem of these candidates of an axis."""

        def of(terms: tuple[Ints, ...]) -> tuple[Ints, ...]:
            return tuple(term.take(candidates, axis) if term.shape[axis] > 1 else term for term in terms)

        sizes = tuple(len(candidates) if a == axis else size for a, size in enumerate(self.sizes))
        return _Problem(sizes, of(self.traffic), tuple((of(terms), words) for terms, words in self.memories))

    def solve(self, most: int | None, limit: float) -> tuple[int | None, int, bool, float]:
        """(fewest bytes or None, bound, exhausted, deterministic time)."""
        model = cp_model.CpModel()
        index = [model.new_int_var(0, size - 1, dim) for size, dim in zip(self.sizes, DIMS, strict=True)]
        room = None if most is None else most - self.least
        total = sum(_add(model, index, term, room) for term in self.traffic)
        for terms, words in self.memories:
            spare = words - sum(int(term.min()) for term in terms)
            model.add(sum(_add(model, index, term, spare) for term in terms) <= words)
        if most is not None:
            model.add(total <= most)
        model.minimize(total)
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers, parameters.random_seed = 1, SEED
        parameters.max_deterministic_time = limit
        parameters.cp_model_probing_level, parameters.linearization_level = 0, 0
        parameters.catch_sigint_signal = False
        status = _solve(solver, model)
        work = solver.response_proto.deterministic_time
        if status == cp_model.INFEASIBLE:
            return None, 0, True, work
        found = round(solver.objective_value) if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else None
        bound = max(self.least, round(solver.best_objective_bound)) if status != cp_model.UNKNOWN else self.least
        return found, bound, status == cp_model.OPTIMAL, work


def _solve(solver: cp_model.CpSolver, model: cp_model.CpModel) -> cp_model.CpSolverStatus:
    """Solves in a thread of its own: the solver's own handler of Ctrl-C would swallow the first and leave the process
    without one, and Python's sees nothing before a solver in its thread returns."""
    with ThreadPoolExecutor(1) as thread:
        solving = thread.submit(solver.solve, model)
        try:
            return solving.result()
        except KeyboardInterrupt:
            solver.stop_search()
            raise


def _table(values: Array) -> Ints:
    """A term as an array with one axis for each loop."""
    array = np.asarray(values, dtype=np.int64)
    return array.reshape((1,) * (len(DIMS) - array.ndim) + array.shape)


def _add(model: cp_model.CpModel, index: list[cp_model.IntVar], term: Ints, spare: int | None) -> cp_model.LinearExprT:
    """A term as an expression: its value is its entry at the index; entries that alone exceed the rest are left out."""
    axes = [a for a in range(term.ndim) if term.shape[a] > 1]
    least = int(term.min())
    if not axes or least == int(term.max()):
        return least
    table = term.reshape([term.shape[a] for a in axes])
    keep = np.nonzero(table <= least + spare) if spare is not None else np.nonzero(np.ones_like(table, dtype=bool))
    values = table[keep]
    value = model.new_int_var_from_domain(cp_model.Domain.from_values([int(v) for v in np.unique(values)]), "")
    rows = np.column_stack([*keep, values]).tolist()
    model.add_allowed_assignments([*(index[a] for a in axes), value], rows)
    return value
