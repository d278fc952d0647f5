from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import dnnc
from dnnc import onnx_import, report
from dnnc.axis import footprint_cut
from dnnc.cli.program import app
from dnnc.emit import emit, emit_layer
from dnnc.front import Front
from dnnc.inspect_text import (
    Inspection,
    StripInspection,
    layer_inspection,
    layer_text,
    program_lines,
    strips_inspection,
    strips_text,
)
from dnnc.layer import HostLayer, Layer, Lowered
from dnnc.lower import lower
from dnnc.nest_text import Transfer, nest_lines, transfers
from dnnc.network_text import kept_grid, network_lines, sections, stored_grid, together_data
from dnnc.performance import floor_cycles, layer_performance, layer_times, performances, total
from dnnc.plan import LayerPlan, Plan
from dnnc.planning import Planner, layer_plan
from dnnc.points import Found
from dnnc.residency import Residency
from dnnc.schedule import Pin, Schedule
from dnnc.search import Objective, Proof, Result, RunnerUp
from dnnc.segments import Alone
from dnnc.simplify import simplify
from dnnc.summary import compiled_data, groups, host_data, layerwise_cycles, machine_data, plan_data
from dnnc_runtime.machine import Machine, load
from dnnc_runtime.program import Program
from dnnc_runtime.timeline import timeline
from graphs import Builder
from model_builder import ModelBuilder
from zoo import NETWORKS

SNOWFLAKE = load("snowflake")
UNPROVEN = Proof("feasible", "none", "bytes", 4_196_000, 1_521_792)


def published() -> Schedule:
    """Three row tiles of at most six input rows, maps outside kernels, nothing of a halo kept."""
    shape = convolution()[1].shape
    y, x = footprint_cut(shape.y, 1, 6), footprint_cut(shape.x, 1, 13)
    return Schedule("cooperative", y, x, 64, 192, 1, ("y", "k"), keep=False, buffers=(1, 2, 1))


@cache
def convolution() -> tuple[Lowered, Layer]:
    """13x13, 192 to 384 channels, 3x3, padding 1."""
    lowered = lower(simplify(onnx_import.load(NETWORKS["conv13x13"]())), SNOWFLAKE)
    layer = lowered.layers[0]
    assert isinstance(layer, Layer)
    return lowered, layer


def planned(schedule: Schedule, proof: Proof = UNPROVEN) -> tuple[LayerPlan, tuple[Transfer, ...], Program]:
    lowered, layer = convolution()
    plan = layer_plan(layer, SNOWFLAKE, Result(schedule, proof))
    program = emit(lowered, {layer.name: schedule}, SNOWFLAKE)
    return plan, transfers(plan, program.sections[0], SNOWFLAKE), program


def inspection(plan: LayerPlan, moved: tuple[Transfer, ...], runners: list[RunnerUp]) -> Inspection:
    """A layer as it is inspected, with a front of its own schedule alone."""
    program = emit_layer(plan.layer, plan.schedule, SNOWFLAKE)
    found = Found(plan.schedule, plan.figures.dram_bytes, plan.figures.cycles, 18)
    time = layer_performance(plan, SNOWFLAKE, timeline(program).times)
    return Inspection(plan, SNOWFLAKE, moved, time, runners, Front((found,), found.cycles))


@cache
def network() -> tuple[Plan, Program]:
    """A network with residuals, a fused pool, groups, a host node and a linear layer, under its best schedules."""
    net = ModelBuilder("net", 0)
    x = net.max_pool(net.relu(net.conv(net.input(2, 3, 16, 16), "first", 32, 3, pad=1), "relu"), "pool", 2, stride=2)
    y = net.conv(net.lrn(x, "norm", 5, 1e-4, 0.75), "<second>", 32, 3, pad=1)
    x = net.conv(net.add(x, y, "add"), "depthwise", 32, 3, pad=1, groups=32)
    model = net.model(net.linear(net.flatten(net.global_average(x, "mean"), "flat"), "linear", 10))
    lowered = lower(simplify(onnx_import.load(model)), SNOWFLAKE)
    plan = Planner(SNOWFLAKE, Objective()).plan(lowered)
    return plan, emit(lowered, dict(plan.schedules), SNOWFLAKE)


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.000"), (1, "<0.001"), (499, "<0.001"), (500, "0.001"), (1_234_567_890, "1,234.568")]
)
def test_megabytes_are_millions(count: int, text: str) -> None:
    assert report.megabytes(count) == text


