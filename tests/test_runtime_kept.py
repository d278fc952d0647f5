"""Words that stay on chip from section to section: what may be read later, what is lost, and when it happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnnc_runtime import Constants, Counters, Fixed, Float32, Numbers, execute, refer, walk
from dnnc_runtime.addressing import banks
from dnnc_runtime.dram import Dram
from dnnc_runtime.errors import DisagreementFault, UsageFault
from dnnc_runtime.executor import Arithmetic
from dnnc_runtime.frame import frame
from dnnc_runtime.hazards import Hazards
from dnnc_runtime.program import (
    Activation,
    Compute,
    Instruction,
    Kept,
    Kernel,
    Load,
    Part,
    Placement,
    Program,
    Release,
    Role,
    Section,
    Store,
    Tensor,
    Window,
)
from dnnc_runtime.tags import Tags
from dnnc_runtime.tensor import Piece, Region, View, runs, span
from dnnc_runtime.timeline import Timing, timeline
from dnnc_runtime.walk import tell
from runtime_tiler import CONSTANTS, dense, machine

TOY = machine(cus=1, vmacs=1)
FIXED = Fixed.of(TOY)
ROWS, COLUMNS = 6, 4
POINT = Kernel("conv", Window(ROWS, ROWS), Window(COLUMNS, COLUMNS))
SQUARE = Kernel("conv", Window(ROWS, ROWS, 3, 1, 1, 1, 1), Window(COLUMNS, COLUMNS, 3, 1, 1, 1, 1))


def maps(tensor: str, channels: int, first: int = 0, of: int = 0) -> View:
    """Channels of a feature map, ``of`` so many where it is a part of a concatenation."""
    of = of or channels
    return View(tensor, first, (1, ROWS, COLUMNS, 1, channels), (ROWS * COLUMNS * of, COLUMNS * of, of, of, 1))


def filters(tensor: str, kernel: Kernel, k: int, c: int) -> View:
    shape = (1, k, kernel.y.kernel, kernel.x.kernel, c)
    return View(tensor, 0, shape, dense(shape))


@dataclass(frozen=True)
class Layer:
    """A layer and where its operands lie on chip: every map as in DRAM, from a base on."""

    name: str
    kernel: Kernel
    views: dict[Role, View]
    bases: dict[Role, int]

    def piece(self, role: Role, region: Region) -> Piece:
        view, base = self.views[role], self.bases[role]
        start = sum(axis[0].start * stride for axis, stride in zip(region, view.strides, strict=True))
        return Piece((0,), base + start, view.strides, region)

    def rows(self, role: Role, rows: range) -> Region:
        """Output rows, or the input rows that they touch, of all channels."""
        axis = span(rows.start, len(rows))
        if role == "input":
            axis = runs(self.kernel.y.touched(rows.start, rows.stop - 1))
        return (span(0, 1), axis, span(0, COLUMNS), span(0, 1), span(0, self.views[role].shape[4]))

    def region(self, role: Role, rows: range) -> Region:
        return tuple(span(0, n) for n in self.views[role].shape) if role == "weights" else self.rows(role, rows)

    def section(self, rows: range, load: Sequence[Role], store: bool, kept: Sequence[Kept] = ()) -> Section:
        """The layer at some of its rows, computed at once; what is not loaded has to be there."""
        found: dict[Role, Piece] = {role: self.piece(role, self.region(role, rows)) for role in self.views}
        out: list[Instruction] = []
        for role in load:
            memory = "weights" if role in CONSTANTS else "maps"
            out.append(Load(role, memory, "word", (found[role].region,), (found[role],)))
        channels = self.views["input"].shape[4]
        operands: list[tuple[Role, tuple[Piece, ...]]] = [(role, (piece,)) for role, piece in found.items()]
        out.append(Compute((Part(self.rows("output", rows), tuple(operands)),), (0, channels)))
        if store:
            out.append(Store("output", "maps", "word", (found["output"].region,), (found["output"],)))
        return Section(self.name, self.kernel, tuple(self.views.items()), tuple(out), "together", tuple(kept))


def program(
    sections: Sequence[Section], values: dict[str, View], inputs: Sequence[str], outputs: Sequence[str]
) -> Program:
    views = [view for section in sections for _, view in section.views]
    words: dict[str, int] = {}
    for view in views:
        last = sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
        words[view.tensor] = max(words.get(view.tensor, 0), view.offset + last + 1)
    tensors = tuple(Tensor(name, size, name.startswith("w")) for name, size in words.items())
    places = tuple(Placement(name, view.shape, view) for name, view in values.items())
    return Program(TOY, tensors, tuple(sections), places, tuple(inputs), tuple(outputs))


def feeds(made: Program, seed: int = 0, scale: float = 1.0) -> tuple[dict[str, NDArray[np.float32]], Constants]:
    rng = np.random.default_rng(seed)
    places = {place.name: place for place in made.values}
    inputs = {name: rng.normal(0, scale, places[name].shape).astype(np.float32) for name in made.inputs}
    weights = {t.name: rng.normal(0, scale, t.words).astype(np.float32) for t in made.tensors if t.constant}
    return inputs, {name: partial(weights.__getitem__, name) for name in weights}


# Two convolutions of x write three and two channels of one concatenation of five, which a third reads whole.
# On chip: the concatenation at 0, x at 200, the third one's output at 400; weights one after the other.
LEFT = Layer(
    "left", SQUARE,
    {"input": maps("x", 3), "weights": filters("w1", SQUARE, 3, 3), "output": maps("both", 3, 0, 5)},
    {"input": 200, "weights": 0, "output": 0},
)  # fmt: skip
RIGHT = Layer(
    "right", POINT,
    {"input": maps("x", 3), "weights": filters("w2", POINT, 2, 3), "output": maps("both", 2, 3, 5)},
    {"input": 200, "weights": 100, "output": 3},
)  # fmt: skip
LAST = Layer(
    "last", SQUARE,
    {"input": maps("both", 5), "weights": filters("w3", SQUARE, 4, 5), "output": maps("y", 4)},
    {"input": 0, "weights": 200, "output": 400},
)  # fmt: skip
BOTH = ROWS * COLUMNS * 5
STAYS = (Kept("maps", 0, ((0, BOTH),)),)
VALUES = {"x": maps("x", 3), "left": maps("both", 3, 0, 5), "both": maps("both", 5), "y": maps("y", 4)}
ALL, TOP, BOTTOM = range(ROWS), range(4), range(4, ROWS)
FROM_DRAM: tuple[Role, ...] = ("input", "weights")


def whole() -> list[Section]:
    """Layer by layer; the concatenation never goes to DRAM."""
    return [
        LEFT.section(ALL, FROM_DRAM, False, STAYS),
        RIGHT.section(ALL, FROM_DRAM, False, STAYS),
        LAST.section(ALL, ("weights",), True),
    ]


def strips(cut: int = 3) -> list[Section]:
    """In two strips; the last layer, cut at a row, needs a row below its own, and one above."""
    lower = (Kept("maps", 0, (((cut - 1) * COLUMNS * 5, BOTH),)),)
    top, bottom = range(cut + 1), range(cut + 1, ROWS)
    return [
        LEFT.section(top, FROM_DRAM, False, STAYS),
        RIGHT.section(top, FROM_DRAM, False, STAYS),
        LAST.section(range(cut), ("weights",), True, lower),
        LEFT.section(bottom, FROM_DRAM, False, lower),
        RIGHT.section(bottom, FROM_DRAM, False, lower),
        LAST.section(range(cut, ROWS), ("weights",), True),
    ]


def made(sections: Sequence[Section]) -> Program:
    return program(sections, VALUES, ("x",), ("y",))


def refused(sections: Sequence[Section], words: str) -> None:
    """Both the walk and the execution refuse it."""
    wrong = made(sections)
    with pytest.raises(DisagreementFault, match=words):
        walk(wrong)
    with pytest.raises(DisagreementFault, match=words):
        execute(wrong, *feeds(wrong))


def computes_what_it_means(right: Program, numbers: Numbers, scale: float = 1.0) -> None:
    """Outputs, every value on the way, and what did not fit."""
    feed = feeds(right, 1, scale)
    got, expected = (run(right, *feed, numbers, keep_values=True) for run in (execute, refer))
    assert set(got.values) == {place.name for place in right.values}
    off = 0.0 if numbers == FIXED else 1e-4
    for name, values in expected.values.items():
        np.testing.assert_allclose(got.values[name], values, rtol=off, atol=off)
    assert got.saturations == expected.saturations
    for name, values in execute(right, *feed, numbers).outputs.items():
        np.testing.assert_array_equal(values, got.values[name])


@pytest.mark.parametrize("numbers", [Float32(), FIXED])
@pytest.mark.parametrize("sections", [whole, strips])
def test_a_concatenation_that_stays_on_chip(sections: Callable[[], list[Section]], numbers: Numbers) -> None:
    computes_what_it_means(made(sections()), numbers)
    computes_what_it_means(made(sections()), numbers, 8.0)


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_it_does_not_matter_where_strips_are_cut(cut: int) -> None:
    computes_what_it_means(made(strips(cut)), FIXED)
    laws(timeline(made(strips(cut))))


@pytest.mark.parametrize("sections", [whole, strips])
def test_what_stays_on_chip_is_not_moved(sections: Callable[[], list[Section]]) -> None:
    right = made(sections())
    counters = Counters(right)
    walk(right, [counters])
    words = prod(VALUES["y"].shape)
    assert {key: moved.payload for key, moved in counters.traffic.items() if key[2] == "write"} == {
        ("last", "output", "write"): 2 * words
    }
    assert ("last", "input", "read") not in counters.traffic
    # Weights are loaded once in every section of a layer; the strips of the left layer share two rows of x.
    times = len(sections()) // 3
    assert counters.traffic["right", "weights", "read"].payload == 2 * times * 6
    assert counters.traffic["right", "input", "read"].payload == 2 * prod(VALUES["x"].shape)
    assert counters.traffic["left", "input", "read"].payload == 2 * COLUMNS * 3 * (ROWS + 2 * (times - 1))


@pytest.mark.parametrize("sections", [whole, strips])
def test_kept_words_are_part_of_the_text(sections: Callable[[], list[Section]]) -> None:
    right = made(sections())
    assert Program.parse(str(right)) == right
    assert str(right).count("  kept maps 0 0..120\n") == 2
    with pytest.raises(UsageFault, match="need ascending, disjoint ranges"):
        Program.parse(str(right).replace("kept maps 0 0..120", "kept maps 0 0..9 8..120"))


def in_place(kernel: Kernel, over: Role) -> Program:
    """A sum over the words of one of its operands, which the left layer computed, and a layer that reads the sum."""
    views: dict[Role, View] = {"input": maps("x", 3), "weights": filters("w4", POINT, 3, 3), "residual": maps("a", 3)}
    bases: dict[Role, int] = {"input": 200, "weights": 100, "residual": 0}
    if kernel.operation != "conv":
        roles: tuple[Role, Role] = ("input", "second") if over == "input" else ("second", "input")
        views = dict(zip(roles, (maps("a", 3), maps("x", 3)), strict=True))
        bases = dict(zip(roles, (0, 200), strict=True))
    a = replace(LEFT, views={**LEFT.views, "output": maps("a", 3)})
    total = Layer("sum", kernel, {**views, "output": maps("b", 3)}, {**bases, "output": 0})
    end = Layer(
        "end",
        replace(POINT, operation="identity"),
        {"input": maps("b", 3), "output": maps("y", 3)},
        {"input": 0, "output": 0},
    )
    stays = (Kept("maps", 0, ((0, ROWS * COLUMNS * 3),)),)
    loads: tuple[Role, ...] = tuple(role for role in views if role != over)
    sections = [a.section(ALL, FROM_DRAM, False, stays)]
    sections += [total.section(rows, loads, False, stays) for rows in (TOP, BOTTOM)]
    sections += [end.section(ALL, (), True)]
    values = {name: maps(name, 3) for name in ("x", "a", "b", "y")}
    return program(sections, values, ("x",), ("y",))


ADD = replace(POINT, operation="add", activation=Activation("Relu"))


@pytest.mark.parametrize("numbers", [Float32(), FIXED])
@pytest.mark.parametrize(("kernel", "over"), [(POINT, "residual"), (ADD, "input"), (ADD, "second")])
def test_results_may_overwrite_what_they_are_made_of(kernel: Kernel, over: Role, numbers: Numbers) -> None:
    right = in_place(kernel, over)
    computes_what_it_means(right, numbers)
    laws(timeline(right))


def test_parts_read_before_any_of_them_writes() -> None:
    """Two rows of one instruction change places: a row's words are written by one part and read by the other."""
    kernel = replace(POINT, operation="identity")
    layer = Layer("swap", kernel, {"input": maps("x", 1), "output": maps("y", 1)}, {"input": 0, "output": 0})
    pieces = [(layer.piece("input", layer.rows("input", range(y, y + 1)))) for y in range(ROWS)]
    parts = [
        Part(p.region, (("input", (p,)), ("output", (p._replace(base=pieces[ROWS - 1 - y].base),))))
        for y, p in enumerate(pieces)
    ]
    results = [dict(part.operands)["output"][0] for part in parts]
    section = replace(
        layer.section(ALL, ("input",), False),
        instructions=(
            Load(
                "input", "maps", "word", (layer.rows("input", ALL),), (layer.piece("input", layer.rows("input", ALL)),)
            ),
            Compute(tuple(parts), (0, 1)),
            Store("output", "maps", "word", tuple(p.region for p in results), tuple(results)),
        ),
    )
    computes_what_it_means(program([section], {name: maps(name, 1) for name in ("x", "y")}, ("x",), ("y",)), FIXED)


