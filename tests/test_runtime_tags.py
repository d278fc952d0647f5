"""The tags of on-chip words against a plain dictionary of words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc_runtime.addressing import banks
from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import frame
from dnnc_runtime.program import Kernel, Role, Window
from dnnc_runtime.tags import Tags
from dnnc_runtime.tensor import Piece, Region, coordinates, extent, span
from runtime_tiler import alone, machine

SMALL: dict[Role, tuple[int, ...]] = {"input": (1, 3, 3, 1, 2), "weights": (1, 1, 1, 1, 2), "output": (1, 3, 3, 1, 1)}


@st.composite
def placements(draw: st.DrawFn) -> Piece:
    """A part of a small input, anywhere in 24 words of one of two units, at any pitches."""
    y, x, c = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 1))
    axes = (
        span(y, draw(st.integers(1, 3 - y))),
        span(x, draw(st.integers(1, 3 - x))),
        span(c, draw(st.integers(1, 2 - c))),
    )
    region: Region = (span(0, 1), axes[0], axes[1], span(0, 1), axes[2])
    pitch = draw(st.sampled_from([(0, 6, 2, 0, 1), (0, 4, 2, 0, 1), (0, 2, 4, 0, 1), (0, 1, 3, 0, 9), (0, 2, 2, 0, 1)]))
    return Piece((draw(st.integers(0, 1)),), draw(st.integers(0, 6)), pitch, region)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["write", "clear", "read", "again"]), placements()), max_size=12))
def test_tags_are_a_dictionary_of_words(steps: list[tuple[str, Piece]]) -> None:
    made = alone(Kernel("conv", Window(3, 3), Window(3, 3)), SMALL, machine(maps=48, vmacs=1))
    tags, maps = Tags(made.machine, made.tensors), banks(made.machine)["maps"]
    tags.begin(frame(made.machine, made.sections[0]))
    held: dict[tuple[int, int], tuple[int, ...]] = {}
    written: list[Piece] = []
    for what, drawn in steps:
        piece = written[-1] if what == "again" and written else drawn
        words = {(piece.instances[0], word): point for word, point in elements_of(piece)}
        if what == "write":
            tags.write("input", maps, [piece])
            held.update(words)
            written.append(piece)
        elif what == "clear":
            tags.clear(maps, [piece], 1)
            held = {word: point for word, point in held.items() if word not in words}
        elif all(held.get((piece.instances[0], word)) == point for word, point in elements_of(piece)):
            tags.read("input", maps, [piece])
        else:
            with pytest.raises(DisagreementFault):
                tags.read("input", maps, [piece])


def elements_of(piece: Piece) -> list[tuple[int, tuple[int, ...]]]:
    """Every element's word and coordinates, in the order of the region."""
    shape = tuple(extent(axis) for axis in piece.region)
    return [
        (
            piece.base + sum(i * p for i, p in zip(index, piece.pitch, strict=True)),
            tuple(coordinates(axis)[i] for axis, i in zip(piece.region, index, strict=True)),
        )
        for index in np.ndindex(*shape)
    ]