@pytest.mark.parametrize(("count", "text"), [(65536, "64 KiB"), (1 << 21, "2 MiB"), (1000, "1,000 B"), (0, "0 B")])
def test_capacities_are_powers_of_two(count: int, text: str) -> None:
    assert report.capacity(count) == text


# -- the loop nest ---------------------------------------------------------------------------------------------------


def test_the_loop_nest_of_the_published_schedule() -> None:
    """By hand: 6, 6 and 5 input rows of 13 x 192 words; 384 kernels of 3 x 3 x 192 words in tiles of 64, three times;
    64 output planes of 5, 4 and 4 rows of 13 words for each."""
    plan, moved, _ = planned(published())
    assert list(nest_lines(plan, moved)) == [
        "for y in 3 tiles: 5-4-4 rows",
        "  load input into maps: 3 x 24,960 to 29,952 B, 84,864 B in all (broadcast)",
        "  for k in 6 tiles of 64 planes",
        "    load weights into weights: 18 x 221,184 B = 3,981,312 B",
        "    multiply and accumulate 5 rows x 13 columns x 64 planes from 192 channels, 3x3 taps",
        "    store output from maps: 18 x 6,656 to 8,320 B, 129,792 B in all",
    ]


def test_a_kept_halo_is_named_and_not_loaded_again() -> None:
    _, moved, _ = planned(replace(published(), keep=True))
    assert str(moved[0]) == ("load input into maps: 3 x 14,976 to 29,952 B, 64,896 B in all (halo kept, broadcast)")


def test_a_pin_is_named() -> None:
    schedule = replace(published(), buffers=(1, 1, 1), k=64, pin=Pin("weights", "y", "k", 1))
    _, moved, _ = planned(schedule)
    weights = next(t for t in moved if t.role == "weights")
    # One tile of six is loaded once, five three times.
    assert (weights.times, weights.total) == (16, 221_184 + 5 * 3 * 221_184)
    assert weights.when == "1 of 6 k tiles stay while y runs"


def test_partial_sums_leave_and_return_inside_the_channel_loop() -> None:
    schedule = replace(published(), order=("c", "y"), k=384, c=16, buffers=(1, 1, 1))
    plan, moved, _ = planned(schedule)
    lines = list(nest_lines(plan, moved))
    assert lines[:2] == [
        "for c in 12 tiles of 16 channels",
        "  load weights into weights: 12 x 110,592 B = 1,327,104 B",
    ]
    # 13 x 13 x 384 sums of four bytes, in three row tiles, at all but one of twelve visits.
    sums = "33 x 79,872 to 99,840 B, 2,855,424 B in all"
    assert f"    load partial sums into maps: {sums} (but at the first c tile)" in lines
    assert f"    store partial sums from maps: {sums} (but at the last c tile)" in lines
    assert lines[-1].startswith("    store output from maps: 3 x ")
    assert lines[-1].endswith("(at the last c tile)")


def test_every_transfer_of_a_network_stands_at_one_of_its_loops_and_counts_what_was_predicted() -> None:
    plan, program = network()
    category = {"scale": "bias", "slope": "bias", "second": "other"}
    for layer in plan.on_array:
        moved = transfers(layer, next(s for s in program.sections if s.name == layer.name), SNOWFLAKE)
        counted = {role: [0, 0] for role in layer.traffic}
        for transfer in moved:
            assert transfer.loop in (None, *layer.schedule.order)
            assert transfer.times * transfer.least <= transfer.total <= transfer.times * transfer.most
            if transfer.verb != "move":
                counted[category.get(transfer.role, transfer.role)][transfer.verb == "store"] += transfer.total
        assert counted == {role: list(bytes_) for role, bytes_ in layer.traffic.items()}
        lines = "\n".join(nest_lines(layer, moved))
        assert all(str(transfer) in lines for transfer in moved)


