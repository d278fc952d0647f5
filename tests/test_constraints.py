"""Constraints: the file's form, what it means for each layer, its faults, and what it does to the search."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc import constraints
from dnnc.enumerate import best
from dnnc.layer import Shape
from dnnc.schedule import Pin, Schedule
from dnnc.space import Limits, Space
from dnnc_runtime import machine as targets
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Window
from strategies import arrays, machines

SQUARE = Window(13, 13, 3, pad=1, pad_after=1)
CONV = Shape("array", 1, 1, 384, 192, SQUARE, SQUARE)
POOL = Shape("vector", 1, 1, 384, 1, SQUARE, SQUARE)
SNOWFLAKE = targets.load("snowflake")


def limits(text: str, name: str = "conv3", shape: Shape = CONV, machine: Machine = SNOWFLAKE) -> Limits:
    return constraints.loads(dedent(text), "c.toml").for_layer(name, machine, shape)


# -- what it means ----------------------------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_limited() -> None:
    rules = constraints.loads("", "c.toml")
    assert rules.for_layer("conv3", SNOWFLAKE, CONV) == Limits()
    assert rules.describe("conv3") == ""
    assert rules.allows_fusion("conv3", "max_pool")


def test_the_form_that_the_module_documents() -> None:
    form = (constraints.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    rules = constraints.loads(dedent(form), "c.toml")
    rules.check(["conv3"], SNOWFLAKE)
    assert rules.for_layer("conv3", SNOWFLAKE, CONV) == Limits(
        modes=("cooperative",),
        style="footprint",
        dataflow="weight-stationary",
        order=("y", "k"),
        counts=(("y", 3),),
        sizes=(("k", 64),),
        keep=True,
        buffers=(1, None, None),
        pin=Pin("weights", "y", "k", 2),
    )
    assert rules.for_layer("fc6", SNOWFLAKE, CONV) == Limits(style="footprint", keep=True)
    assert not rules.allows_fusion("conv3", "max_pool")
    assert rules.allows_fusion("conv3", "residual")
    assert rules.allows_fusion("fc6", "max_pool")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mode = ["combined", "cooperative"]', Limits(modes=("cooperative", "combined"))),
        ('halo = { tiles = "reload", units = "move" }', Limits(keep=False, move=True)),
        ('halo = { units = "reload" }', Limits(move=False)),
        ("buffers = { weights = 2, output = 1 }", Limits(buffers=(None, 2, 1))),
        ("pin = false", Limits(pin=False)),
        ('pin = { operand = "input", loop = "k", dim = "y" }', Limits(pin=Pin("input", "k", "y", 0))),
        ('cuts = "uniform"', Limits(style="uniform")),
        ("order = []", Limits(order=())),
    ],
)
def test_settings(text: str, expected: Limits) -> None:
    assert limits(f"[all]\n{text}") == expected


def test_later_tables_override_setting_by_setting() -> None:
    text = """
        [all]
        mode = "combined"
        tiles = { y = 3, k = 2 }
        [[layer]]
        match = "conv*"
        tiles = { k = 4 }
        [[layer]]
        match = ["conv3", "fc?"]
        mode = "cooperative"
        sizes = { y = 5 }
    """
    assert limits(text, "pool1") == Limits(modes=("combined",), counts=(("y", 3), ("k", 2)))
    assert limits(text, "conv2") == Limits(modes=("combined",), counts=(("y", 3), ("k", 4)))
    # A size takes the place of a number of tiles.
    assert limits(text, "conv3") == Limits(modes=("cooperative",), counts=(("k", 4),), sizes=(("y", 5),))


def test_sizes_end_at_the_axis() -> None:
    assert limits("[all]\nsizes = { y = 99, k = 64, g = 7 }").sizes == (("y", 13), ("k", 64), ("g", 1))


def test_what_speaks_of_weights_says_nothing_of_layers_without() -> None:
    text = '[all]\npin = { operand = "weights", loop = "y", dim = "k" }\nbuffers = { input = 2, weights = 2 }'
    assert limits(text, shape=POOL) == Limits(buffers=(2, None, None))


def test_names_with_brackets_are_names_before_they_are_patterns() -> None:
    assert not fnmatchcase("conv[1]", "conv[1]")
    assert limits('[[layer]]\nmatch = "conv[1]"\norder = ["k"]', "conv[1]").order == ("k",)


def test_a_description_names_settings_and_file() -> None:
    text = '[all]\nmode = "combined"\n[[layer]]\nmatch = "conv3"\ntiles = { y = 3 }'
    rules = constraints.loads(text, "c.toml")
    assert rules.describe("conv3") == 'mode = ["combined"], tiles.y = 3 (constraints of c.toml)'


def test_equal_texts_are_equal_constraints(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text := '[all]\nmode = "combined"\n', "utf-8")
    loaded = constraints.load(path)
    assert loaded == constraints.loads(text, "elsewhere.toml")
    assert (loaded.text, loaded.source) == (text, str(path))
    assert loaded.digest != constraints.loads(text + "\n", str(path)).digest


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x =", "c.toml: not TOML"),
        ("[al]", "c.toml:1: al: unknown key; did you mean 'all'? allowed: all, layer"),
        ("layer = 3", "c.toml:1: layer: found 3, expected one or more tables [[layer]]"),
        ('[[layer]]\nmode = "combined"', "c.toml:1: layer[0]: missing key 'match'"),
        ("[[layer]]\nmatch = []", "c.toml:2: layer[0].match: found [], expected a string or an array of strings"),
        ("[all]\nmodes = 1", "c.toml:2: all.modes: unknown key; did you mean 'mode'?"),
        ("[all]\nmode = 3", "c.toml:2: all.mode: found 3, expected a string or an array of strings"),
        ("[all]\nmode = [3]", "c.toml:2: all.mode: found 3, expected an array of strings"),
        ('[all]\ndataflow = "weights"', "all.dataflow: found 'weights'; did you mean 'weight-stationary'?"),
        ('[all]\norder = ["y", "z"]', "c.toml:2: all.order: found 'z'; allowed: y, x, k, c, g"),
        ('[all]\norder = ["y", "y"]', "all.order: found ['y', 'y'], expected every loop at most once"),
        ('[all]\ncuts = "even"', "all.cuts: found 'even'; allowed: footprint, uniform"),
        ("[all]\ntiles = { y = 0 }", "all.tiles.y: found 0, expected at least 1"),
        ("[all]\ntiles = { y = true }", "all.tiles.y: found True, expected an integer"),
        ("[all]\nsizes = { n = 1 }", "all.sizes.n: unknown key; allowed: y, x, k, c, g"),
        (
            "[all]\ntiles = { y = 2 }\nsizes = { y = 2 }",
            "c.toml:3: all.sizes.y: y has a number of tiles and a tile size",
        ),
        ('[all]\nhalo = { tiles = "move" }', "all.halo.tiles: found 'move'; allowed: keep, reload"),
        ("[all]\nbuffers = { input = 3 }", "all.buffers.input: found 3, expected 1 to 2"),
        ("[all]\npin = true", "all.pin: found True, expected false or a table { operand, loop, dim, tiles }"),
        ('[all]\npin = { operand = "input" }', "all.pin: missing key 'loop'"),
        ('[all]\npin = { operand = "input", loop = "y", dim = "c" }', "all.pin.loop: found 'y'; allowed: k"),
        ('[all]\npin = { operand = "weights", loop = "y", dim = "x" }', "all.pin.dim: found 'x'; allowed: k, c, g"),
        ("[all]\nfuse = { max_pool = 1 }", "all.fuse.max_pool: found 1, expected true or false"),
        ("[all]\nfuse = { bias = false }", "all.fuse.bias: unknown key; allowed: activation, residual, max_pool"),
    ],
)
def test_a_wrong_file_is_refused_where_it_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageFault) as fault:
        constraints.loads(text, "c.toml")
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (
            '[[layer]]\nmatch = ["conv1", "cnv3"]',
            "snowflake",
            "c.toml:2: layer[0].match: 'cnv3' names no layer; nearest layer names: 'conv3', 'conv1', 'fc6'",
        ),
        ('[all]\nmode = "combind"', "snowflake", "machine 'snowflake' has no mode 'combind'; did you mean 'combined'?"),
        ('[all]\nhalo = { units = "move" }', "two-buffer", "all.halo.units: found 'move', but the units of machine"),
    ],
)
def test_constraints_are_held_against_the_model_and_the_machine(text: str, target: str, message: str) -> None:
    rules = constraints.loads(text, "c.toml")
    with pytest.raises(UsageFault) as fault:
        rules.check(["conv1", "conv3", "fc6"], targets.load(target))
    assert message in str(fault.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    for name, reason in (("absent.toml", "No such file"), (".", "Is a directory"), ("latin.toml", "not UTF-8")):
        with pytest.raises(UsageFault, match=reason):
            constraints.load(tmp_path / name)


# -- what it does to the search ---------------------------------------------------------------------------------------


def written(s: Schedule) -> str:
    """A file that asks for a schedule, rows and columns of which are cut in one style."""
    pin = "false"
    if s.pin:
        pin = f'{{ operand = "{s.pin.operand}", loop = "{s.pin.loop}", dim = "{s.pin.dim}", tiles = {s.pin.tiles} }}'
    return f"""
        [all]
        mode = "{s.mode}"
        order = {list(s.order)}
        cuts = "{s.y.style}"
        tiles = {{ y = {s.y.steps}, x = {s.x.steps} }}
        sizes = {{ k = {s.k}, c = {s.c}, g = {s.g} }}
        halo = {{ tiles = "{"keep" if s.keep else "reload"}", units = "{"move" if s.move else "reload"}" }}
        buffers = {{ input = {s.buffers[0]}, weights = {s.buffers[1]}, output = {s.buffers[2]} }}
        pin = {pin}
    """


@given(st.data())
@settings(max_examples=20)
def test_the_best_schedule_is_replayed_from_a_file(data: st.DataObject) -> None:
    shape, machine = data.draw(arrays(largest=6, planes=5)).shape, data.draw(machines(sizes=(64, 256, 4096)))
    found = best(Space(shape, machine))
    if found is None:
        return
    asked = limits(written(found.schedule), shape=shape, machine=machine)
    again = best(Space(shape, machine, asked))
    assert again is not None
    assert (again.bytes, again.cycles) == (found.bytes, found.cycles)
    assert again.schedule == found.schedule


def test_moves_may_be_asked_for() -> None:
    found = best(Space(CONV, SNOWFLAKE, limits('[all]\nmode = "independent"\nhalo = { units = "move" }')))
    assert found is not None
    assert found.schedule.move


@pytest.mark.parametrize("mode", ["combined", "independent", "cooperative"])
@pytest.mark.parametrize("rows", [12, 13, 1000])
def test_a_size_of_more_than_a_units_block_is_the_block(mode: str, rows: int) -> None:
    """12 rows are blocks of 3 where rows are spread over four units; what is more means whole blocks."""
    square = Window(12, 12, 3, pad=1, pad_after=1)
    shape = Shape("array", 1, 1, 16, 16, square, square)
    found = best(Space(shape, SNOWFLAKE, limits(f'[all]\nmode = "{mode}"\nsizes = {{ y = {rows}, x = {rows} }}')))
    assert found is not None
    assert (found.schedule.y.largest, found.schedule.x.largest) == (12 if mode == "cooperative" else 3, 12)
