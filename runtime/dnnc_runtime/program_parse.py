"""Reads the text form of a program (see :mod:`dnnc_runtime.program_text`) back to an equal program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args

from dnnc_runtime import machine as machines
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.frame import OPERANDS
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import (
    Activation,
    Compute,
    Host,
    Instruction,
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
    Window,
)
from dnnc_runtime.program_text import HEAD
from dnnc_runtime.tensor import Axis, Piece, Region, Run, View

_T = TypeVar("_T")

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
_RUN = re.compile(r"(\d+)\+(\d+)(?:/(\d+))?")
_PIECE = re.compile(r"([\d,]+)@(-?\d+)\^(\S+)=(\S+)")
_WINDOW = re.compile(r"(\d+)>(\d+):(\d+)/(\d+)\*(\d+)([+-]\d+)([+-]\d+)")


def read(text: str) -> Program:
    """The program that a text form describes.

    Raises:
        UsageFault: the text is malformed; the message names the line.
    """
    lines = _Lines(text)
    if lines.take() != HEAD:
        lines.fail(f"expected {HEAD!r}: this is no program, or one of another version")
    machine = _machine(lines)
    rows: dict[str, list[Any]] = {kind: [] for kind in _ROWS}
    while lines.next():
        line = _Line(lines)
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


def _machine(lines: _Lines) -> Machine:
    if lines.take() != "machine":
        lines.fail("expected the machine")
    toml: list[str] = []
    while lines.next().startswith("  |"):
        toml.append(lines.take()[4:])
    return machines.loads("\n".join(toml), "the program's machine")


class _Lines:
    """The lines of a text, and where we are."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0

    def next(self) -> str:
        """The line to come, empty at the end."""
        return self._lines[self._at] if self._at < len(self._lines) else ""

    def take(self) -> str:
        line = self.next()
        self._at += 1
        return line

    def inner(self, indent: str) -> Iterator[_Line]:
        """The lines that belong to the one before."""
        while self.next().startswith(indent):
            yield _Line(self)

    def fail(self, why: str) -> None:
        line = self._lines[self._at - 1].strip() if 0 < self._at <= len(self._lines) else ""
        raise UsageFault(f"program text, line {self._at}: {line[:60]!r}: {why}")