# -- one layer -------------------------------------------------------------------------------------------------------


def test_a_layer_in_full() -> None:
    plan, moved, _ = planned(published())
    text = list(layer_text(inspection(plan, moved, [RunnerUp("weight-stationary", 1_521_792, 500_000)])))
    assert text[:8] == [
        "conv: Conv on snowflake",
        "  nodes     conv",
        "  extents   384 planes of 13x13 outputs from 192 channels",
        "  rows      13 -> 13, kernel 3, stride 1, padding 1+1",
        "  columns   13 -> 13, kernel 3, stride 1, padding 1+1",
        "  mode      cooperative (k over cu, k over vmac, c over lane)",
        "  dataflow  input-stationary, output-stationary",
        "  doubled   weights (the next tile is on its way while this one is in use)",
    ]
    # A CU holds six rows and its sixteen planes of an output tile; a vMAC twice four kernels of 3,456 bytes.
    memory = text.index("memory, the fullest instance of each")
    assert text[memory + 1 : memory + 6] == [
        "  maps                  32,032 B of 65,536 B (64 KiB), 48.9 %",
        "    input               29,952 B",
        "    output               2,080 B",
        "  weights               27,648 B of 32,768 B (32 KiB), 84.4 %",
        "    weights             27,648 B",
    ]
    factors = "2.7573 x compulsory (1,521,792 B), 2.7573 x lower bound (1,521,792 B)"
    assert f"  total              4,195,968 B: {factors}" in text
    assert (
        "runner-up: weight-stationary would move 1,521,792 B (0.3627 x as many) in 500,000 cycles "
        f"({500_000 / plan.figures.cycles:.4f} x)"
    ) in text
    # Under its constraints, nothing but the schedule itself.
    assert text[-1].startswith(f"      4,195,968 B {plan.figures.cycles:>13,} cycles")
    assert text[-1].endswith("(chosen)")
    assert max(map(len, text)) <= 120


def test_a_layer_as_data() -> None:
    plan, moved, _ = planned(published())
    data = json.loads(json.dumps(layer_inspection(inspection(plan, moved, [RunnerUp("weight-stationary", 1, 2)]))))
    assert data["runner_ups"] == [{"dataflow": "weight-stationary", "bytes": 1, "cycles": 2}]
    assert [(t["verb"], t["role"], t["loop"], t["times"]) for t in data["transfers"]] == [
        ("load", "input", "y", 3),
        ("load", "weights", "k", 18),
        ("store", "output", "k", 18),
    ]


def test_instructions_of_one_layer_and_of_all() -> None:
    _, program = network()
    lines = program_lines(program, "<second>")
    assert lines[0] == 'section "<second>"'
    assert sum(line.startswith("section ") for line in lines) == 1
    assert set(lines) < set(program_lines(program)) <= set(str(program).splitlines())


# -- tables ----------------------------------------------------------------------------------------------------------


def test_a_line_for_each_layer() -> None:
    plan, _, _ = planned(published())
    time = 1e3 * plan.figures.cycles / SNOWFLAKE.clock_hz
    lines = report.layers_grid(Plan(SNOWFLAKE, Objective(), (plan,))).lines()
    assert lines == (
        "layer  operator  output       c  kernel  mode         loops         DRAM MB  factor  proof     ms closed form",
        f"conv   Conv      384x13x13  192  3x3     cooperative  y:3x5 k:6x64    4.196  2.7573  gap 64 %  {time:>14.3f}",
    )


def test_tables_of_a_network() -> None:
    plan, _ = network()
    lines = report.layers_grid(plan).lines()
    assert len(lines) == 1 + len(plan.on_array)
    assert "Conv+Relu+max " in lines[1]
    assert any("3x3 g32" in line for line in lines)
    assert all(not line.endswith(" ") for line in lines)
    assert [line.split()[0] for line in report.traffic_grid(plan).lines()] == [
        "DRAM", "input", "weights", "bias", "residual", "output",
    ]  # fmt: skip
    assert report.host_grid(plan.on_host).lines()[1].startswith("norm")


