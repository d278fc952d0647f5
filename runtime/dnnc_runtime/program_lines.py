"""The lines of a program's text form, and what their words say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NoReturn, TypeVar

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.program import Window
from dnnc_runtime.tensor import Axis, Piece, Region, Run, View

_T = TypeVar("_T")

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
_RUN = re.compile(r"(\d+)\+(\d+)(?:/(\d+))?")
_PIECE = re.compile(r"([\d,]+)@(-?\d+)\^(\S+)=(\S+)")
_WINDOW = re.compile(r"(\d+)>(\d+):(\d+)/(\d+)\*(\d+)([+-]\d+)([+-]\d+)")


class Lines:
    """The lines of a text, and where we are."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0

    def next(self) -> str:
        """The line to come, empty at the end."""
        return self._lines[self._at] if self._at < len(self._lines) else ""

    def take(self) -> str:
        """The line to come, and past it."""
        line = self.next()
        self._at += 1
        return line

    def inner(self, indent: str) -> Iterator[Line]:
        """The lines that belong to the one before."""
        while self.next().startswith(indent):
            yield Line(self)

    def fail(self, why: str) -> NoReturn:
        """Raises :class:`UsageFault` about the line last taken."""
        line = self._lines[self._at - 1].strip() if 0 < self._at <= len(self._lines) else ""
        raise UsageFault(f"program text, line {self._at}: {line[:60]!r}: {why}")


class Line:
    """The words of one line, read from left to right."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._words: list[str] = _TOKEN.findall(lines.take())
        self._at = 0

    def made(self, make: Callable[[Line], _T]) -> _T:
        """What ``make`` reads from the rest of the line, all of which it has to use."""
        try:
            made = make(self)
            if self.next():
                raise ValueError(f"{self.next()!r} is too much")
        except (ValueError, IndexError, KeyError) as fault:
            self.lines.fail(f"cannot be read: {fault}")
        return made

    def next(self) -> str:
        """The word to come, empty at the end of the line."""
        return self._words[self._at] if self._at < len(self._words) else ""

    def word(self) -> str:
        """The word to come, and past it."""
        self._at += 1
        return self._words[self._at - 1]

    def maybe(self, word: str) -> bool:
        """Skip a word if it is the next one."""
        found = self.next() == word
        self._at += found
        return found

    def skip(self, word: str) -> None:
        """Past a word that has to be the next one."""
        if not self.maybe(word):
            raise ValueError(f"found {self.next()!r}, expected {word!r}")

    def name(self) -> str:
        """A bare name or a JSON string."""
        word = self.word()
        return str(json.loads(word)) if word.startswith('"') else word

    def names(self, end: str) -> tuple[str, ...]:
        """The names before a word, and past it."""
        found: list[str] = []
        while not self.maybe(end):
            found.append(self.name())
        return tuple(found)

    def integers(self) -> tuple[int, ...]:
        """Integers parted by commas."""
        return _integers(self.word())

    def range(self) -> tuple[int, int]:
        """Two integers, the first and the end of a range."""
        first, end = self.word().split("..")
        return int(first), int(end)

    def region(self) -> Region:
        """One region."""
        return _region(self.word())

    def regions(self) -> tuple[Region, ...]:
        """Regions up to an arrow or the end."""
        found: list[Region] = []
        while self.next() not in ("", "->"):
            found.append(_region(self.word()))
        return tuple(found)

    def pieces(self) -> tuple[Piece, ...]:
        """Pieces up to a word that is none."""
        found: list[Piece] = []
        while match := _PIECE.fullmatch(self.next()):
            found.append(_piece(match[0]))
            self._at += 1
        return tuple(found)

    def view(self) -> View:
        """A view: four words."""
        return View(self.name(), int(self.word().removeprefix("@")), self.integers(), self.integers())

    def window(self) -> Window:
        """A window."""
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
