"""Artifacts: written and read back to equal compilations, in the published form; whatever is off is refused."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dnnc
from dnnc import artifact, documents
from dnnc.documents import Damaged
from dnnc.enumerate import best
from dnnc.pipeline import Compilation
from dnnc.records import Document, ScheduleRecord, record, restore
from dnnc.schedule import DIMS, Dim
from dnnc.space import Space, active_sets, fits, grid, locate, schedule_of
from dnnc.traffic import Structure, Tiles
from dnnc_runtime.errors import ModelFault, UsageFault
from lowering import Net
from strategies import cases, layers, machines

SCHEMA = json.loads((Path(artifact.__file__).parent / "artifact.schema.json").read_text("utf-8"))
CONSTRAINTS = '[[layer]]\nmatch = "conv0"\nmode = "cooperative"\ntiles = { y = 2 }\n'


def network() -> onnx.ModelProto:
    """A convolution with everything fused, a residual block, a product and a node for the host."""
    net = Net(x=(1, 3, 8, 8))
    pooled = net.op("MaxPool", net.op("Relu", net.conv("x", 3, 8)), kernel_shape=[2, 2], strides=[2, 2])
    added = net.op("Relu", net.op("Add", net.conv(pooled, 8, 8), pooled))
    net.op("Softmax", net.op("Gemm", net.op("Flatten", added), net.weights(10, 128), transB=1))
    return net.model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    onnx.save(network(), str(path / "net.onnx"))
    (path / "rules.toml").write_text(CONSTRAINTS, "utf-8")
    return path


@pytest.fixture(scope="module")
def compiled(folder: Path) -> Compilation:
    return dnnc.compile(folder / "net.onnx", constraints=folder / "rules.toml", objective="balanced")


@pytest.fixture(scope="module")
def saved(folder: Path, compiled: Compilation) -> Path:
    artifact.save(compiled, folder / "net.dnnc")
    return folder / "net.dnnc"


# -- there and back ---------------------------------------------------------------------------------------------------


def test_a_loaded_compilation_equals_the_saved_one(saved: Path, compiled: Compilation) -> None:
    loaded = artifact.load(saved)
    assert loaded.plan == compiled.plan
    assert loaded.graph == compiled.graph
    assert loaded.lowered.layers == compiled.lowered.layers
    assert loaded.program == compiled.program
    assert loaded.counted == compiled.counted
    assert loaded.constraints == compiled.constraints
    assert (loaded.unfused, loaded.interrupted) == (compiled.unfused, False)


def test_equal_compilations_give_equal_bytes(saved: Path, folder: Path) -> None:
    again = dnnc.compile(folder / "net.onnx", constraints=folder / "rules.toml", objective="balanced")
    again.save(folder / "again.dnnc")
    dnnc.load(saved).save(folder / "loaded.dnnc")
    assert (folder / "again.dnnc").read_bytes() == saved.read_bytes()
    assert (folder / "loaded.dnnc").read_bytes() == saved.read_bytes()


def test_the_model_is_named_from_the_artifacts_folder(compiled: Compilation, folder: Path, saved: Path) -> None:
    assert json.loads(saved.read_bytes())["model"]["path"] == "net.onnx"
    (folder / "out").mkdir()
    compiled.save(folder / "out" / "net.dnnc")
    text = (folder / "out" / "net.dnnc").read_text("utf-8")
    assert json.loads(text)["model"]["path"] == "../net.onnx"
    assert str(folder) not in text
    source = artifact.load(folder / "out" / "net.dnnc").graph.source
    assert source is not None
    assert source.path == folder / "net.onnx"


def test_weights_come_from_the_model(saved: Path, compiled: Compilation) -> None:
    loaded = artifact.load(saved)
    name = next(iter(loaded.lowered.constants))
    with pytest.raises(ModelFault, match="has no data"):
        loaded.lowered.constants[name]()
    attached = artifact.attach(loaded)
    assert attached.lowered.constants.keys() == compiled.lowered.constants.keys()
    for name, load in attached.lowered.constants.items():
        np.testing.assert_array_equal(load(), compiled.lowered.constants[name]())


def test_a_model_without_a_file(tmp_path: Path, folder: Path) -> None:
    dnnc.compile(network(), "two-buffer").save(tmp_path / "net.dnnc")
    loaded = artifact.load(tmp_path / "net.dnnc")
    with pytest.raises(UsageFault, match="had no file; give the model"):
        artifact.attach(loaded)
    for model in (network(), folder / "net.onnx"):
        attached = artifact.attach(loaded, model)
        assert all(load().size for load in attached.lowered.constants.values())


def test_a_model_that_moved_or_changed(saved: Path, folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.dnnc"
    moved.write_bytes(saved.read_bytes())
    loaded = artifact.load(moved)
    with pytest.raises(UsageFault, match=r"net.onnx' of the artifact is not there; say where it is \(--model FILE\)"):
        artifact.attach(loaded)
    assert artifact.attach(loaded, folder / "net.onnx").graph == loaded.graph
    model = network()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[::-1]
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises(UsageFault, match="is not the one that was compiled: its sha256 is"):
        artifact.attach(loaded)


# -- the published form -----------------------------------------------------------------------------------------------


def test_artifacts_are_of_the_published_form(saved: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(saved.read_bytes()), SCHEMA)


def test_the_published_form_has_the_members_that_are_read() -> None:
    def members(kind: Any, schema: Mapping[str, Any]) -> None:
        if "anyOf" in schema:
            schema = schema["anyOf"][0]
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        inner = [arg for arg in get_args(kind) if arg not in (NoneType, Ellipsis)]
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            names = [f.name for f in fields(kind)]
            seal = [documents.SEAL] if schema is SCHEMA else []
            assert [*schema["properties"]] == schema["required"] == names + seal, kind
            assert schema["additionalProperties"] is False
            for name in names:
                members(hints[name], schema["properties"][name])
        elif inner and is_dataclass(inner[0]):
            members(inner[0], schema.get("items", schema))

    members(Document, SCHEMA)


@pytest.mark.parametrize("member", [f.name for f in fields(Document)])
@pytest.mark.parametrize("value", [0.5, None])
def test_values_of_another_type_are_refused_by_reader_and_schema(saved: Path, member: str, value: object) -> None:
    content = json.loads(saved.read_bytes())
    content[member] = value if (member, value) != ("constraints", None) else True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)
    del content[documents.SEAL]
    with pytest.raises(Damaged):
        documents.parse(Document, content)


# -- what is off ------------------------------------------------------------------------------------------------------


def tampered(saved: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy with one change, sealed again."""
    content = json.loads(saved.read_bytes())
    del content[documents.SEAL]
    change(content)
    path = folder / "tampered.dnnc"
    path.write_text(json.dumps({**content, documents.SEAL: documents.digest(content)}), "utf-8")
    return path


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    """Sets the member at a path."""
    return edit(*path, by=lambda _: value)