def test_a_narrow_terminal_breaks_names_and_loops_only() -> None:
    plan, _ = network()
    long = tuple(replace(layer, layer=replace(layer.layer, name=layer.name * 8)) for layer in plan.on_array)
    console = Console(file=StringIO(), width=100, color_system=None)
    console.print(report.layers_grid(Plan(SNOWFLAKE, Objective(), long)).rich())
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    for layer in long:
        assert f"  {layer.figures.dram_bytes / 1e6:.3f}  " in text
        assert f"  {layer.schedule.mode}  " in text


def test_totals_tell_reads_from_writes_and_payload_from_bus() -> None:
    plan, program = network()
    t = plan.totals
    lines = report.totals_lines(plan, timeline(program))
    assert lines[0] == (
        f"DRAM       {t.dram_bytes / 1e6:.3f} MB = {t.dram_read_bytes / 1e6:.3f} MB read"
        f" + {t.dram_write_bytes / 1e6:.3f} MB written"
    )
    assert lines[2] == f"on bus     {t.bus_bytes / 1e6:.3f} MB in bursts of 64 B"
    assert lines[-1].startswith("host ")
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("proof", "word", "sentence"),
    [
        (
            Proof("optimal", "lower bound", "bytes", 1000, 1000),
            "bound",
            "optimal: 1,000 bytes meet a lower bound that holds for every schedule",
        ),
        (
            Proof("optimal", "cp-sat", "bytes", 1000, 1000, "ortools 9", 1, 0.125),
            "cp-sat",
            "optimal: CP-SAT proved that no schedule of the space takes fewer than 1,000 bytes"
            " (ortools 9, seed 1, 0.125 deterministic s)",
        ),
        (
            Proof("optimal", "enumeration", "cycles", 7, 7),
            "search",
            "optimal: every schedule that the objective allows was looked at, and none takes fewer than 7 cycles;"
            " among those near it the timeline decided",
        ),
        (
            Proof("feasible", "none", "bytes", 1000, 900),
            "gap 10 %",
            "not proven: 1,000 bytes found; no schedule takes fewer than 900, a gap of 10 %",
        ),
    ],
)
def test_proofs_in_words(proof: Proof, word: str, sentence: str) -> None:
    assert (report.proof_word(proof), report.proof_sentence(proof)) == (word, sentence)


def test_the_verdict_counts_what_is_not_proven() -> None:
    plan, _, _ = planned(published())
    assert report.verdict(Plan(SNOWFLAKE, Objective("balanced", 2.5), (plan,))) == (
        "snowflake, objective balanced (2.5 %): 1 layer on the array, 0 proven optimal, 1 not"
    )


def test_html_shows_every_layer_and_escapes_names() -> None:
    plan, program = network()
    text = report.html_table(plan, timeline(program))
    assert "&lt;second&gt;" in text
    assert "<second>" not in text
    assert text.count("<tr>") == 2 + len(plan.on_array) + len(plan.on_host)


# -- data ------------------------------------------------------------------------------------------------------------

LAYER_KEYS = {
    "name", "operator", "nodes", "dims", "mode", "dataflow", "order", "tiles", "tile_counts", "residency", "halo",
    "fused", "traffic", "dram_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes", "cycles", "memory", "proof",
}  # fmt: skip
TOTAL_KEYS = {
    "dram_bytes", "dram_read_bytes", "dram_write_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes",
    "host_bytes", "macs", "valid_ops", "cycles",
}  # fmt: skip


