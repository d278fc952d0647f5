"""The report: its numbers are the artifact's, its pictures are sound, its trace adds up, and a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dnnc
from dnnc.cli.program import app
from dnnc.performance import layer_times, sum_of
from dnnc.plan import Plan
from dnnc.report_page.figures import Network, figures_data, named
from dnnc.report_page.fronts import LayerFront
from dnnc.report_page.fronts_chart import fronts
from dnnc.report_page.markup import Markup, element, text
from dnnc.report_page.memory_map import boxes, memory_map
from dnnc.report_page.page import page, standalone
from dnnc.report_page.palette import INKS, SERIES
from dnnc.report_page.picture import WIDTH
from dnnc.report_page.roofline import roofline
from dnnc.report_page.scale import Scale
from dnnc.report_page.series import channel_bytes, envelope
from dnnc.report_page.trace import trace, tracks
from dnnc.residency import Residency
from dnnc.search import Objective
from dnnc.summary import compiled_data
from dnnc_runtime.jobs import UNITS
from dnnc_runtime.machine import load
from dnnc_runtime.occupancy import Steps
from dnnc_runtime.timeline import Timing
from model_builder import ModelBuilder

NASTY = "</script><b onload=alert(1)>&amp;\"'"
SVG = "{http://www.w3.org/2000/svg}"


def model(name: str) -> onnx.ModelProto:
    """A fused pool, a residual, a pool by itself, a host node, a linear layer, and a name that is markup."""
    net = ModelBuilder(name, 0)
    x = net.max_pool(net.relu(net.conv(net.input(1, 3, 24, 24), "first", 32, 3, pad=1), "relu"), "pool", 2, stride=2)
    y = net.conv(net.lrn(x, "norm", 5, 1e-4, 0.75), NASTY, 32, 3, pad=1)
    x = net.max_pool(net.add(x, y, "add"), "alone", 3, stride=1)
    return net.model(net.linear(net.flatten(net.global_average(x, "mean"), "flat"), "linear", 10))


@pytest.fixture(scope="module", params=["layerwise", "fused"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layer by itself; and in groups, some rows of which go to DRAM."""
    folder = tmp_path_factory.mktemp("report")
    onnx.save(model("net"), folder / "net.onnx")
    target = load("snowflake").with_memory("maps", 16384)
    dnnc.compile(folder / "net.onnx", target, plan=request.param).save(folder / "net.dnnc")
    return folder / "net.dnnc"


@pytest.fixture(scope="module")
def compilation(artifact: Path) -> dnnc.Compilation:
    return dnnc.load(artifact)


@pytest.fixture(scope="module")
def network(compilation: dnnc.Compilation) -> Network:
    return named([Network("net", compilation.plan, compilation.timing, made=compilation.realized)])[0]


@pytest.fixture(scope="module")
def html(artifact: Path) -> str:
    """The page as the command writes it."""
    path = artifact.with_suffix(".html")
    assert command(artifact, "-o", path) == 0
    return path.read_text("utf-8")


def command(*arguments: object) -> int:
    """The exit status of ``dnnc report``."""
    with pytest.raises(SystemExit) as ended:
        app(["report", *map(str, arguments)], prog_name="dnnc")
    assert isinstance(ended.value.code, int | None)
    return ended.value.code or 0