def with_weights(kept: bool) -> list[Section]:
    """The left layer in two strips, whose weights are loaded for the first."""
    weights = (Kept("weights", 0, ((0, prod(LEFT.views["weights"].shape)),)),)
    first, *rest = strips()
    again = LEFT.section(BOTTOM, ("input",), False, rest[2].kept)
    sections = [first, *rest[:2], again, *rest[3:]]
    return [replace(s, kept=(*s.kept, *weights)) for s in sections] if kept else sections


def test_weights_that_stay_are_read_again() -> None:
    right = made(with_weights(kept=True))
    computes_what_it_means(right, FIXED)
    refused(
        with_weights(kept=False), r"of memory 'weights' of unit 0 holds nothing, expected weights \(0, 0, 0, 0, 0\)"
    )


def test_a_row_that_was_not_kept_is_gone() -> None:
    sections = strips()
    fewer = (Kept("maps", 0, ((3 * COLUMNS * 5, BOTH),)),)
    sections[2] = replace(sections[2], kept=fewer)
    refused(sections, r"holds nothing, expected input \(0, 2, 0, 0, 0\)")


def test_words_that_are_not_kept_are_poisoned() -> None:
    """Without the checks, a layer that reads what is gone computes nothing."""
    sections = whole()
    sections[1] = replace(sections[1], kept=())
    wrong = made(sections)
    inputs, constants = feeds(wrong)
    dram = Dram(wrong, constants, Float32())
    dram.feed(wrong.inputs, inputs)
    tell(wrong, [Arithmetic(wrong, dram, Float32(), None)])
    assert np.isnan(dram.value("y")).all()