def test_data_has_every_documented_figure_and_adds_up() -> None:
    plan, _ = network()
    data = json.loads(json.dumps(plan_data(plan)))
    assert set(data["totals"]) == TOTAL_KEYS
    assert data["status"] == "optimal"
    for layer in data["layers"]:
        assert set(layer) >= LAYER_KEYS
        assert set(layer["traffic"]) == {
            "input", "weights", "bias", "residual", "output", "partial_sums", "other",
        }  # fmt: skip
        assert layer["dram_bytes"] == sum(t["read"] + t["write"] for t in layer["traffic"].values())
        assert {"status", "method", "bound_bytes", "gap", "solver", "seed", "deterministic_time"} <= set(layer["proof"])
    for key in ("dram_bytes", "bus_bytes", "compulsory_bytes", "macs", "cycles"):
        assert data["totals"][key] == sum(layer[key] for layer in data["layers"])
    host = [layer for layer in plan.layers if isinstance(layer, HostLayer)]
    assert data["host"] == [json.loads(json.dumps(host_data(layer))) for layer in host]
    assert data["totals"]["host_bytes"] == sum(h["read_bytes"] + h["write_bytes"] for h in data["host"])


def test_times_add_up_and_none_is_below_its_floor() -> None:
    plan, program = network()
    timing = timeline(program)
    times = performances(plan, timing)
    of = total(plan, times.values())
    assert of.cycles == pytest.approx(timing.cycles)
    assert of.shares.total == pytest.approx(of.cycles)
    for layer in plan.on_array:
        time = times[layer.name]
        assert floor_cycles(layer.layer.shape, SNOWFLAKE) <= min(time.cycles, layer.figures.cycles)
        assert 0 <= time.efficiency <= 1
        assert time.bytes_per_second <= SNOWFLAKE.dram.bytes_per_second
    data = json.loads(json.dumps(compiled_data(plan, timing)))
    assert data["totals"]["time"]["cycles"] == pytest.approx(sum(layer["time"]["cycles"] for layer in data["layers"]))
    # Two images a run.
    assert data["totals"]["time"]["frames_per_s"] == pytest.approx(2e3 / data["totals"]["time"]["ms"])


# -- layers that run together ------------------------------------------------------------------------------------------

SMALL = pytest.mark.parametrize("maps", [6144, 8192, 16384])
"""Bytes of a unit's memory for maps: for nothing to stay on chip, for some rows, for everything."""


@cache
def strips(maps: int) -> dnnc.Compilation:
    """A fused pool and a residual on a machine with small memories."""
    net = ModelBuilder("strips", 0)
    x = net.max_pool(net.relu(net.conv(net.input(1, 16, 32, 32), "first", 32, 3, pad=1), "relu"), "pool", 2, stride=2)
    y = net.relu(net.conv(x, "second", 32, 3, pad=1), "relu2")
    x = net.relu(net.add(x, net.conv(y, "third", 32, 3, pad=1), "add"), "relu3")
    machine = SNOWFLAKE.with_memory("maps", maps).with_memory("weights", 4096)
    return dnnc.compile(net.model(net.conv(x, "last", 48, 3, pad=1)), machine)


def together(maps: int) -> Residency:
    made = strips(maps).realized
    assert made is not None
    return Residency(strips(maps).plan, made)


@SMALL
def test_a_layer_s_time_is_that_of_all_its_sections(maps: int) -> None:
    plan, timing = strips(maps).plan, strips(maps).timing
    times = performances(plan, timing)
    of = total(plan, times.values())
    assert of.cycles == pytest.approx(timing.cycles)
    assert of.shares.total == pytest.approx(of.cycles)
    assert of.floor <= of.cycles
    found = layer_times(plan, timing)
    assert list(found) == [layer.name for layer in plan.layers]
    assert sum(map(len, found.values())) == len(timing.sections)
    for layer in plan.on_array:
        halves = 2 if layer.strips and layer.layer.shape.pool else 1
        assert len(found[layer.name]) >= max(1, layer.strips)
        assert len(found[layer.name]) <= max(1, layer.strips) * halves


