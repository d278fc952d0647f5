"""Artifacts: written and read back to equal compilations, in the published form; whatever is off is refused."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator, Mapping
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
from dnnc import artifact, cuts, documents
from dnnc.agreement import agree
from dnnc.chip import Chip
from dnnc.constraints import loads
from dnnc.documents import Damaged
from dnnc.emit import emit
from dnnc.enumerate import best
from dnnc.pipeline import Compilation
from dnnc.plan import Plan
from dnnc.realize import Misfit, realize
from dnnc.records import Document
from dnnc.replay import moved_bytes
from dnnc.schedule import DIMS, Dim
from dnnc.schedule_records import ScheduleRecord, record, restore
from dnnc.segments import SCOPES, Alone, Best, Network, Segment, Strips
from dnnc.space import Space, active_sets, fits, grid, locate, schedule_of
from dnnc.steps import Steps, steps_of
from dnnc.structure import Structure, Tiles
from dnnc.together import alone_of, with_network
from dnnc_runtime import machine as targets
from dnnc_runtime.errors import ModelFault, UsageFault
from dnnc_runtime.machine import Machine
from lowering import Net
from strategies import cases, layers, machines

PLAIN: Mapping[str, object] = {
    "bounds": [],
    "entering": [],
    "leaving": [],
    "spilled": [],
    "handed": [],
    "schedule": None,
}
"""All of a segment of one layer by itself but its position."""

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
    return by_itself(folder)


def by_itself(folder: Path) -> Compilation:
    """Every layer from DRAM to DRAM."""
    rules = folder / "rules.toml"
    return dnnc.compile(folder / "net.onnx", constraints=rules, objective="balanced", plan="layerwise")


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
    by_itself(folder).save(folder / "again.dnnc")
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
    content[member] = True if value is None and member in ("constraints", "network") else value
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


def less(value: int) -> int:
    return value - 2


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
        (put("format", value=1), "is of format 1, which is no longer read"),
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
    path = tampered(saved, tmp_path, lambda content: content.update(format=5, dnnc="9.1", novelty={}))
    with pytest.raises(UsageFault, match=r"is of format 5, written by dnnc 9.1; .* formats up to 4: upgrade it, or"):
        artifact.load(path)


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda text: text.replace(b'"optimal"', b'"feasible"', 1), "does not have the sha256 that it states"),
    (lambda text: text[: len(text) // 2], "not a JSON document"),
    (lambda text: b"", "not a JSON document"),
    (lambda text: b"\xff" + text, "not a JSON document"),
    (lambda text: b"[" * 100_000, "not a JSON document"),
    (lambda text: b"[]", "not a JSON object"),
    (lambda text: b"{}", "it states no format"),
    (lambda text: b'{"format": 4}', "has no 'sha256'"),
    (lambda text: b'{"format": 4, "format": 4}', "a key stands twice"),
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


# -- layers together --------------------------------------------------------------------------------------------------


def chain() -> onnx.ModelProto:
    """Convolutions that only strips can run on chip, a concatenation, and a sum over all of them."""
    net = Net(x=(1, 4, 16, 16))
    first = net.op("Relu", net.conv("x", 4, 8))
    third = net.op("Relu", net.conv(net.op("Relu", net.conv(first, 8, 8)), 8, 16))
    both = net.op("Concat", net.conv(third, 16, 8, 1), net.conv(third, 16, 8), axis=1)
    net.conv(net.op("Relu", net.op("Add", net.conv(both, 16, 8), first)), 8, 4, 1)
    return net.model()


TOGETHER = {
    "strips beside rows that stay": ("two-buffer", 2048),
    "fewer rows than there were": ("two-buffer", 4096),
    "layer by layer but on chip": ("two-buffer", 16384),
    "by itself, too": ("two-buffer", 1024),
    "units with a halo each": ("snowflake", 4096),
}
"""Targets, and bytes of feature maps with which a plan is of this kind."""


def small(kind: str) -> Machine:
    target, size = TOGETHER[kind]
    machine = targets.load(target)
    return machine.with_memory(machine.memory_of("output").name, size)


@pytest.fixture(scope="module", params=TOGETHER)
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Compilation, Path]:
    """A compilation whose layers run together, and its artifact."""
    folder = tmp_path_factory.mktemp("together")
    onnx.save(chain(), str(folder / "net.onnx"))
    compilation = dnnc.compile(folder / "net.onnx", small(request.param))
    compilation.save(folder / "net.dnnc")
    return compilation, folder / "net.dnnc"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / "net.dnnc"
    with pytest.MonkeyPatch.context() as patch:
        # In blocks of columns a group leaves no rows to the next one, which is what is changed here.
        patch.setattr(cuts, "BLOCKS", ())
        dnnc.compile(chain(), small("strips beside rows that stay")).save(path)
    return path


def test_a_plan_for_all_layers_reads_back(together: tuple[Compilation, Path], tmp_path: Path) -> None:
    compiled, path = together
    jsonschema.validate(json.loads(path.read_bytes()), SCHEMA)
    loaded = artifact.load(path)
    assert loaded.plan == compiled.plan
    assert loaded.program == compiled.program
    assert loaded.counted == compiled.counted
    artifact.attach(loaded).save(path.with_name("again.dnnc"))
    assert path.with_name("again.dnnc").read_bytes() == path.read_bytes()


def test_a_plan_for_all_layers_runs(together: tuple[Compilation, Path]) -> None:
    loaded = artifact.attach(artifact.load(together[1], walk=False))
    values = {"x": np.random.default_rng(0).standard_normal((1, 4, 16, 16))}
    for numbers in ("float32", "fixed"):
        found = dnnc.verify(loaded, values, numbers)
        assert found.agree
        assert found.counted == together[0].counted


def test_scopes_read_back_as_what_they_are(tmp_path: Path) -> None:
    moved: list[int] = []
    for scope in SCOPES:
        dnnc.compile(chain(), small("strips beside rows that stay"), plan=scope).save(tmp_path / "net.dnnc")
        plan = artifact.load(tmp_path / "net.dnnc").plan
        assert (plan.network.scope if plan.network else "layerwise") == scope
        moved.append(plan.totals.dram_bytes)
    assert moved == sorted(moved, reverse=True)
    assert len({*moved}) == len(SCOPES)


def test_layers_that_a_user_constrains_run_by_themselves(folder: Path, tmp_path: Path) -> None:
    onnx.save(chain(), str(tmp_path / "net.onnx"))
    compiled = dnnc.compile(tmp_path / "net.onnx", "two-buffer", constraints=loads(RULES, "rules.toml"))
    compiled.save(tmp_path / "net.dnnc")
    assert artifact.load(tmp_path / "net.dnnc").plan == compiled.plan
    # Without the rules, the first layers would be free to run together: another plan than the one that is stored.
    path = tampered(tmp_path / "net.dnnc", tmp_path, put("network", "segments", 0, "bounds", value=[16]))
    with pytest.raises(UsageFault, match="network: segment 0: its layers cannot run by strips"):
        artifact.load(path)


RULES = '[[layer]]\nmatch = "conv0"\ntiles = { y = 2 }\n'


def whole(content: dict[str, Any]) -> None:
    """One strip in place of many, with the figures as they were."""
    content["network"]["segments"][0]["bounds"] = [16]


def joined(content: dict[str, Any]) -> None:
    """All segments as one."""
    segments = content["network"]["segments"]
    rows = list(range(1, 17))
    positions = list(range(segments[-1]["positions"][-1] + 1))
    segments[:] = [{**PLAIN, "positions": positions, "bounds": rows, "columns": []}]


def forgotten(content: dict[str, Any]) -> None:
    """Rows that are needed later, and not said to stay."""
    for segment in content["network"]["segments"][:2]:
        segment["leaving"] = []
    content["network"]["segments"][1]["entering"] = []


def apart(content: dict[str, Any]) -> None:
    """Layer by layer, with the figures of layers that run together."""
    count = content["network"]["segments"][-1]["positions"][-1] + 1
    content["network"]["segments"] = [{**PLAIN, "positions": [at], "columns": []} for at in range(count)]


def no_network(content: dict[str, Any]) -> None:
    """Layer by layer, as of a plan that was not searched for."""
    content["network"] = None


SEGMENT = ("network", "segments", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("status", value="feasible"), 'states status "feasible", where it is "optimal"'),
        (no_network, "states "),
        (put("network", "scope", value="layerwise"), "network: layers run together, though each is to run by itself"),
        (put("network", "scope", value="resident"), "network: the best plans are of layerwise, resident, fused, exp"),
        (put("network", "scope", value="all"), "network.scope: found 'all'"),
        (
            edit("network", "best", by=lambda best: {"fused": best["fused"]}),
            "network: the best plans are of fused, exp",
        ),
        (edit("network", "best", "layerwise", "bytes", by=more), "network: layerwise: bytes of "),
        (edit("network", "best", "layerwise", "bound", by=less), "network: layerwise: bound of "),
        (put("network", "best", "resident", "bytes", value=1), "network: resident: a bound of "),
        (
            put("network", "best", "resident", "bytes", value=10**9),
            "network: resident: 1,000,000,000 bytes, where a nar",
        ),
        (edit("network", "best", "fused", "bytes", by=more), "network: the plan is said to move "),
        (edit("network", "best", "fused", "bytes", by=less), "network: fused: a bound of "),
        (edit("network", "best", "fused", "bound", by=more), "network: fused: a bound of "),
        (put("network", "best", "fused", "bound", value=10), "network: fused: a bound of 10 bytes, which is not from"),
        (edit("network", "best", "fused", "bound", by=less), 'states status "optimal", where it is "feasible"'),
        (put("network", "segments", value=[]), "network: the segments are of 0 layers, the network has 7"),
        (edit("network", "segments", by=without_first), "network: segment 0: layer 3 cannot be next"),
        (edit("network", "segments", by=lambda s: s[:-1]), "network: the segments are of 5 layers, the network has 7"),
        (edit("network", "segments", by=lambda s: s[::-1]), "network: segment 0: layer 5 cannot be next"),
        (edit("network", "segments", by=lambda s: [*s, s[-1]]), "network: segment 3: layer 5 cannot be next"),
        (put("network", "segments", 2, "positions", value=[5, 6, 7]), "network: segment 2: there is no layer 7"),
        (put("network", "segments", 2, "positions", value=[]), "network: segment 2: its layers are not in order"),
        (put("network", "segments", 2, "positions", value=[6, 5]), "network: segment 2: its layers are not in order"),
        (put(*SEGMENT, "bounds", value=[]), "network: segment 1: several layers, or rows on chip, but no strips"),
        (put(*SEGMENT, "bounds", value=[0, 16]), "network: segment 1: its strips do not end one after the other"),
        (put(*SEGMENT, "bounds", value=[8, 8, 16]), "network: segment 1: its strips do not end one after the other"),
        (put(*SEGMENT, "bounds", value=[8, 15]), "network: segment 1: its strips do not end one after the other, and "),
        (put(*SEGMENT, "bounds", value=[8, 10**30]), "network: segment 1: its strips do not end one after the other"),
        (
            put(*SEGMENT, "entering", value=[[1, 0]]),
            "network: segment 1: 0 lines of map 1 on chip, where a unit has 16",
        ),
        (put(*SEGMENT, "entering", value=[[1, 17]]), "network: segment 1: 17 lines of map 1 on chip, where a unit has"),
        (put(*SEGMENT, "entering", value=[[-1, 1]]), "network: segment 1: map -1 cannot stay on chip"),
        (put(*SEGMENT, "entering", value=[[99, 1]]), "network: segment 1: map 99 cannot stay on chip"),
        (put(*SEGMENT, "entering", value=[[1, 1], [1, 1]]), "network: segment 1: its maps are not in order"),
        (
            put(*SEGMENT, "leaving", value=[]),
            "network: segment 2: 1 lines of map 5 are not on chip when it starts",
        ),
        (
            put(*SEGMENT, "entering", value=[[1, 2]]),
            "network: segment 1: maps that its layers do not read are not as t",
        ),
        (put("network", "segments", 2, "entering", value=[[1, 2]]), "segment 2: 2 lines of map 1 are not on chip when"),
        (put("network", "segments", 0, "entering", value=[[0, 1]]), "segment 0: 1 lines of map 0 are not on chip when"),
        (put("network", "segments", 0, "leaving", value=[[1, 16]]), "segment 0: there is no room for its rows on chip"),
        (put(*SEGMENT, "spilled", value=[0]), "network: segment 1: maps do not wait for the next strip, or go tile by"),
        (put(*SEGMENT, "handed", value=[99]), "network: segment 1: maps do not wait for the next strip, or go tile by"),
        (whole, "network: segment 0: there is no room for its rows on chip"),
        (joined, "network: segment 0: there is no room for its rows on chip"),
        (forgotten, "network: segment 2: 1 lines of map 5 are not on chip when it starts"),
        (apart, "network: the plan is said to move "),
        (put(*LAYER, "strips", value=15), "layer 'conv0': states strips 15, where it is 16"),
        (put(*LAYER, "alone", value=None), "layer 'conv0': states alone null, where it is "),
        (edit(*LAYER, "alone", "cycles", by=more), "layer 'conv0': states alone.cycles "),
        (edit(*LAYER, "figures", "traffic", "input", 0, by=more), "layer 'conv0': states figures.traffic.input[0] "),
        (edit(*LAYER, "figures", "bus", "input", 0, by=more), "layer 'conv0': states figures.bus.input[0] "),
        (edit(*LAYER, "figures", "cycles", by=more), "layer 'conv0': states figures.cycles "),
        (edit("totals", "dram_bytes", by=more), "states totals.dram_bytes "),
        (edit("machine", "text", by=lambda text: text.replace("2048", "4096")), "compile the model again"),
    ],
)
def test_a_changed_plan_is_refused(fused: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = tampered(fused, tmp_path, change)
    with pytest.raises(UsageFault) as fault:
        artifact.load(path)
    assert message in str(fault.value)
    assert str(fault.value).startswith(f"artifact {str(path)!r}: ")
    assert str(fault.value).endswith("; compile the model again")


def places(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all members and items."""
    if where:
        yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*where, key))