class _Line:
    """The words of one line, read from left to right."""

    def __init__(self, lines: _Lines) -> None:
        self.lines = lines
        self._words: list[str] = _TOKEN.findall(lines.take())
        self._at = 0

    def made(self, make: Callable[[_Line], _T]) -> _T:
        """What ``make`` reads from the rest of the line, all of which it has to use."""
        try:
            made = make(self)
            if self.next():
                raise ValueError(f"{self.next()!r} is too much")
        except (ValueError, IndexError, KeyError) as fault:
            self.lines.fail(f"cannot be read: {fault}")
            raise
        return made

    def next(self) -> str:
        """The word to come, empty at the end of the line."""
        return self._words[self._at] if self._at < len(self._words) else ""

    def word(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def maybe(self, word: str) -> bool:
        """Skip a word if it is the next one."""
        found = self.next() == word
        self._at += found
        return found

    def skip(self, word: str) -> None:
        if not self.maybe(word):
            raise ValueError(f"found {self.next()!r}, expected {word!r}")

    def name(self) -> str:
        word = self.word()
        return str(json.loads(word)) if word.startswith('"') else word

    def names(self, end: str) -> tuple[str, ...]:
        """The names before a word, and past it."""
        found: list[str] = []
        while not self.maybe(end):
            found.append(self.name())
        return tuple(found)

    def integers(self) -> tuple[int, ...]:
        return _integers(self.word())

    def regions(self) -> tuple[Region, ...]:
        found: list[Region] = []
        while self.next() not in ("", "->"):
            found.append(_region(self.word()))
        return tuple(found)

    def pieces(self) -> tuple[Piece, ...]:
        found: list[Piece] = []
        while match := _PIECE.fullmatch(self.next()):
            found.append(_piece(match[0]))
            self._at += 1
        return tuple(found)

    def view(self) -> View:
        return View(self.name(), int(self.word().removeprefix("@")), self.integers(), self.integers())

    def window(self) -> Window:
        match = _WINDOW.fullmatch(self.word())
        if match is None:
            raise ValueError("a window is size>out:kernel/stride*dilation+pad+pad_after")
        return Window(*map(int, match.groups()))


@lru_cache(maxsize=1 << 14)
def _integers(word: str) -> tuple[int, ...]:
    return () if word == "-" else tuple(map(int, word.split(",")))


@lru_cache(maxsize=1 << 14)
def _axis(word: str) -> Axis:
    if word == "-":
        return ()
    found = [_RUN.fullmatch(run) for run in word.split(",")]
    return tuple(Run(*(int(n) for n in match.groups("1"))) for match in found if match)


@lru_cache(maxsize=1 << 14)
def _region(word: str) -> Region:
    region = tuple(map(_axis, word.split(":")))
    if not all(axis or part == "-" for axis, part in zip(region, word.split(":"), strict=True)):
        raise ValueError(f"{word!r} is no region")
    return region


@lru_cache(maxsize=1 << 14)
def _piece(word: str) -> Piece:
    match = _PIECE.fullmatch(word)
    assert match
    return Piece(_integers(match[1]), int(match[2]), _integers(match[3]), _region(match[4]))


def _tensor(line: _Line) -> Tensor:
    return Tensor(line.name(), int(line.word()), line.maybe("constant"))


def _value(line: _Line) -> Placement:
    return Placement(line.name(), line.integers(), line.view())


def _section(line: _Line) -> Section:
    name, kernel = line.name(), None
    views: list[tuple[Role, View]] = []
    instructions: list[Instruction] = []
    for inner in line.lines.inner("  "):
        kind = inner.word()
        if kind == "kernel":
            kernel = inner.made(_kernel)
        elif kind == "view":
            views.append(inner.made(lambda row: (_role(row.word()), row.view())))
        elif kind in _INSTRUCTIONS:
            instructions.append(inner.made(_INSTRUCTIONS[kind]))
        else:
            line.lines.fail(f"expected one of kernel, view, {', '.join(_INSTRUCTIONS)}")
    return Section(name, kernel, tuple(views), tuple(instructions))


def _role(word: str) -> Role:
    return cast(Role, _one_of(word, get_args(Role)))


def _one_of(word: str, choices: Sequence[str]) -> str:
    if word not in choices:
        raise ValueError(f"found {word!r}, expected one of {', '.join(choices)}")
    return word


def _kernel(line: _Line) -> Kernel:
    operation: Any = _one_of(line.word(), list(OPERANDS))
    line.skip("y")
    y = line.window()
    line.skip("x")
    x = line.window()
    activation = _activation(line) if line.maybe("activation") else None
    pool = _pool(line) if line.maybe("pool") else None
    return Kernel(operation, y, x, activation, pool, float(line.word()) if line.maybe("fill") else 0.0)


def _activation(line: _Line) -> Activation:
    name = line.name()
    parameters: list[float] = []
    while line.next() not in ("", "pool", "fill"):
        parameters.append(float(line.word()))
    return Activation(name, tuple(parameters))


def _pool(line: _Line) -> Pool:
    kind: Any = _one_of(line.word(), ("max", "average"))
    return Pool(kind, line.window(), line.window(), line.maybe("count_include_pad"))


def _load(line: _Line) -> Load:
    role, memory, width, packed = _role(line.word()), line.name(), _width(line), line.maybe("packed")
    transfers = line.regions()
    line.skip("->")
    return Load(role, memory, width, transfers, line.pieces(), packed)


def _store(line: _Line) -> Store:
    role, memory, width, pieces = _role(line.word()), line.name(), _width(line), line.pieces()
    line.skip("->")
    return Store(role, memory, width, line.regions(), pieces)


def _move(line: _Line) -> Move:
    role, memory, width, source = _role(line.word()), line.name(), _width(line), line.pieces()
    line.skip("->")
    return Move(role, memory, width, source, line.pieces())


def _release(line: _Line) -> Release:
    return Release(line.name(), _width(line), line.pieces())


def _width(line: _Line) -> Width:
    return cast(Width, _one_of(line.word(), get_args(Width)))


def _compute(line: _Line) -> Compute:
    start, stop = line.word().split("..")
    first, last = line.maybe("first"), line.maybe("last")
    parts = tuple(inner.made(_part) for inner in line.lines.inner("    "))
    return Compute(parts, (int(start), int(stop)), first, last)


def _pool_tile(line: _Line) -> PoolTile:
    rows = [inner.made(_pooled_part) for inner in line.lines.inner("    ")]
    return PoolTile(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))


def _part(line: _Line) -> Part:
    line.skip("part")
    region = _region(line.word())
    operands: list[tuple[Role, tuple[Piece, ...]]] = []
    while line.next() not in ("", "before"):
        operands.append((_role(line.word()), line.pieces()))
    return Part(region, tuple(operands))


def _pooled_part(line: _Line) -> tuple[Part, tuple[Piece, ...], tuple[Piece, ...]]:
    part = _part(line)
    line.skip("before")
    before = line.pieces()
    line.skip("after")
    return part, before, line.pieces()


def _host(line: _Line) -> Host:
    node, operator, inputs = line.name(), line.name(), line.names("->")
    return Host(node, operator, inputs, line.names("because"), line.name())


_ROWS: dict[str, Callable[[_Line], Any]] = {
    "tensor": _tensor,
    "value": _value,
    "input": _Line.name,
    "output": _Line.name,
    "section": _section,
}
_INSTRUCTIONS: dict[str, Callable[[_Line], Instruction]] = {
    "load": _load,
    "store": _store,
    "move": _move,
    "release": _release,
    "compute": _compute,
    "pool": _pool_tile,
    "host": _host,
}