@SMALL
def test_tables_say_how_a_layer_runs(maps: int) -> None:
    compilation = strips(maps)
    rows = report.layers_grid(compilation.plan, compilation.timing, compilation.realized).rows
    modes = {mode.name for mode in compilation.machine.modes}
    of = {name: group for group in groups(compilation.plan) for name in group.layers}
    for layer, row in zip(compilation.plan.on_array, rows, strict=True):
        assert row[5] in modes
        assert row[7] == f"{layer.figures.dram_bytes / 1e6:.3f}"
        if layer.strips:
            group = of[layer.name]
            cuts = " x ".join(str(len(cut)) for cut in (group.rows, group.columns) if cut)
            assert row[6] == f"strips {cuts} of group {group.number}"
            assert layer.strips == group.turns
            assert row[9] == "-"
    blind = report.layers_grid(compilation.plan).rows
    assert [row[5] == "-" for row in blind] == [layer.strips > 0 for layer in compilation.plan.on_array]


@SMALL
def test_totals_set_the_plan_s_bytes_and_time_against_those_of_less(maps: int) -> None:
    plan, timing = strips(maps).plan, strips(maps).timing
    assert plan.network is not None
    lines = report.totals_lines(plan, timing)
    moved = plan.totals.dram_bytes
    found = [line for line in lines if line.startswith("plan ")]
    assert found == [f"plan       fused: {moved / 1e6:.3f} MB, proven minimal"]
    layerwise = plan.network.best["layerwise"].bytes
    assert layerwise == sum(layer.by_itself.dram_bytes for layer in plan.on_array)
    least = f"layerwise: {layerwise / 1e6:.3f} MB, proven minimal; this is {moved / layerwise:.4f} x as much"
    assert any(line.endswith(least) for line in lines)
    own = layerwise_cycles(plan)
    assert lines[-1].endswith(f"this takes {timing.cycles / own:.4f} x as long")
    assert max(map(len, lines)) <= 110


def test_a_gap_is_named() -> None:
    plan = strips(8192).plan
    assert plan.network is not None
    best = {**plan.network.best, "fused": plan.network.best["fused"]._replace(bound=115_856)}
    lines = list(report.plan_lines(replace(plan, network=replace(plan.network, best=best))))
    moved = plan.totals.dram_bytes
    gap = 100 * (moved - 115_856) / moved
    assert lines[0] == ("plan", f"fused: {moved / 1e6:.3f} MB, at most {gap:.2g} % from the least (0.116 MB)")
    assert report.verdict(plan).endswith("all proven optimal by themselves; 1 of them in 1 group")


def test_what_a_machine_cannot_keep_is_said() -> None:
    plan, _, _ = planned(published())
    assert list(report.plan_lines(Plan(SNOWFLAKE, Objective(), (plan,)))) == []
    apart = replace(SNOWFLAKE, units_can_send=False)
    ((word, why),) = report.plan_lines(Plan(apart, Objective(), (plan,)))
    assert (word, why) == ("plan", "layer by layer: the units of snowflake cannot send rows to each other")


@SMALL
def test_data_of_a_network_has_its_groups(maps: int) -> None:
    compilation = strips(maps)
    data = json.loads(json.dumps(compiled_data(compilation.plan, compilation.timing, compilation.realized)))
    network = data["network"]
    assert network["best"]["fused"]["bytes"] == data["totals"]["dram_bytes"] >= network["best"]["fused"]["bound"]
    assert [name for group in network["groups"] for name in group["layers"]] == [
        layer["name"] for layer in data["layers"] if layer["strips"]
    ]
    for group in network["groups"]:
        assert len(group["strips"]) * max(1, len(group["blocks"])) == data_of(data, group["layers"][0])["strips"]
        assert group["strips"][0][0] == 0
        assert all(first < stop for first, stop in group["strips"])
        assert all(a[1] == b[0] for a, b in zip(group["strips"], group["strips"][1:], strict=False))
        for entry in (*group["entering"], *group["leaving"]):
            assert 0 < entry["rows"] <= entry["of"]
    assert 0 < network["memory"]["peak_bytes"] <= network["memory"]["bytes"] == maps
    for layer in data["layers"]:
        # A layer may also run by itself with operands on chip: then it has no strips, and other figures all the same.
        assert layer["strips"] == 0 or layer["by_itself"] is not None
    assert plan_data(network_free(compilation.plan))["network"] is None