def edit(*path: str | int, by: Callable[[Any], Any]) -> Callable[[dict[str, Any]], object]:
    """Changes the member at a path."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = by(content[path[-1]])

    return change


def more(value: int) -> int:
    return value + 2


def without_first(value: list[Any]) -> list[Any]:
    return value[1:]


def one_more(content: dict[str, Any]) -> None:
    """A member that this format does not have."""
    content["extra"] = 1


def in_cycles(content: dict[str, Any]) -> None:
    """A bound on bytes that is said to prove cycles."""
    layer = content["layers"][0]
    cycles = layer["figures"]["cycles"]
    layer["proof"].update(method="lower bound", quantity="cycles", value=cycles, bound=cycles)


LAYER = ("layers", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=0), "is of format 0, which is no longer read"),
        (put("format", value="1"), "it states no format"),
        (put("cost_model", value="0"), "its bytes are those of cost model '0', this dnnc"),
        (one_more, "missing or unknown: extra"),
        (put("status", value="feasible"), 'states status "feasible", where it is "optimal"'),
        (edit("totals", "dram_bytes", by=more), "states totals.dram_bytes "),
        (put("machine", "digest", value="0" * 64), 'states machine.digest "000'),
        (
            edit("machine", "text", by=lambda text: text.replace("65536", "32")),
            "layer 'conv0': the schedule does not fit",
        ),
        (put("machine", "text", value="name = 3"), "machine: snowflake: missing key 'clock'"),
        (
            edit("constraints", "text", by=lambda text: text.replace("y = 2", "y = 3")),
            "layer 'conv0': the tiles of y are not legal here, or not allowed",
        ),
        (put("constraints", "text", value="[al]"), "constraints: rules.toml:1: al: unknown key"),
        (edit("graph", by=lambda text: text.replace("strides", "stride")), "compile the model again"),
        (put("graph", value="graph net"), "graph: graph text, line 1"),
        (edit("layers", by=without_first), "its graph has a layer 'conv0', for which it has no schedule"),
        (edit("layers", by=lambda layers: layers[::-1]), 'layer \'gemm7\': states name "gemm7", where it is "conv0"'),
        (put("host_layers", value=[]), "states host_layers [], where it is ["),
        (put(*LAYER, "operator", value="Gemm"), 'layer \'conv0\': states operator "Gemm", where it is "Conv"'),
        (put(*LAYER, "schedule", "mode", value="independent"), "mode 'independent' cannot run the layer, or is not"),
        (put(*LAYER, "schedule", "k", value=3), "the tiles of k are not legal here"),
        (put(*LAYER, "schedule", "c", value=0), "the tiles of c are not legal here"),
        (put(*LAYER, "schedule", "y", "size", value=4), "the cut of y has"),
        (put(*LAYER, "schedule", "y", "style", value="uniform"), "y"),
        (put(*LAYER, "schedule", "order", value=["x"]), "loops x are not legal here"),
        (put(*LAYER, "schedule", "buffers", value=[3, 1, 1]), "[3, 1, 1] buffers are not legal"),
        (put(*LAYER, "schedule", "order", 0, value="z"), "layers[0].schedule.order[0]: found 'z'"),
        (edit(*LAYER, "figures", "traffic", "input", 0, by=more), "layer 'conv0': states figures.traffic.input[0] "),
        (put(*LAYER, "figures", "cycles", value=1.5), "layers[0].figures.cycles: found '1.5', expected int"),
        (edit(*LAYER, "proof", "value", by=more), "layer 'conv0': the proof is about"),
        (put(*LAYER, "proof", "bound", value=1), "the bound of 1 bytes proves nothing of"),
        (in_cycles, "cycles do not meet the lower bound of"),
    ],
)
def test_a_changed_artifact_is_refused(saved: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = tampered(saved, tmp_path, change)
    with pytest.raises(UsageFault) as fault:
        artifact.load(path)
    assert str(fault.value).startswith(f"artifact {str(path)!r}: ")
    assert message in str(fault.value)
    assert str(fault.value).endswith("; compile the model again")


def test_an_unchanged_copy_is_accepted(saved: Path, tmp_path: Path) -> None:
    artifact.load(tampered(saved, tmp_path, put("dnnc", value="0.0.1")))


def test_a_newer_artifact_says_so(saved: Path, tmp_path: Path) -> None:
    path = tampered(saved, tmp_path, lambda content: content.update(format=2, dnnc="9.1", novelty={}))
    with pytest.raises(UsageFault, match=r"is of format 2, written by dnnc 9.1; .* formats up to 1: upgrade it, or"):
        artifact.load(path)


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda text: text.replace(b'"optimal"', b'"feasible"', 1), "does not have the sha256 that it states"),
    (lambda text: text[: len(text) // 2], "not a JSON document"),
    (lambda text: b"", "not a JSON document"),
    (lambda text: b"\xff" + text, "not a JSON document"),
    (lambda text: b"[" * 100_000, "not a JSON document"),
    (lambda text: b"[]", "not a JSON object"),
    (lambda text: b"{}", "it states no format"),
    (lambda text: b'{"format": 1}', "has no 'sha256'"),
    (lambda text: b'{"format": 1, "format": 1}', "a key stands twice"),
    (lambda text: b'{"format": NaN}', "NaN is no JSON number"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_artifact_is_refused(
    saved: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "damaged.dnnc"
    path.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(UsageFault) as fault:
        artifact.load(path)
    assert message in str(fault.value)


def test_an_absent_artifact(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="cannot be read: No such file"):
        artifact.load(tmp_path / "absent.dnnc")


# -- writing ----------------------------------------------------------------------------------------------------------


def test_paths_that_cannot_be_written(tmp_path: Path, compiled: Compilation) -> None:
    for path in (tmp_path, tmp_path / "absent" / "a.dnnc", Path("/dev/null")):
        with pytest.raises(UsageFault, match=r"^output .* cannot be written: .*; choose another path$"):
            artifact.check_writable(path)
        with pytest.raises(UsageFault, match="cannot be written"):
            artifact.save(compiled, path)
    assert not list(tmp_path.iterdir())


def test_looking_whether_a_path_can_be_written_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "a.dnnc").write_text("before", "utf-8")
    artifact.check_writable(tmp_path / "a.dnnc")
    artifact.check_writable(tmp_path / "b.dnnc")
    assert [(p.name, p.read_text("utf-8")) for p in tmp_path.iterdir()] == [("a.dnnc", "before")]


def test_files_are_written_all_or_nothing(tmp_path: Path) -> None:
    path, link = tmp_path / "a.json", tmp_path / "link.json"
    documents.write(path, "before")
    link.symlink_to(path)
    with pytest.raises(UnicodeEncodeError):
        documents.write(link, "after \ud800")
    assert path.read_text("utf-8") == "before"
    documents.write(link, "after")
    assert link.is_symlink()
    assert path.read_text("utf-8") == "after"
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    assert len(list(tmp_path.iterdir())) == 2


# -- schedules --------------------------------------------------------------------------------------------------------


def through_json(stored: ScheduleRecord) -> ScheduleRecord:
    return documents.parse(ScheduleRecord, json.loads(json.dumps(documents.plain(stored))))


@given(cases())
@settings(max_examples=20)
def test_any_legal_schedule_reads_back_or_is_none_of_the_search(case: Any) -> None:
    stored = record(case.schedule)
    assert through_json(stored) == stored
    with suppress(Damaged):
        assert restore(stored, Space(case.layer.shape, case.machine)) == case.schedule


@given(st.data())
@settings(max_examples=20)
def test_every_schedule_of_a_space_reads_back(data: st.DataObject) -> None:
    space = Space(data.draw(layers()).shape, data.draw(machines()))
    assume(space.deals)
    deal = data.draw(st.sampled_from(space.deals))
    tables = space.tables(deal)
    active, index = data.draw(st.sampled_from(list(active_sets(tables))))
    order, keep, pin = data.draw(st.sampled_from(list(space.structures(active))))
    buffers = data.draw(st.tuples(*[st.integers(1, 2)] * 3))
    structure = Structure(deal, order, keep, buffers, pin, False)
    at: dict[Dim, Any] = {d: data.draw(st.sampled_from(index[d].tolist())) for d in DIMS}
    tiles = Tiles(grid(tables, index).tables, at)
    pinned = data.draw(st.integers(1, int(tiles.trips[pin[2]]) - 1)) if pin else 0
    schedule = schedule_of(structure, replace(tiles, pinned=pinned))
    legal = not (schedule.move and schedule.pin and schedule.pin.operand == "input")
    model, located = locate(space.shape, space.machine, schedule)
    if legal and fits(space.machine, model.memory(located)):
        assert restore(through_json(record(schedule)), space) == schedule
    else:
        with pytest.raises(Damaged):
            restore(record(schedule), space)


@given(st.data())
@settings(max_examples=20)
def test_what_the_search_finds_reads_back(data: st.DataObject) -> None:
    space = Space(data.draw(layers(6, 5)).shape, data.draw(machines(sizes=(64, 256, 4096))))
    found = best(space)
    if found:
        assert restore(through_json(record(found.schedule)), space) == found.schedule