def changed(data: st.DataObject, value: Any) -> Any:
    """Another value in a value's place."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return data.draw(st.sampled_from([None, True, "", "fused", "layerwise", 0, [], {}]))
    if isinstance(value, int):
        return data.draw(st.one_of(st.integers(value - 3, value + 3), st.sampled_from([0, -1, 1, 2**63, 10**40, None])))
    if isinstance(value, list):
        some = data.draw(st.lists(st.sampled_from(value or [0, 1, []]), max_size=len(value) + 1))
        return data.draw(st.sampled_from([some, value[1:], value[:-1], value[::-1], value + value[-1:]]))
    return data.draw(st.sampled_from([{}, None, [], {**value, "more": 1}, dict(list(value.items())[1:])]))


@given(st.data())
@settings(max_examples=40)
def test_whatever_is_changed_is_refused_or_makes_no_difference(
    together: tuple[Compilation, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    compiled, path = together

    def change(content: dict[str, Any]) -> None:
        parts = [("network",)] * 3 + [("layers",), ("totals",), ("status",)]
        for _ in range(data.draw(st.integers(1, 3))):
            (part,) = data.draw(st.sampled_from(parts))
            where = data.draw(st.sampled_from([(part, *rest) for rest in [(), *places(content[part])]]))
            with suppress(KeyError, IndexError, TypeError):
                edit(*where, by=lambda value: changed(data, value))(content)
                return

    copy = tampered(path, tmp_path_factory.mktemp("changed"), change)
    # Anything else that is raised is a defect.
    with suppress(UsageFault):
        loaded = artifact.load(copy)
        assert loaded.plan.totals == compiled.plan.totals
        # Strips may be cut elsewhere at equal bytes and cycles: another program of the same traffic.
        assert loaded.counted.payload == compiled.counted.payload


@st.composite
def plans(draw: st.DrawFn, steps: Steps, units: int) -> list[Segment]:
    """Segments such as a search might find, not all of which can run."""
    segments: list[Segment] = []
    held: dict[int, int] = {}
    first = 0
    while first < len(steps.at):
        if draw(st.integers(0, 4)) == 0:
            segments.append(Alone(first))
            first += 1
            continue
        stop = draw(st.integers(first + 1, len(steps.at)))
        numbers = [number for position in range(first, stop) for number in steps.at[position]]
        rows = steps.steps[numbers[-1]].layer.shape.y.out
        entering = {m: draw(st.integers(1, each)) for m, each in held.items() if draw(st.booleans())}
        local = {m for number in numbers for read in steps.steps[number].reads for m in read.maps}
        local |= {steps.steps[number].map for number in numbers}
        blocks = {m: -(-steps.maps[m].lines // units) for m in local if not steps.maps[m].why}
        leaving = {m: each for m, each in entering.items() if m not in local}
        leaving |= {m: draw(st.integers(1, block)) for m, block in blocks.items() if draw(st.booleans())}
        bounds = sorted(draw(st.sets(st.integers(1, rows - 1), max_size=rows))) if rows > 1 else []
        columns: tuple[int, ...] = ()
        across = steps.steps[numbers[-1]].layer.shape.x.out
        if across > 1 and draw(st.booleans()):
            entering = {m: each for m, each in entering.items() if m not in local}
            leaving = dict(entering)
            columns = (draw(st.integers(1, across - 1)), across)
        before, behind = (tuple(sorted(lines.items())) for lines in (entering, leaving))
        segments.append(Strips(tuple(range(first, stop)), (*bounds, rows), before, behind, columns))
        held, first = leaving, stop
    return segments


@given(st.data())
@settings(max_examples=40)
def test_plans_that_can_run_move_what_was_found_without_places(
    together: tuple[Compilation, Path], data: st.DataObject
) -> None:
    compiled = together[0]
    memory = compiled.machine.memory_of("output")
    machine = compiled.machine.with_memory(memory.name, memory.bytes * data.draw(st.sampled_from([1, 2, 4, 16])))
    apart = Plan(machine, compiled.plan.objective, tuple(
        replace(layer, figures=layer.by_itself, alone=None, strips=0) for layer in compiled.plan.on_array
    ))  # fmt: skip
    chip, alone = Chip(machine), alone_of(apart)
    steps = steps_of(compiled.lowered)
    segments = data.draw(plans(steps, chip.units))
    try:
        moved = moved_bytes(segments, steps, chip, alone)
    except Damaged:
        return
    made = realize(steps, chip, segments, alone)
    if isinstance(made, Misfit):
        return
    found = with_network(apart, Network("fused", tuple(segments), {"fused": Best(moved, moved)}), made)
    assert found.totals.dram_bytes == moved
    agree(found, emit(compiled.lowered, dict(found.schedules), machine, made))


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