def data_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(layer for layer in data["layers"] if layer["name"] == name)


def network_free(plan: Plan) -> Plan:
    return replace(plan, network=None)


@SMALL
def test_what_is_held_is_what_the_plan_counts(maps: int) -> None:
    """Bytes of tenants, unit by unit, are those that placing found; the fullest moment lists all of them."""
    of = together(maps)
    used = of.made.used
    held = [of.held(unit) for unit in range(of.made.chip.units)]
    assert [max(at) for at in zip(*held, strict=True)] == list(used)
    for fullest in of.fullest:
        assert fullest.used <= fullest.memory.bytes
        if fullest.holders:
            assert sum(holder.bytes for holder in fullest.holders) == fullest.used
    assert of.fullest[0].used == max(used)


@SMALL
def test_what_passes_through_takes_no_more_than_all_of_it(maps: int) -> None:
    """Tiles are given the room that is left, but hold only what there is: of a map, and of a group's kernels."""
    of = together(maps)
    for tenant in of.tenants:
        made = of.made.steps.maps[tenant.map]
        if tenant.kind in ("tile", "handed"):
            assert tenant.plot.words <= made.lines * made.words
    for group in of.groups:
        kernels = of.made.kernels[group.segment].values()
        granules = sum(made.cut.granules * made.cut.tile for made in kernels)
        parameters = sum(made.cut.parameters for made in kernels)
        assert max(made.used for made in kernels) * of.plan.machine.word_bytes <= 2 * granules + parameters


def test_a_map_that_is_loaded_once_for_several_layers_is_shown() -> None:
    """Both convolutions read the image, which fits; the second finds it on chip."""
    made = Builder(1, 4, 8, 0)
    both = [made.conv(made.input, 4, 3, relu=False) for _ in range(2)]
    found = dnnc.compile(made.model(*both), "two-buffer", plan="resident")
    assert found.realized is not None
    of = Residency(found.plan, found.realized)
    (kept,) = of.kept
    first, second = (layer.name for layer in found.plan.on_array)
    assert (kept.value, kept.rows, kept.of, kept.first, kept.last, kept.loaded) == ("x", 8, 8, first, second, True)


@SMALL
def test_every_row_is_either_kept_or_stored(maps: int) -> None:
    of = together(maps)
    steps = of.made.steps
    kept = {entry.value: entry for entry in of.kept if not entry.loaded}
    stored = {entry.value: entry for entry in of.stored}
    for m, made in enumerate(steps.maps):
        position = of.position(m)
        if position is None or of.alone(position) or made.must_store:
            continue
        rows = sum(found[made.value].rows for found in (kept, stored) if made.value in found)
        assert rows == steps.wanted(m, 0).bit_count()
    word = of.plan.machine.word_bytes
    for layer in of.plan.on_array:
        if layer.strips:
            out = steps.maps[steps.steps[steps.at[of.plan.layers.index(layer)][-1]].map]
            rows = stored[out.value].rows if out.value in stored else 0
            assert layer.traffic["output"] == (0, rows * out.words * word)


@SMALL
def test_what_goes_to_dram_has_its_reason_in_bytes(maps: int) -> None:
    of = together(maps)
    reasons = {entry.value: entry for entry in of.stored}
    assert reasons["last"].because == "it is an output of the network"
    for entry in of.stored:
        if entry.free is not None:
            assert entry.needed == entry.of * 16 * 32 * 2
            assert 0 <= entry.free <= of.made.chip.units * maps
            assert f"{entry.needed:,} B needed, {entry.free:,} B free while " in entry.because
            assert entry.free < entry.needed or entry.why or "no plan that keeps more was found" in entry.because
    alone = {s.position for s in of.made.segments if isinstance(s, Alone)}
    assert all(f"{of.plan.layers[p].name}" in reasons[value].because for p, value in ((0, "pool"),) if p in alone)