def test_what_is_neither_stored_nor_kept_is_missed() -> None:
    first, *rest = whole()
    few = (Kept("maps", 0, ((0, BOTH - 3),)),)
    refused(
        [replace(first, kept=few), *rest], r"'left': output element \(0, 5, 3, 0, 2\) .* was never stored, kept or rel"
    )
    lost = LEFT.piece("output", LEFT.rows("output", ALL))
    gone = replace(first, kept=few, instructions=(*first.instructions, Release("maps", "word", (lost,))))
    refused([gone, *rest], r"layer 'last', .* holds nothing, expected input \(0, 0, 0, 0, 0\)")


def test_an_element_is_stored_once() -> None:
    first, second, third = whole()
    out = RIGHT.piece("output", RIGHT.rows("output", ALL))
    stored = replace(
        second, instructions=(*second.instructions, Store("output", "maps", "word", (out.region,), (out,)))
    )
    walk(made([first, stored, third]))
    refused(
        [first, replace(stored, instructions=(*stored.instructions, stored.instructions[-1])), third], "a second time"
    )
    over = replace(RIGHT, views={**RIGHT.views, "output": maps("x", 3)}, bases={**RIGHT.bases, "output": 400})
    over = replace(over, views={**over.views, "weights": filters("w5", POINT, 3, 3)})
    refused([over.section(ALL, FROM_DRAM, True), first, second, third], "is computed a second time")


