"""Reads the text form of a program (see :mod:`dnnc_runtime.program_text`) back to an equal program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

from dnnc_runtime import machine as machines
from dnnc_runtime.frame import OPERANDS
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import (
    Activation,
    Compute,
    Host,
    Instruction,
    Kept,
    Kernel,
    Load,
    Move,
    Part,
    Placement,
    Pool,
    PoolTile,
    Program,
    Release,
    Role,
    Section,
    Store,
    Tensor,
    Width,
)
from dnnc_runtime.program_lines import Line, Lines
from dnnc_runtime.program_text import HEAD
from dnnc_runtime.tensor import Piece, View


def read(text: str) -> Program:
    """The program that a text form describes.

    Raises:
        UsageFault: the text is malformed; the message names the line.
    """
    lines = Lines(text)
    if lines.take() != HEAD:
        lines.fail(f"expected {HEAD!r}: this is no program, or one of another version")
    machine = _machine(lines)
    rows: dict[str, list[Any]] = {kind: [] for kind in _ROWS}
    while lines.next():
        line = Line(lines)
        if (kind := line.word()) not in rows:
            lines.fail(f"expected one of {', '.join(rows)}")
        rows[kind].append(line.made(_ROWS[kind]))
    return Program(
        machine,
        tuple(rows["tensor"]),
        tuple(rows["section"]),
        tuple(rows["value"]),
        tuple(rows["input"]),
        tuple(rows["output"]),
    )


def _machine(lines: Lines) -> Machine:
    if lines.take() != "machine":
        lines.fail("expected the machine")
    toml: list[str] = []
    while lines.next().startswith("  |"):
        toml.append(lines.take()[4:])
    return machines.loads("\n".join(toml), "the program's machine")


def _tensor(line: Line) -> Tensor:
    return Tensor(line.name(), int(line.word()), line.maybe("constant"))


def _value(line: Line) -> Placement:
    return Placement(line.name(), line.integers(), line.view())


def _section(line: Line) -> Section:
    name, kernel, mode = line.name(), None, ""
    views: list[tuple[Role, View]] = []
    instructions: list[Instruction] = []
    kept: list[Kept] = []
    for inner in line.lines.inner("  "):
        kind = inner.word()
        if kind == "kernel":
            kernel = inner.made(_kernel)
        elif kind == "mode":
            mode = inner.made(Line.name)
        elif kind == "view":
            views.append(inner.made(lambda row: (_role(row.word()), row.view())))
        elif kind == "kept":
            kept.append(inner.made(_kept))
        elif kind in _INSTRUCTIONS:
            instructions.append(inner.made(_INSTRUCTIONS[kind]))
        else:
            line.lines.fail(f"expected one of kernel, mode, view, kept, {', '.join(_INSTRUCTIONS)}")
    return Section(name, kernel, tuple(views), tuple(instructions), mode, tuple(kept))


def _kept(line: Line) -> Kept:
    memory, unit = line.name(), int(line.word())
    ranges: list[tuple[int, int]] = []
    while line.next():
        ranges.append(line.range())
    return Kept(memory, unit, tuple(ranges))


def _role(word: str) -> Role:
    return cast(Role, _one_of(word, get_args(Role)))


def _one_of(word: str, choices: Sequence[str]) -> str:
    if word not in choices:
        raise ValueError(f"found {word!r}, expected one of {', '.join(choices)}")
    return word


def _kernel(line: Line) -> Kernel:
    operation: Any = _one_of(line.word(), list(OPERANDS))
    line.skip("y")
    y = line.window()
    line.skip("x")
    x = line.window()
    activation = _activation(line) if line.maybe("activation") else None
    pool = _pool(line) if line.maybe("pool") else None
    return Kernel(operation, y, x, activation, pool, float(line.word()) if line.maybe("fill") else 0.0)


def _activation(line: Line) -> Activation:
    name = line.name()
    parameters: list[float] = []
    while line.next() not in ("", "pool", "fill"):
        parameters.append(float(line.word()))
    return Activation(name, tuple(parameters))


def _pool(line: Line) -> Pool:
    kind: Any = _one_of(line.word(), ("max", "average"))
    return Pool(kind, line.window(), line.window(), line.maybe("count_include_pad"))


def _load(line: Line) -> Load:
    role, memory, width, packed = _role(line.word()), line.name(), _width(line), line.maybe("packed")
    transfers = line.regions()
    line.skip("->")
    return Load(role, memory, width, transfers, line.pieces(), packed)


def _store(line: Line) -> Store:
    role, memory, width, pieces = _role(line.word()), line.name(), _width(line), line.pieces()
    line.skip("->")
    return Store(role, memory, width, line.regions(), pieces)


def _move(line: Line) -> Move:
    role, memory, width, source = _role(line.word()), line.name(), _width(line), line.pieces()
    line.skip("->")
    return Move(role, memory, width, source, line.pieces())


def _release(line: Line) -> Release:
    return Release(line.name(), _width(line), line.pieces())


def _width(line: Line) -> Width:
    return cast(Width, _one_of(line.word(), get_args(Width)))


def _compute(line: Line) -> Compute:
    reduce = line.range()
    first, last = line.maybe("first"), line.maybe("last")
    parts = tuple(inner.made(_part) for inner in line.lines.inner("    "))
    return Compute(parts, reduce, first, last)


def _pool_tile(line: Line) -> PoolTile:
    rows = [inner.made(_pooled_part) for inner in line.lines.inner("    ")]
    return PoolTile(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))


def _part(line: Line) -> Part:
    line.skip("part")
    region = line.region()
    operands: list[tuple[Role, tuple[Piece, ...]]] = []
    while line.next() not in ("", "before"):
        operands.append((_role(line.word()), line.pieces()))
    return Part(region, tuple(operands))


def _pooled_part(line: Line) -> tuple[Part, tuple[Piece, ...], tuple[Piece, ...]]:
    part = _part(line)
    line.skip("before")
    before = line.pieces()
    line.skip("after")
    return part, before, line.pieces()


def _host(line: Line) -> Host:
    node, operator, inputs = line.name(), line.name(), line.names("->")
    return Host(node, operator, inputs, line.names("because"), line.name())


_ROWS: dict[str, Callable[[Line], Any]] = {
    "tensor": _tensor,
    "value": _value,
    "input": Line.name,
    "output": Line.name,
    "section": _section,
}
_INSTRUCTIONS: dict[str, Callable[[Line], Instruction]] = {
    "load": _load,
    "store": _store,
    "move": _move,
    "release": _release,
    "compute": _compute,
    "pool": _pool_tile,
    "host": _host,
}
