"""Machines: what the shipped ones hold, what a file may say, and how a wrong one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dnnc
from dnnc_runtime import machine
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import FUSIBLE, ROLES, Dram, Level, Machine, Memory, Mode
from zoo import NETWORKS

SNOWFLAKE = (Path(machine.__file__).parent / "targets" / "snowflake.toml").read_text("utf-8")


def test_shipped_machines_are_listed_and_load() -> None:
    assert machine.shipped() == ("snowflake", "snowflake-1024", "snowflake-2048", "snowflake-3072", "two-buffer")
    for name in machine.shipped():
        assert machine.load(name).name == name


def test_snowflake_is_the_published_machine() -> None:
    snowflake = machine.load("snowflake")
    maps, weights = snowflake.memory_of("input"), snowflake.memory_of("weights")
    assert snowflake.macs_per_cycle == 256
    assert 2 * snowflake.macs_per_cycle * snowflake.clock_hz == 128e9  # its published peak, operations per second
    assert snowflake.instances(maps) * maps.bytes == 256 * 1024
    assert snowflake.instances(weights) * weights.bytes == 512 * 1024
    assert (snowflake.word_bytes, snowflake.accumulator_bytes, snowflake.fraction_bits) == (2, 4, 8)
    assert {mode.name: "".join(mode.spread) for mode in snowflake.modes} == {
        "cooperative": "kkc",
        "independent": "ykk",
        "combined": "ykc",
    }
    assert snowflake.fuses == set(FUSIBLE)
    assert snowflake.units_can_send
    assert snowflake.dram.longest_transfer_bytes == 512 * snowflake.dram.burst_bytes


@pytest.mark.parametrize(
    ("macs", "gops", "gigabytes"),
    [
        (1024, 383, 18),
        pytest.param(2048, 766, 36, marks=pytest.mark.slow),
        pytest.param(3072, 1148, 54, marks=pytest.mark.slow),
    ],
)
def test_larger_snowflakes_run_alexnet(macs: int, gops: int, gigabytes: int, results: Path) -> None:
    """Their four published figures; all else is that of the smallest, once for each cluster of 256 MACs."""
    large, small = machine.load(f"snowflake-{macs}"), machine.load("snowflake")
    clusters = macs // small.macs_per_cycle
    assert (large.macs_per_cycle, large.clock_hz, large.dram.bytes_per_second) == (macs, 187e6, gigabytes * 1e9)
    assert 2 * macs * large.clock_hz // 1e9 in (gops, gops - 1)  # 382.976, 765.952, 1,148.928: rounded up or down
    shared = replace(
        small,
        clock_hz=large.clock_hz,
        levels=(replace(small.levels[0], count=clusters * small.levels[0].count), *small.levels[1:]),
        pool_comparisons_per_cycle=clusters * small.pool_comparisons_per_cycle,
        dram=replace(small.dram, bytes_per_second=large.dram.bytes_per_second),
        units_can_send=False,
    )
    assert large.digest == shared.digest
    model = NETWORKS["alexnet"]()
    compiled = dnnc.compile(model, large, plan="layerwise", cache=results)
    assert compiled.plan.status == "optimal"
    assert sum(compiled.counted.payload.values()) == compiled.plan.totals.dram_bytes
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    assert max(layer.error for layer in dnnc.verify(compiled, {"input": image}).layers) < 1e-4


def test_two_buffer_is_one_unit_that_pools_separately() -> None:
    plain = machine.load("two-buffer")
    assert plain.macs_per_cycle == 1
    assert {m.name: m.bytes for m in plain.memories} == {"maps": 512 * 1024, "weights": 256 * 1024}
    assert set(FUSIBLE) - plain.fuses == {"max_pool", "average_pool"}


@pytest.mark.parametrize("text", [machine.load(name).text for name in machine.shipped()])
def test_text_reads_back(text: str) -> None:
    assert machine.loads(text, "again").text == text


_NAMES = st.text("ab -_.\"'\\[]{}=#é😀", min_size=1, max_size=6)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Legal machines of one to three levels: memories at the outer ones, c spread only inside them."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    inner = [draw(st.sampled_from(("k", "g", "c"))) for _ in names[1:]]
    levels = tuple(
        Level(name, draw(st.integers(1, 16)), tuple(dict.fromkeys(("k", spread))))
        for name, spread in zip(names, ("y", *inner), strict=True)
    )
    depth = next((i for i, level in enumerate(levels) if "c" in level.spreads), len(levels))
    word = draw(st.sampled_from(machine.WORD_BITS))
    memories = tuple(
        Memory(f"m{i}", draw(st.integers(0, depth - 1)), draw(st.integers(1, 4096)) * word // 8)
        for i in range(draw(st.integers(1, 3)))
    )
    holders = st.sampled_from([memory.name for memory in memories])
    roles = {role: draw(holders) for role in ROLES}
    rates = st.floats(1e-3, 1e12)
    return Machine(
        name=draw(_NAMES),
        description=draw(_NAMES),
        clock_hz=draw(rates),
        word_bits=word,
        fraction_bits=draw(st.integers(0, word - 1)),
        accumulator_bits=draw(st.sampled_from([bits for bits in machine.ACCUMULATOR_BITS if bits >= word])),
        channel_granularity=draw(st.integers(1, 64)),
        levels=levels,
        memories=memories,
        roles=tuple((roles | {"partial_sums": roles["output"]}).items()),
        modes=tuple(Mode(f"mode {i}", spread) for i, spread in enumerate((("k",) * len(names), ("y", *inner)))),
        dram=Dram(draw(rates), 64, 64 * draw(st.integers(1, 512)), "NHWC"),
        fuses=draw(st.frozensets(st.sampled_from(FUSIBLE))),
        units_can_send=draw(st.booleans()),
        pool_comparisons_per_cycle=draw(st.integers(1, 64)),
        words_sent_per_cycle=draw(st.integers(1, 64)),
    )


@given(machines())
def test_every_machine_reads_back_from_its_text(drawn: Machine) -> None:
    again = machine.loads(drawn.text, "drawn")
    assert again == drawn
    assert again.digest == drawn.digest


def test_digest_is_of_content_alone() -> None:
    snowflake = machine.load("snowflake")
    bare = "\n".join(line.split("#")[0].strip() for line in SNOWFLAKE.splitlines())
    renamed = bare.replace('name = "snowflake"', 'name = "ours"')
    assert machine.loads(renamed, "ours.toml").digest == snowflake.digest
    assert snowflake.with_memory("maps", 65536).digest == snowflake.digest
    assert snowflake.with_memory("maps", 65538).digest != snowflake.digest
    assert replace(snowflake, units_can_send=False).digest != snowflake.digest


def test_with_memory_changes_that_size_alone() -> None:
    snowflake = machine.load("snowflake")
    small = snowflake.with_memory("weights", 1024)
    assert small.memory("weights").bytes == 1024
    assert small.with_memory("weights", 32768) == snowflake
    with pytest.raises(UsageFault, match="no memory 'weight'; did you mean 'weights'"):
        snowflake.with_memory("weight", 1024)
    with pytest.raises(UsageFault, match="found 1023, expected a multiple of the 2 bytes of a word"):
        snowflake.with_memory("weights", 1023)


def test_a_file_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SNOWFLAKE)
    assert machine.load(path) == machine.load(str(path)) == machine.load("snowflake")


def test_targets_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"no target 'snowflak': did you mean 'snowflake'.*snowflake-3072, two-buffer"):
        machine.load("snowflak")
    names = "snowflake, snowflake-1024, snowflake-2048, snowflake-3072, two-buffer"
    with pytest.raises(UsageFault, match=f"no target 'zzz': allowed: {names}, or the path"):
        machine.load("zzz")
    with pytest.raises(UsageFault, match=r"absent\.toml: cannot read the target file: No such file"):
        machine.load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageFault, match="not UTF-8"):
        machine.load(tmp_path / "binary.toml")


COOPERATIVE = 'spread = { cu = "k", vmac = "k", lane = "c" }'

WRONG = [
    # what is replaced, by what, what the fault says
    ("bytes = 65536", "byte = 65536", "memories[0].byte: unknown key; did you mean 'bytes'? allowed: name, level"),
    ("[dram]", "[dran]", "dran: unknown key; did you mean 'dram'?"),
    ("bytes = 65536", "", "memories[0]: missing key 'bytes'"),
    ('output = "maps"', "", "roles: missing key 'output'"),
    ("[clock]\nhz = 250e6", "clock = 3", "clock: found 3, expected a table [clock]"),
    ("hz = 250e6", 'hz = "fast"', "clock.hz: found 'fast', expected a number"),
    ("hz = 250e6", "hz = nan", "clock.hz: found nan, expected more than 0"),
    ("hz = 250e6", "hz = inf", "clock.hz: found inf"),
    ("count = 4", "count = 4.0", "levels[0].count: found 4.0, expected an integer"),
    ("count = 4", "count = 0", "levels[0].count: found 0, expected more than 0"),
    ("bytes = 65536", "bytes = true", "memories[0].bytes: found True, expected an integer"),
    ("bytes = 65536", "bytes = -2", "memories[0].bytes: found -2, expected more than 0"),
    ("bytes = 32768", "bytes = 32767", "memories[1].bytes: found 32767, expected a multiple of the 2 bytes"),
    ('level = "cu"', 'level = "cpu"', "memories[0].level: no level 'cpu'; did you mean 'cu'? allowed: cu, vmac, lane"),
    ('name = "weights"', 'name = "maps"', "memories[1].name: found 'maps' twice"),
    ('name = "combined"', 'name = "independent"', "modes[2].name: found 'independent' twice"),
    ('weights = "weights"', 'weights = "wights"', "roles.weights: no memory 'wights'; did you mean 'weights'?"),
    ('output = "maps"', 'output = "weights"', "roles.partial_sums: found 'maps', expected 'weights'"),
    ('spreads = ["k"]', 'spreads = ["k", "z"]', "levels[1].spreads: found 'z'; allowed: k, y, c, g"),
    ('spreads = ["k"]', 'spreads = ["k", 1]', "levels[1].spreads: found 1, expected an array of strings"),
    (COOPERATIVE, 'spread = { cu = "k", vmac = "k" }', "modes[0].spread: missing key 'lane'"),
    (COOPERATIVE, COOPERATIVE.replace("lane", "line"), "modes[0].spread.line: unknown key; did you mean 'lane'?"),
    (COOPERATIVE, COOPERATIVE.replace('vmac = "k"', 'vmac = "c"'), "level 'vmac' may not spread 'c'; allowed: k"),
    ("word_bits = 16", "word_bits = 32", "numbers.word_bits: found 32; allowed: 8, 16"),
    ("fraction_bits = 8", "fraction_bits = 16", "numbers.fraction_bits: found 16, expected 0 to 15"),
    ("accumulator_bits = 32", "accumulator_bits = 24", "numbers.accumulator_bits: found 24"),
    ("channel_granularity = 16", "channel_granularity = 0", "array.channel_granularity: found 0"),
    ('"max_pool"', '"maxpool"', "array.fuses: found 'maxpool'; did you mean 'max_pool'?"),
    ("units_can_send = true", "units_can_send = 1", "array.units_can_send: found 1, expected true or false"),
    ('layout = "NHWC"', 'layout = "NCHW"', "dram.layout: found 'NCHW'; did you mean 'NHWC'?"),
    (
        "burst_bytes = 64",
        "burst_bytes = 65536",
        "longest_transfer_bytes: found 32768, expected at least one burst",
    ),
]


@pytest.mark.parametrize(("old", "new", "says"), WRONG, ids=[says.split(":")[0] for *_, says in WRONG])
def test_a_wrong_file_is_refused_with_line_and_key(old: str, new: str, says: str) -> None:
    assert old in SNOWFLAKE
    with pytest.raises(UsageFault) as fault:
        machine.loads(SNOWFLAKE.replace(old, new, 1), "mine.toml")
    assert says in str(fault.value)
    place = str(fault.value).split(": ")[0]
    assert place.startswith("mine.toml:")
    assert int(place.removeprefix("mine.toml:")) > 0


def test_the_line_is_the_key_s() -> None:
    lines = SNOWFLAKE.splitlines()
    wrong = SNOWFLAKE.replace("bytes = 32768", "bytes = 32767", 1)
    line = lines.index("bytes = 32768") + 1
    with pytest.raises(UsageFault, match=rf"^mine\.toml:{line}: memories\[1\]\.bytes"):
        machine.loads(wrong, "mine.toml")


def test_what_is_not_toml_names_the_line() -> None:
    with pytest.raises(UsageFault, match=r"mine\.toml: not TOML: .*line 2"):
        machine.loads('name = "x"\n[clock\nhz = 1', "mine.toml")


def test_lists_must_not_be_empty() -> None:
    text = SNOWFLAKE.replace("[[modes]]", "[[mode]]")
    with pytest.raises(UsageFault, match="unknown key; did you mean 'modes'"):
        machine.loads(text, "mine.toml")
    with pytest.raises(UsageFault, match="modes: found none, expected at least one"):
        replace(machine.load("snowflake"), modes=())


def _with_modes(levels: tuple[Level, ...], memory_level: int, spread: tuple[str, ...]) -> Machine:
    """Snowflake with another array, all roles in one memory."""
    return replace(
        machine.load("snowflake"),
        levels=levels,
        memories=(Memory("all", memory_level, 1024),),
        roles=tuple((role, "all") for role in ROLES),
        modes=(Mode("only", spread),),
    )


def test_rows_are_spread_by_the_outermost_level_alone() -> None:
    levels = (Level("outer", 2, ("k", "y")), Level("inner", 2, ("k", "y")))
    assert _with_modes(levels, 0, ("y", "k")).modes[0].spread == ("y", "k")
    for spread in (("k", "y"), ("y", "y")):
        with pytest.raises(UsageFault, match="found 'y' at level 'inner', allowed only at the outermost, 'outer'"):
            _with_modes(levels, 0, spread)


def test_channels_are_spread_inside_every_memory() -> None:
    levels = (Level("outer", 2, ("k", "c")), Level("inner", 2, ("k", "c")))
    assert _with_modes(levels, 0, ("k", "c")).modes[0].spread == ("k", "c")
    for memory_level, spread in ((0, ("c", "k")), (1, ("k", "c"))):
        with pytest.raises(UsageFault, match="partial sums of different units is not modelled"):
            _with_modes(levels, memory_level, spread)


def test_one_unit_may_spread_anything() -> None:
    assert _with_modes((Level("unit", 1, ("c",)),), 0, ("c",)).macs_per_cycle == 1