def test_an_element_is_computed_once() -> None:
    sections = strips()
    refused(
        [*sections[:4], LEFT.section(BOTTOM, FROM_DRAM, False, sections[3].kept), *sections[4:]],
        "computed a second time",
    )
    refused(
        [*sections[:5], LAST.section(range(3, ROWS - 1), ("weights",), True)], r"\(0, 5, 0, 0, 0\) .* never computed"
    )


def test_sections_of_one_name_are_one_layer() -> None:
    sections = strips()
    sections[3] = replace(sections[3], kernel=replace(SQUARE, activation=Activation("Relu")))
    refused(sections, "'left': sections of one name need equal kernels and views")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ((Kept("maps", 1, ((0, 1),)),), "unit 1 of memory 'maps', which has 1"),
        ((Kept("maps", 0, ((0, 40000),)),), "words 0..39999 of memory 'maps' are kept: expected .* below 32768"),
        ((Kept("maps", 0, ((0, 120),)), Kept("maps", 0, ((100, 130),))), "expected words from 120 on"),
        ((Kept("cache", 0, ((0, 1),)),), "keeps words of 'cache', which is no memory"),
    ],
)
def test_words_that_cannot_be_kept(kept: tuple[Kept, ...], words: str) -> None:
    first, *rest = whole()
    refused([replace(first, kept=kept), *rest], words)