@SMALL
def test_a_network_as_text_names_every_group_and_map(maps: int) -> None:
    of = together(maps)
    text = "\n".join(network_lines(of))
    for group in of.groups:
        assert f"group {group.number}: {len(group.layers)} layer" in text
    for value in (*(entry.value for entry in of.kept), *(entry.value for entry in of.stored)):
        assert f"\n{value} " in text
    assert len(kept_grid(of).rows) == len(of.kept)
    assert len(stored_grid(of).rows) == len(of.stored)
    data = json.loads(json.dumps(together_data(of)))
    assert [entry["value"] for entry in data["to_dram"]] == [entry.value for entry in of.stored]


@SMALL
def test_a_layer_of_a_group_in_full(maps: int) -> None:
    """Its sections cover its rows, and what they read from DRAM is what it moves."""
    of, timing = together(maps), strips(maps).timing
    maps_of = {made.value: made for made in of.made.steps.maps}
    word = of.plan.machine.word_bytes
    for layer in of.plan.on_array:
        if not layer.strips:
            continue
        found = list(sections(of, layer))
        group = of.group_of(layer.name)
        assert group is not None
        last = [section for section in found if section.half != "unpooled"]
        stops = [0, *(section.stop for section in last)]
        assert all(section.first in (0, stop) for section, stop in zip(last, stops, strict=False))
        assert sum(section.first == 0 for section in last) == max(1, len(group.columns))
        if not group.columns:
            read = sum(rows * maps_of[value].words * word for section in found for value, rows in section.dram)
            assert read == sum(layer.traffic[role][0] for role in ("input", "residual", "other"))
        time = layer_performance(layer, of.plan.machine, layer_times(of.plan, timing)[layer.name])
        seen = StripInspection(layer, of, time)
        text = list(strips_text(seen))
        assert any(line.startswith(f"  group     {group.number}: ") for line in text)
        assert any(f"{layer.figures.dram_bytes:,} B: " in line and "by itself" in line for line in text)
        data = json.loads(json.dumps(strips_inspection(seen)))
        assert (data["group"], len(data["sections"])) == (group.number, len(found))


def test_instructions_of_a_layer_of_a_group_are_those_of_all_its_sections() -> None:
    compilation = strips(16384)
    lines = program_lines(compilation.program, "first")
    headings = [line for line in lines if line.startswith("section ")]
    found = [s.name for s in compilation.program.sections if compilation.plan.layer_of(s.name) == "first"]
    assert len(headings) == len(found) > 1
    assert len(set(found)) == 2


def test_inspecting_an_artifact_shows_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strips(8192).save(tmp_path / "a.dnnc")

    def shown(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            app(["inspect", str(tmp_path / "a.dnnc"), *map(str, arguments)], prog_name="dnnc")
        assert not ended.value.code
        return capsys.readouterr().out

    text = shown()
    of = together(8192)
    assert all(line in text for line in network_lines(of))
    assert "strips " in text
    inside = of.groups[0].layers[0]
    assert "group     " in shown(inside)
    data = json.loads(shown("--json"))
    assert {"groups", "on_chip", "to_dram", "fullest", "kernels"} <= set(data["network"])
    assert json.loads(shown(inside, "--json"))["sections"]


@pytest.mark.parametrize("name", ["snowflake", "two-buffer"])
def test_machines_with_all_their_figures(name: str) -> None:
    machine: Machine = load(name)
    text = "\n".join(report.machine_lines(machine))
    assert all(mode.name in text for mode in machine.modes)
    assert all(report.capacity(memory.bytes) in text for memory in machine.memories)
    data = json.loads(json.dumps(machine_data(machine)))
    assert data["macs_per_cycle"] == machine.macs_per_cycle


def test_figures_of_snowflake() -> None:
    text = report.machine_lines(SNOWFLAKE)
    assert "  array             4 cu x 4 vmac x 16 lane = 256 MAC" in text
    assert "  clock             250 MHz, 64 GMAC/s at most" in text
    maps = next(line for line in text if line.startswith("  maps memory"))
    assert maps.startswith("  maps memory       4 x 64 KiB = 256 KiB, one in every cu; holds input")