class Reader(HTMLParser):
    """What stands in a page: elements in order, text by element, and that every element that is opened is closed."""

    VOID = frozenset({"meta"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
        if self.rows and {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [value for _, attributes in self.elements if (value := attributes.get(name))]


def embedded(source: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', source, re.S)
    return json.loads(found)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_page_s_figures_are_the_artifact_s(html: str, compilation: dnnc.Compilation) -> None:
    (found,) = embedded(html)["networks"]
    plan = json.loads(json.dumps(compiled_data(compilation.plan, compilation.timing, compilation.realized)))
    assert found["totals"]["time"].items() <= plan["totals"]["time"].items()
    assert {**found["totals"], "time": 0} == {**plan["totals"], "time": 0}
    assert found["host"] == plan["host"]
    assert found["network"] == plan["network"]
    assert [layer["name"] for layer in found["layers"]] == [layer["name"] for layer in plan["layers"]]
    for mine, true in zip(found["layers"], plan["layers"], strict=True):
        assert {key: value for key, value in mine.items() if key != "start_cycle"}.items() <= true.items()


def test_the_page_s_times_are_the_timeline_s(html: str, compilation: dnnc.Compilation) -> None:
    (found,) = embedded(html)["networks"]
    timing = compilation.timing
    times = {name: sum_of(found) for name, found in layer_times(compilation.plan, timing).items()}
    assert found["totals"]["time"]["cycles"] == pytest.approx(timing.cycles)
    for layer in found["layers"]:
        mine, true = layer["time"], times[layer["name"]]
        assert (layer["start_cycle"], mine["cycles"], mine["bound"]) == (true.start, true.cycles, true.shares.bound)
        assert sum(mine["shares"].values()) == pytest.approx(true.cycles)
    for name, memory in found["memories"].items():
        assert memory["largest_bytes"] == timing.occupancy[name].largest <= memory["bytes"]


def test_the_tables_say_what_is_embedded(html: str) -> None:
    (found,) = embedded(html)["networks"]
    rows = {row[1]: row for row in Reader(html).rows if len(row) > 15}
    heading = rows.pop("layer")
    assert list(rows) == [layer["name"] for layer in found["layers"]]
    for layer in found["layers"]:
        row = dict(zip(heading, rows[layer["name"]], strict=True))
        assert row["DRAM MB"] == f"{layer['dram_bytes'] / 1e6:,.3f}"
        assert row["Mop"] == f"{layer['valid_ops'] / 1e6:,.3f}"
        assert row["ms"] == f"{1e3 * layer['time']['cycles'] / found['target']['clock_hz']:,.3f}"
        assert row["bound by"] == layer["time"]["bound"]


def test_bars_add_up_to_their_layers(network: Network) -> None:
    """The parts of a row, in the picture's own pixels, are as long as its bytes and its time ask for."""
    for kind, lengths in (
        ("traffic", [line.plan.figures.dram_bytes for line in network.layers]),
        ("time", [line.seconds for line in network.layers]),
    ):
        values = [length for length in lengths if length]
        marks = drawn(standalone([network])[f"net-{kind}.svg"]).iter(f"{SVG}g")
        widths = [
            sum(float(r.get("width", 0)) for r in mark.findall(f"{SVG}rect") if r.get("class") not in ("hit", "bound"))
            for mark in marks
        ]
        timed = [width for width in widths if width]
        assert np.allclose(np.array(timed) / max(timed), np.array(values) / max(values), atol=1e-3)


# -- the page ----------------------------------------------------------------------------------------------------------


def drawn(source: str) -> ElementTree.Element:
    return ElementTree.fromstring(source.encode())


def test_every_picture_is_xml_alone_and_in_the_page(network: Network, html: str) -> None:
    files = standalone([network])
    assert list(files) == [
        "roofline.svg",
        *(f"net-{kind}.svg" for kind in ("traffic", "time", "occupancy", "bandwidth")),
        *(["net-memory.svg"] if network.made else []),
    ]
    for source in files.values():
        root = drawn(source)
        assert root.tag == f"{SVG}svg"
        assert root.get("viewBox") == f"0 0 {WIDTH:g} {root.get('height')}"
        assert len([e for e in root.iter(f"{SVG}title") if e.text]) > 1
    inline = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len([ElementTree.fromstring(found) for found in inline]) == 1 + len(files)


def test_nothing_is_drawn_outside_of_its_picture(network: Network) -> None:
    for name, source in standalone([network]).items():
        root = drawn(source)
        height = float(root.get("height", 0))
        for shape in root.iter(f"{SVG}rect"):
            x, y, wide, high = (float(shape.get(key, 0)) for key in ("x", "y", "width", "height"))
            assert min(x, y) >= 0, name
            assert x + wide <= WIDTH + 0.05, name
            assert y + high <= height, name
        for shape in root.iter(f"{SVG}text"):
            assert 0 <= float(shape.get("x", -1)) <= WIDTH, name
            assert 8 <= float(shape.get("y", -1)) <= height, name


def test_the_page_needs_nothing_else(html: str, network: Network) -> None:
    for source in (html, *standalone([network]).values()):
        assert set(re.findall(r"https?://[^\s\"'<>]*", source)) <= {"http://www.w3.org/2000/svg"}
        assert set(re.findall(r"url\((.*?)\)", source)) <= {f"#hatch{i}" for i in range(1, 9)}
        assert "@import" not in source
    page_reader = Reader(html)
    assert not [tag for tag, _ in page_reader.elements if tag in ("link", "img", "iframe", "object", "base")]
    assert page_reader.all("src") == []
    assert all(target.startswith("#") for target in page_reader.all("href"))


def test_anchors_and_ids_fit_together(html: str) -> None:
    reader = Reader(html)
    ids = reader.all("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in reader.all("href")} <= set(ids)


def test_names_are_text_and_never_markup(html: str, network: Network) -> None:
    assert any(line.name == NASTY for line in network.layers)
    reader = Reader(html)
    assert NASTY in reader.texts["th"]
    assert "b" not in {tag for tag, _ in reader.elements}
    assert "onload" not in {name for _, attributes in reader.elements for name in attributes}
    titles = [e.text or "" for e in drawn(standalone([network])["net-traffic.svg"]).iter(f"{SVG}title")]
    assert any(title.startswith(NASTY) for title in titles)


@given(st.text(), st.text())
def test_whatever_is_written_is_xml(content: str, attribute: str) -> None:
    (found,) = ElementTree.fromstring(f"<a>{element('b', text(content), title=attribute)}</a>")
    assert len(found.text or "") <= len(content)
    assert found.text == text(content) or set(content) & set("<>&'\"\r") or found.text is None


def test_what_the_host_runs_is_listed_and_not_timed(html: str) -> None:
    assert "On the host, not timed" in Reader(html).texts["caption"]
    assert any(row[0] == "norm" for row in Reader(html).rows if row)
    assert Reader(html).texts["text"].count("not timed") == 1


def test_headings_and_tables_have_the_structure_that_readers_aloud_need(html: str) -> None:
    reader = Reader(html)
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.elements if tag == "th")
    figures = [tag for tag, _ in reader.elements if tag in ("figure", "figcaption")]
    assert figures == ["figure", "figcaption"] * (len(figures) // 2)
    for tag, attributes in reader.elements:
        assert tag != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_networks_of_one_name_are_told_apart(network: Network) -> None:
    latency = replace(network, plan=replace(network.plan, objective=Objective("latency")))
    other = replace(network, plan=replace(network.plan, machine=replace(network.machine, name="other")))
    four = named([network, other, latency, latency, replace(network, name="</b>")])
    assert [(n.name, n.slug) for n in four] == [
        ("net on snowflake, traffic", "net-on-snowflake-traffic"),
        ("net on other", "net-on-other"),
        ("net on snowflake, latency", "net-on-snowflake-latency"),
        ("net on snowflake, latency (2)", "net-on-snowflake-latency-2"),
        ("</b>", "b"),
    ]
    ids = Reader(page(four)).all("id")
    assert len(ids) == len(set(ids))
    assert len(standalone(four)) == 1 + 5 * (5 if network.made else 4)


@given(st.lists(st.sampled_from(("a", "a-2", "a (2)", "", "!", "network", "network-2")), max_size=6))
def test_names_and_slugs_always_differ(network_names: list[str]) -> None:
    plan, timing = Plan(load("snowflake"), Objective(), ()), Timing(load("snowflake"), (), 1, (), {}, (), ())
    found = named([Network(name, plan, timing) for name in network_names])
    assert len({n.name for n in found}) == len({n.slug for n in found}) == len(found)


def test_a_network_that_the_host_runs_alone_has_a_page(tmp_path: Path) -> None:
    net = ModelBuilder("host", 0)
    onnx.save(net.model(net.lrn(net.input(1, 4, 5, 5), "norm", 5, 1e-4, 0.75)), tmp_path / "host.onnx")
    dnnc.compile(tmp_path / "host.onnx").save(tmp_path / "host.dnnc")
    outputs = ("-o", tmp_path / "a.html", "--svg", tmp_path / "pictures", "--timeline", tmp_path / "a.json", "--fronts")
    assert command(tmp_path / "host.dnnc", *outputs) == 0
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["roofline.svg"]
    Reader((tmp_path / "a.html").read_text("utf-8"))


# -- fronts ------------------------------------------------------------------------------------------------------------


def test_fronts_are_drawn_where_there_is_a_choice(network: Network) -> None:
    trading = LayerFront(("a", "b"), (100, 50), ((100, 50), (120, 40), (300, 39)))
    settled = LayerFront(("<c>",), (7, 7), ((7, 7),))
    assert fronts("net", "net", (settled,)) is None
    picture = fronts("net", "net", (trading, settled))
    assert picture is not None
    assert len(list(drawn(picture.file()).iter(f"{SVG}circle"))) == 3 + 1
    source = page([replace(network, fronts=(trading, settled))])
    assert "1 layer with one schedule" in source
    assert "&lt;c&gt;" in source
    assert embedded(source)["networks"][0]["fronts"][0]["points"] == [[100, 50], [120, 40], [300, 39]]


def test_searched_fronts_start_at_the_plan_s_bytes(artifact: Path) -> None:
    assert command(artifact, "--fronts", "-o", artifact.with_name("fronts.html")) == 0
    (found,) = embedded(artifact.with_name("fronts.html").read_text("utf-8"))["networks"]
    by_itself = {layer.name: layer.by_itself.dram_bytes for layer in dnnc.load(artifact).plan.on_array}
    covered = [name for front in found["fronts"] for name in front["layers"]]
    assert sorted(covered) == sorted(layer["name"] for layer in found["layers"])
    for front in found["fronts"]:
        assert front["points"][0][0] == by_itself[front["layers"][0]]
        assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(front["points"]))


# -- colours and scales ------------------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """Of WCAG 2: the ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_surface(theme: int) -> None:
    surface = INKS["surface"][theme]
    for name in ("ink", "soft", "accent"):
        for behind in ("surface", "band"):
            assert contrast(INKS[name][theme], INKS[behind][theme]) >= 4.5, (name, behind)
    for pair in SERIES:
        assert contrast(pair[theme], surface) >= 3, pair


@given(st.floats(1e-6, 1e9), st.floats(1.05, 1e6), st.booleans(), st.integers(3, 10))
def test_ticks_are_round_few_and_inside(least: float, times: float, log: bool, about: int) -> None:
    scale = Scale(least, least * times, 10, 500, log)
    ticks = scale.ticks(about)
    assert list(ticks) == sorted(set(ticks))
    assert all(9 <= scale(tick) <= 501 for tick in ticks)
    assert len(ticks) <= (about + 1 if not log else 16)
    assert log or len(ticks) >= about / 2.6 - 1


@pytest.mark.parametrize("wrong", [(1, 1, False), (2, 1, False), (0, 1, True)])
def test_a_scale_needs_room(wrong: tuple[float, float, bool]) -> None:
    with pytest.raises(ValueError, match="no scale"):
        Scale(wrong[0], wrong[1], 0, 1, wrong[2])


# -- over time ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12), st.integers(1, 7))
def test_an_envelope_holds_every_value_of_its_bin(changes: list[tuple[int, int]], bins: int) -> None:
    times = tuple(np.cumsum([step for step, _ in changes]).tolist())
    steps = Steps(times, tuple(value for _, value in changes))
    last = 7 * bins
    edges = np.linspace(0, last, bins + 1)

    def at(time: int) -> int:
        return next((v for t, v in reversed(list(zip(steps.times, steps.values, strict=True))) if t <= time), 0)

    for i, found in enumerate(envelope(steps, edges)):
        values = [at(time) for time in range(7 * i, 7 * i + 7)]
        assert found == (min(values), max(values))


def test_the_channel_s_bins_hold_all_bytes_and_no_more_than_it_carries(network: Network) -> None:
    timing, machine = network.timing, network.machine
    edges = np.linspace(0, timing.ends[-1], 101)
    moved = channel_bytes(timing, edges)
    assert sum(found.sum() for found in moved.values()) == pytest.approx(network.plan.totals.bus_bytes)
    by_role = {role: sum(sum(line.plan.figures.bus.get(role, (0, 0))) for line in network.layers) for role in moved}
    assert {role: float(found.sum()) for role, found in moved.items()} == pytest.approx(by_role)
    seconds = network.milliseconds(edges[1]) / 1e3
    assert np.sum(list(moved.values()), axis=0).max() <= machine.dram.bytes_per_second * seconds * 1.001


def test_no_point_is_above_its_roof(network: Network) -> None:
    assert roofline([network]).name == "roofline"
    for line in network.layers:
        of, machine = line.performance, network.machine
        assert of.ops_per_second <= 2 * machine.macs_per_cycle * machine.clock_hz * (1 + 1e-9)
        if line.plan.alone is None:
            # What a layer loads that keeps words on chip may have been loaded in the time of the one before.
            assert of.ops_per_second <= of.ops / of.dram_bytes * machine.dram.bytes_per_second * 1.001


def test_nothing_lies_where_something_else_is(network: Network) -> None:
    """Boxes of the memory map are apart in time or in addresses, and together as large as what is held."""
    if network.made is None:
        assert memory_map(network) is None
        return
    of = Residency(network.plan, network.made)
    word = network.machine.word_bytes
    for unit in range(of.made.chip.units):
        found = boxes(of, unit)
        assert all(0 <= box.low < box.high <= of.memory.bytes // word for box in found)
        for i, a in enumerate(found):
            for b in found[:i]:
                assert a.end < b.start or b.end < a.start or a.high <= b.low or b.high <= a.low
        held = of.held(unit)
        for at, size in enumerate(held):
            assert sum(box.high - box.low for box in found if box.start <= at <= box.end) * word == size


def test_sections_of_the_plan_are_those_of_the_program(network: Network) -> None:
    """In order, and each of the layers that it is for: the memory map takes their times."""
    made = network.made
    if made is None:
        return
    names, numbers = network.timing.sections, [number for some in made.program_sections for number in some]
    assert numbers == [*range(len(names))]
    for scene, some in zip(made.lives.scenes, made.program_sections, strict=True):
        layers = {network.plan.layers[p].name for p in made.segments[scene.segment].positions}
        layers = {made.steps.steps[step].layer.name for step in scene.steps} or layers
        assert {names[number] for number in some} <= layers


def test_the_memory_map_has_a_mark_for_every_tensor(network: Network, html: str) -> None:
    if network.made is None:
        assert "net-memory" not in html
        return
    of = Residency(network.plan, network.made)
    found = boxes(of, of.fullest_unit)
    titles = [e.text or "" for e in drawn(standalone([network])["net-memory.svg"]).iter(f"{SVG}title")]
    for m in {box.map for box in found if box.map >= 0}:
        value = of.made.steps.maps[m].value
        assert any(title.startswith(f"{value}: ") for title in titles), value
    tables = {row[0]: row for row in Reader(html).rows if row}
    for entry in of.stored:
        assert entry.because in tables[entry.value]


# -- the trace ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(artifact: Path) -> list[dict[str, Any]]:
    path = artifact.with_name("trace.json")
    assert command(artifact, "--timeline", path) == 0
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["traceEvents"]
    return found


def complete(events: list[dict[str, Any]], track: str) -> list[dict[str, Any]]:
    """The slices of a track."""
    tid = next(e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == track)
    return [event for event in events if event["ph"] == "X" and event["tid"] == tid]


def nanoseconds(event: Mapping[str, Any]) -> tuple[int, int]:
    start, length = event["ts"] * 1e3, event["dur"] * 1e3
    assert start == pytest.approx(round(start))
    assert length == pytest.approx(round(length))
    return round(start), round(start) + round(length)


def test_every_unit_memory_and_layer_has_a_track(events: list[dict[str, Any]], network: Network) -> None:
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == ["layers", *UNITS, "maps memory", "weights memory"] == list(tracks(network))
    assert all(complete(events, name) for name in names if name != "links")


def test_slices_of_a_track_never_overlap(events: list[dict[str, Any]], network: Network) -> None:
    for track in tracks(network):
        spans = [nanoseconds(event) for event in complete(events, track)]
        assert all(start <= end for start, end in spans)
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), track


def test_a_trace_moves_the_bytes_that_were_counted(events: list[dict[str, Any]], compilation: dnnc.Compilation) -> None:
    moved = complete(events, "dram")
    assert sum(event["args"]["bytes"] for event in moved) == sum(compilation.counted.payload.values())
    assert sum(event["args"]["bus_bytes"] for event in moved) == sum(compilation.counted.bus.values())
    layers = complete(events, "layers")
    assert {e["name"]: e["args"]["bytes"] for e in layers} == {
        layer.name: layer.figures.dram_bytes for layer in compilation.plan.on_array
    }
    spans = sum(end - start for start, end in map(nanoseconds, layers))
    assert spans == pytest.approx(1e9 * compilation.timing.cycles / compilation.machine.clock_hz, abs=2 * len(layers))
    for layer in layers:
        mine = [event["args"]["bytes"] for event in moved if event["args"]["layer"] == layer["name"]]
        assert sum(mine) == layer["args"]["bytes"]


def test_slices_of_a_job_that_touch_are_one(events: list[dict[str, Any]]) -> None:
    for a, b in pairwise(complete(events, "dram")):
        same = all(a["args"][key] == b["args"][key] for key in ("layer", "instruction"))
        assert not same or nanoseconds(a)[1] < nanoseconds(b)[0]


def test_counters_run_forward_and_end_at_zero(events: list[dict[str, Any]], network: Network) -> None:
    counters: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "C":
            counters.setdefault(event["name"], []).append(event)
    assert set(counters) == {"DRAM GB/s", "maps bytes in use", "weights bytes in use"}
    for found in counters.values():
        assert all(a["ts"] <= b["ts"] for a, b in pairwise(found))
        assert set(found[-1]["args"].values()) == {0}
        assert min(value for event in found for value in event["args"].values()) >= 0
    most = max(event["args"]["bytes"] for event in counters["maps bytes in use"])
    assert most == network.timing.occupancy["maps"].largest


def test_a_host_node_is_a_moment(events: list[dict[str, Any]]) -> None:
    (moment,) = [event for event in events if event["ph"] == "i"]
    assert moment["name"] == "norm: on the host, not timed"


# -- the command -------------------------------------------------------------------------------------------------------


def refusals(artifact: Path) -> Iterator[tuple[tuple[object, ...], str]]:
    blocked = artifact.with_name("blocked")
    blocked.write_text("a file")
    yield (artifact,), "nothing to write"
    yield (artifact, artifact, "--timeline", artifact.with_name("t.json")), "--timeline is of one artifact, found 2"
    yield (artifact, "-o", artifact.parent), "cannot be written"
    yield (artifact, "-o", blocked / "page.html"), "cannot be written"
    yield (artifact, "--timeline", artifact.with_name("absent") / "t.json"), "cannot be written"
    yield (artifact, "-o", artifact), "which is read"
    yield (artifact, "-o", "a", "--timeline", "./a"), "are one file"
    yield (artifact, "--svg", blocked), "choose another directory"
    yield (artifact.with_name("absent.dnnc"), "-o", artifact.with_name("p.html")), "cannot be read"


def test_what_cannot_be_done_is_refused_in_a_line(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, reason in refusals(artifact):
        assert command(*arguments) == 2
        found = capsys.readouterr()
        assert (found.out, found.err.count("\n")) == ("", 1)
        assert found.err.startswith("error: ")
        assert reason in found.err
    assert not artifact.with_name("p.html").exists()


def test_the_page_and_the_trace_are_the_same_every_time(network: Network, html: str) -> None:
    assert page([network]) == html
    assert trace(network) == trace(network)
    assert figures_data(network) == figures_data(network)


def test_markup_takes_attributes_as_python_can_write_them() -> None:
    assert element("a", Markup("b"), class_="c", stroke_width=1.5, id=None) == '<a class="c" stroke-width="1.5">b</a>'


# -- in a browser ------------------------------------------------------------------------------------------------------

BROWSER = shutil.which("chromium")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip
PROBE = """<script>
const heading = [...document.querySelectorAll("table.sortable th")].find((th) => th.textContent === "DRAM MB");
heading.querySelector("button").click();
heading.querySelector("button").click();
document.querySelector(".mark").dispatchEvent(new Event("focus"));
const root = document.documentElement;
const rows = [...document.querySelectorAll("table.sortable tbody tr")];
top.document.body.dataset.found = JSON.stringify({
  width: innerWidth,
  over: root.scrollWidth - root.clientWidth,
  requests: performance.getEntriesByType("resource").length,
  tip: document.getElementById("tip").textContent,
  moved: rows.map((row) => Number(row.cells[heading.cellIndex].textContent)),
});
</script></body>"""


def framed(source: str, width: int) -> str:
    """A page in a frame, which may be narrower than a browser's window."""
    style = f"width:{width}px;height:800px;border:0"
    return f'<!DOCTYPE html><title>-</title><body><iframe style="{style}" srcdoc="{escape(source)}"></iframe></body>'


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [390, 1366])
def test_a_browser_shows_the_page_sorts_and_asks_for_nothing(html: str, tmp_path: Path, width: int) -> None:
    source = html.replace("</body>", PROBE)
    (tmp_path / "page.html").write_text(framed(source, width) if width < 500 else source, "utf-8")
    folder = f"--user-data-dir={tmp_path / 'user'}"
    shown = [str(BROWSER), *QUIET, folder, f"--window-size={width},900", "--dump-dom", f"file://{tmp_path}/page.html"]
    done = subprocess.run(shown, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    body = next(attributes for tag, attributes in Reader(done.stdout).elements if tag == "body")
    found = json.loads(body["data-found"] or "")
    assert (found["width"], found["over"], found["requests"]) == (width, 0, 0)
    assert found["tip"]
    assert found["moved"] == sorted(found["moved"], reverse=True)
    assert len(found["moved"]) == len(embedded(html)["networks"][0]["layers"])