def test_sums_are_their_sections_alone() -> None:
    section = LEFT.section(ALL, FROM_DRAM, False)
    right, bank = made(whole()), banks(TOY)["maps"]
    tags, tile = (
        Tags(TOY, right.tensors),
        Piece((0,), 0, dense((1, 1, 2, 1, 3)), (span(0, 1), span(0, 1), span(0, 2), span(0, 1), span(0, 3))),
    )
    tags.begin(frame(TOY, section))
    tags.write("tile", bank, [tile])
    tags.read("tile", bank, [tile])
    tags.end([Kept("maps", 0, ((0, 6),))])
    tags.begin(frame(TOY, section))
    with pytest.raises(DisagreementFault, match="holds what only a section before could read, expected tile"):
        tags.read("tile", bank, [tile])


def laws(timing: Timing) -> None:
    """What holds of every timeline, whatever stays."""
    assert list(timing.ends) == sorted(timing.ends)
    for job, (start, end) in zip(timing.jobs, timing.spans, strict=True):
        assert all(timing.spans[other][1] <= start for other in job.after)
        assert end <= timing.ends[job.section]
        assert job.behind < 0 or start >= timing.ends[job.behind]
    for time in timing.times:
        assert time.shares.total == pytest.approx(time.cycles)
        assert min(time.shares.first_load, time.shares.dram, time.shares.on_chip, time.shares.last_store) >= 0
    assert sum(time.cycles for time in timing.times) == pytest.approx(timing.cycles)
    # On this machine, a valid operation takes a multiplier for a cycle.
    assert sum(time.shares.computing for time in timing.times) <= timing.cycles
    for steps in timing.occupancy.values():
        assert not steps.values or (min(steps.values) >= 0 and steps.values[-1] == 0)


@pytest.mark.parametrize("sections", [whole, strips])
def test_sections_go_on_where_words_stay(sections: Callable[[], list[Section]]) -> None:
    timing = timeline(made(sections()))
    laws(timing)
    assert timing.sections == tuple(section.name for section in sections())
    assert set(timing.behind) == {-1}
    # The second section's loads need words that nobody uses; they start while the first one computes or before.
    loads = [n for n, job in enumerate(timing.jobs) if job.section == 1 and job.name == "load weights"]
    computed = [n for n, job in enumerate(timing.jobs) if job.section == 0 and job.computes]
    assert timing.spans[loads[0]][0] < timing.spans[computed[-1]][1]


