"""The tags of on-chip words against a plain dictionary of words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc_runtime.addressing import banks
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import frame
from dnnc_runtime.program import Kept, Kernel, Role, Window
from dnnc_runtime.tags import Tags
from dnnc_runtime.tensor import Piece, Region, coordinates, extent, span
from runtime_tiler import alone, machine

SMALL: dict[Role, tuple[int, ...]] = {"input": (1, 3, 3, 1, 4), "weights": (1, 4, 1, 1, 4), "output": (1, 3, 3, 1, 4)}
WORDS = 48
PITCHES = [
    (0, 12, 4, 0, 1),
    (0, 8, 4, 0, 1),
    (0, 4, 12, 0, 1),
    (0, 6, 2, 0, 1),
    (0, 1, 3, 0, 9),
    (0, 2, 2, 0, 1),
    (0, 24, 8, 0, 2),
]
ROLES: dict[Role, int] = {"input": 1, "output": 1, "accumulator": 2}
"""The roles written, all of the same shape, and their words for each element."""

STEPS = ["write", "write a tile", "clear", "clear again", "read", "read again", "read a part", "empty"]


@st.composite
def pieces(draw: st.DrawFn) -> tuple[Role, Piece]:
    """A part of a small tensor, anywhere in a memory, at any pitches."""
    role = draw(st.sampled_from(list(ROLES)))
    starts = [draw(st.integers(0, size - 1)) for size in (3, 3, 4)]
    y, x, c = (span(start, draw(st.integers(1, size - start))) for start, size in zip(starts, (3, 3, 4), strict=True))
    region: Region = (span(0, 1), y, x, span(0, 1), draw(st.sampled_from([c, c, c, c, c, ()])))
    wide, flat = draw(st.sampled_from([1, ROLES[role]])), draw(st.booleans())
    # Along an axis of one element, the pitch says nothing.
    pitch = tuple(
        0 if flat and extent(axis) == 1 else step * wide
        for axis, step in zip(region, draw(st.sampled_from(PITCHES)), strict=True)
    )
    units = draw(st.sampled_from([(0,), (1,), (0, 1)]))
    words = sum((extent(axis) - 1) * step for axis, step in zip(region, pitch, strict=True)) + ROLES[role]
    return role, Piece(units, draw(st.integers(0, max(0, WORDS - words))), pitch, region)


@st.composite
def tiles(draw: st.DrawFn, written: list[tuple[Role, Piece]]) -> tuple[Role, Piece]:
    """Some planes at the places of those of a piece that was written, of the same role or another of its width."""
    role, piece = draw(st.sampled_from(written))
    *outer, planes = piece.region
    first = draw(st.integers(0, 3))
    count = draw(st.integers(1, 4 - first))
    base = max(0, piece.base + (first - planes[0].start) * (piece.pitch[-1] or draw(st.integers(0, 2))))
    if ROLES[role] == 1:
        narrow: list[Role] = ["input", "output"]
        role = draw(st.sampled_from(narrow))
    return role, piece._replace(base=base, region=(*outer, span(first, count)))


@st.composite
def parts(draw: st.DrawFn, written: list[tuple[Role, Piece]]) -> tuple[Role, Piece]:
    """A part of a piece that was written, where it lies in it."""
    role, piece = draw(st.sampled_from(written))
    base, region = piece.base, list(piece.region)
    for a, axis in enumerate(piece.region):
        ahead = draw(st.integers(0, axis[0].count - 1))
        region[a] = span(axis[0].start + ahead, draw(st.integers(1, axis[0].count - ahead)))
        base += ahead * piece.pitch[a]
    return role, piece._replace(instances=piece.instances[:1], base=base, region=tuple(region))


class Words:
    """The tags of two units' memories, and a dictionary of what their words hold."""

    def __init__(self) -> None:
        made = alone(Kernel("conv", Window(3, 3), Window(3, 3)), SMALL, machine(maps=2 * WORDS, vmacs=1))
        self.tags, self.bank = Tags(made.machine, made.tensors), banks(made.machine)["maps"]
        self.tags.begin(frame(made.machine, made.sections[0]))
        self.held: dict[tuple[int, int], tuple[Role, tuple[int, ...]]] = {}

    def write(self, role: Role, piece: Piece) -> None:
        self.tags.write(role, self.bank, [piece])
        for word, point in elements_of(role, piece):
            self.held |= {(unit, word): (role, point) for unit in piece.instances}

    def clear(self, role: Role, piece: Piece) -> None:
        self.tags.clear(self.bank, [piece], ROLES[role])
        for word, _ in elements_of(role, piece):
            for unit in piece.instances:
                self.held.pop((unit, word), None)

    def empty(self, unit: int, first: int, end: int) -> None:
        around = tuple(words for words in ((0, first), (end, WORDS)) if words[0] < words[1])
        self.tags.end([Kept("maps", unit, around), Kept("maps", 1 - unit, ((0, WORDS),))])
        for word in range(first, end):
            self.held.pop((unit, word), None)

    def read(self, role: Role, piece: Piece) -> None:
        one = piece._replace(instances=piece.instances[:1])
        if all(self.held.get((one.instances[0], word)) == (role, point) for word, point in elements_of(role, one)):
            self.tags.read(role, self.bank, [one])
        else:
            with pytest.raises(DisagreementFault):
                self.tags.read(role, self.bank, [one])


@settings(max_examples=400)
@given(st.lists(st.sampled_from(STEPS), max_size=14), st.data())
def test_tags_are_a_dictionary_of_words(steps: list[str], data: st.DataObject) -> None:
    words, written = Words(), list[tuple[Role, Piece]]()
    for what in steps:
        if what == "empty":
            first = data.draw(st.integers(0, WORDS - 1))
            words.empty(data.draw(st.integers(0, 1)), first, data.draw(st.integers(first + 1, WORDS)))
            continue
        drawn = pieces()
        if written and what in ("write a tile", "read a part"):
            drawn = (tiles if what == "write a tile" else parts)(written)
        elif written and what in ("read again", "clear again"):
            drawn = st.sampled_from(written)
        role, piece = data.draw(drawn)
        if last(piece) + ROLES[role] <= WORDS:
            {"write": words.write, "clear": words.clear, "read": words.read}[what.split()[0]](role, piece)
            if what.startswith("write") and all(piece.region):
                written.append((role, piece))


def last(piece: Piece) -> int:
    """The first word of a piece's last element."""
    return piece.base + sum((extent(axis) - 1) * step for axis, step in zip(piece.region, piece.pitch, strict=True))


def elements_of(role: Role, piece: Piece) -> list[tuple[int, tuple[int, ...]]]:
    """Every element's words and coordinates, in the order of the region."""
    shape = tuple(extent(axis) for axis in piece.region)
    return [
        (
            piece.base + word + sum(i * p for i, p in zip(index, piece.pitch, strict=True)),
            tuple(coordinates(axis)[i] for axis, i in zip(piece.region, index, strict=True)),
        )
        for word in range(ROLES[role])
        for index in np.ndindex(*shape)
    ]