def through_dram(kept: tuple[Kept, ...]) -> Program:
    """The strips with everything loaded and stored; what they keep, nobody needs."""
    parts = [(LEFT, TOP), (RIGHT, TOP), (LAST, range(3)), (LEFT, BOTTOM), (RIGHT, BOTTOM), (LAST, range(3, ROWS))]
    return made([layer.section(rows, FROM_DRAM, True, kept) for layer, rows in parts])


def test_without_barriers_nothing_is_slower() -> None:
    apart, joined = (timeline(through_dram(kept)) for kept in ((), (Kept("maps", 0, ((30000, 30001),)),)))
    laws(apart)
    laws(joined)
    assert apart.behind == (-1, 0, 1, 2, 3, 4)
    assert joined.cycles < apart.cycles
    walk(through_dram((Kept("maps", 0, ((30000, 30001),)),)))


def test_a_load_waits_for_what_stores_it() -> None:
    timing = timeline(through_dram((Kept("maps", 0, ((30000, 30001),)),)))
    for section, stores in ((2, {0, 1}), (5, {0, 1, 3, 4})):
        (load,) = [job for job in timing.jobs if job.section == section and job.name == "load input"]
        assert {timing.jobs[n].section for n in load.after if timing.jobs[n].name == "store output"} == stores


@settings(max_examples=40)
@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from((0.01, 0.1, 1.0)),
    st.sampled_from((1.01, 1.5, 2.0, 4.0)),
    st.booleans(),
)
def test_more_bandwidth_is_never_slower(keeps: list[bool], slow: float, more: float, ahead: bool) -> None:
    right = through_dram(())
    sections = [
        replace(s, kept=(Kept("maps", 0, ((30000, 30001),)),) if keep else ())
        for s, keep in zip(right.sections, keeps, strict=True)
    ]

    def cycles(speed: float) -> float:
        dram = replace(TOY.dram, bytes_per_second=TOY.dram.bytes_per_second * speed)
        timing = timeline(replace(right, machine=replace(TOY, dram=dram), sections=tuple(sections)), ahead)
        if not ahead:
            laws(timing)
        return timing.cycles

    assert cycles(slow * more) <= cycles(slow) * (1 + 1e-9)


def test_words_that_stay_take_room_until_they_are_read() -> None:
    """The left layer's part waits for the last layer, while the right one computes elsewhere."""
    timing = timeline(made(whole()))
    (left, right, last) = (n for n, job in enumerate(timing.jobs) if job.computes)
    steps = timing.occupancy["maps"]
    held = [
        v for t, v in zip(steps.times, steps.values, strict=True) if timing.spans[left][0] <= t < timing.spans[last][1]
    ]
    assert timing.spans[left][1] <= timing.spans[right][0]
    assert min(held) >= 2 * prod(LEFT.views["output"].shape)
    during = [
        v for t, v in zip(steps.times, steps.values, strict=True) if timing.spans[right][1] <= t < timing.spans[last][1]
    ]
    assert min(during, default=2 * BOTH) >= 2 * BOTH


def test_uses_that_are_forgotten_are_waited_for_all_the_same() -> None:
    """Against a dictionary of words: whoever uses a word waits, if only by way of others, for whom it has to."""
    rng = np.random.default_rng(0)
    hazards, all_before = Hazards(), list[set[int]]()
    writer, readers = dict[int, int](), dict[int, set[int]]()
    for job in range(3000):
        first, count = int(rng.integers(0, 60)), int(rng.integers(1, 40))
        words = range(first, min(64, first + count))
        held = hazards.held("maps", (Piece((0,), words.start, (1,), (span(0, len(words)),)),), 1)
        wanted = {writer[word] for word in words if word in writer}
        if write := bool(rng.integers(0, 2)):
            wanted |= {reader for word in words for reader in readers.get(word, ())}
            after = hazards.write(job, held)
        else:
            after = hazards.read(job, held, job)
        before = after.union(*(all_before[other] for other in after))
        assert wanted <= before
        # What happened long ago is before everything.
        all_before.append({other for other in before if other > job - 400} | set(range(max(0, job - 400))))
        for word in words:
            if write:
                writer[word], readers[word] = job, set()
            else:
                readers.setdefault(word, set()).add(job)
        if job % 50 == 0:
            hazards.tidy()
