"""What users get wrong, from the shell: an exit status and one line that says what, where, and what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from onnx import TensorProto, helper

import dnnc
from dnnc import artifact
from model_builder import ModelBuilder
from zoo import NETWORKS

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("compiler", "runtime"))}

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so all that they start.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dnnc.cli import main; main()"
)  # fmt: skip


def dnnc_command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the program in a folder."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def refused(folder: Path, status: int, *arguments: object) -> str:
    """The one line on stderr with which the program refuses; nothing is on stdout."""
    found = dnnc_command(folder, *arguments)
    assert (found.returncode, found.stdout) == (status, ""), found.stderr
    assert found.stderr.startswith("error: "), found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr


def network(channels: int = 16) -> onnx.ModelProto:
    """Two convolutions with a normalisation between them, which the shipped machines leave to the host."""
    net = ModelBuilder("small", 0)
    x = net.relu(net.conv(net.input(1, channels, 8, 8), "conv1", 16, 3, pad=1), "relu1")
    return net.model(net.conv(net.lrn(x, "norm", 5, 1e-4, 0.75), "conv2", 8, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its artifact."""
    path = tmp_path_factory.mktemp("input")
    onnx.save(network(), path / "small.onnx")
    dnnc.compile(path / "small.onnx").save(path / "small.dnnc")
    return path


# -- models -----------------------------------------------------------------------------------------------------------


def made(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...] = (1, 4), kind: int = TensorProto.FLOAT) -> bytes:
    """A model of nodes from x to y."""
    ends = [helper.make_tensor_value_info("x", kind, shape)], [helper.make_tensor_value_info("y", kind, None)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.example", 1)]
    graph = helper.make_graph(nodes, "bad", *ends)
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def node(operator: str, *names: str, domain: str = "") -> onnx.NodeProto:
    """A node named after its operator; the last name is its output."""
    return helper.make_node(operator, names[:-1], names[-1:], operator.lower(), domain=domain)


def mismatched() -> bytes:
    """A convolution of 16 channels over an input of 8."""
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    return bytes(model.SerializeToString())


MODELS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("bad.onnx", "is empty")),
    "truncated": (network().SerializeToString()[:-64], ("bad.onnx", "cut short")),
    "text": (b"name: not a model\n", ("bad.onnx", "not an ONNX model")),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ("bad.onnx", "not an ONNX model")),
    "cyclic": (made([node("Add", "x", "b", "a"), node("Relu", "a", "b"), node("Tanh", "a", "y")]), ("cycle", "add")),
    "undefined value": (made([node("Add", "x", "nowhere", "y")]), ("nowhere", "add")),
    "value made twice": (made([node("Relu", "x", "y"), node("Tanh", "x", "y")]), ("'y'",)),
    "unknown operator": (made([node("Reluu", "x", "y")]), ("Reluu", "reluu")),
    "unknown attribute": (made([helper.make_node("Relu", ["x"], ["y"], "relu", slope=3)]), ("relu", "slope")),
    "wrong channels": (mismatched(), ("conv1",)),
    "unknown domain": (made([node("Mystery", "x", "y", domain="ai.example")]), ("ai.example", "mystery")),
    "missing extent": (made([node("Relu", "x", "y")], ("batch", 4)), ("'batch'", "--input-shape")),
    "zero extent": (made([node("Relu", "x", "y")], (1, 0)), ("'x'", "0")),
    "strings": (made([node("Identity", "x", "y")], kind=TensorProto.STRING), ("string",)),
    "complex numbers": (made([node("Identity", "x", "y")], kind=TensorProto.COMPLEX64), ("complex64",)),
}
"""Content, and words of the line."""


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model(name: str, tmp_path: Path) -> None:
    content, words = MODELS[name]
    (tmp_path / "bad.onnx").write_bytes(content)
    line = refused(tmp_path, 3, "compile", "bad.onnx", "--no-cache", "-o", "bad.dnnc")
    assert all(word in line for word in words), line
    assert not (tmp_path / "bad.dnnc").exists()


def test_a_missing_model(tmp_path: Path) -> None:
    assert "'absent.onnx': No such file" in refused(tmp_path, 2, "compile", "absent.onnx")
    assert "Is a directory" in refused(tmp_path, 2, "compile", tmp_path)


def test_the_shape_asked_for_mends_a_missing_extent(tmp_path: Path) -> None:
    (tmp_path / "open.onnx").write_bytes(MODELS["missing extent"][0])
    assert dnnc_command(tmp_path, "check", "open.onnx", "--input-shape", "x:2x4").returncode == 0
    assert "'z'" in refused(tmp_path, 2, "check", "open.onnx", "--input-shape", "z:2x4")
    assert "'x'" in refused(tmp_path, 2, "check", "open.onnx", "--input-shape", "x:2x5")


def test_absent_external_data_is_missed_when_numbers_are_wanted(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "large.onnx", save_as_external_data=True, location="large.bin", size_threshold=64)
    (tmp_path / "large.bin").unlink()
    compiled = dnnc_command(tmp_path, "compile", "large.onnx", "--no-cache", "-q", "-o", "large.dnnc")
    assert (compiled.returncode, compiled.stderr) == (0, "")
    line = refused(tmp_path, 3, "run", "large.dnnc")
    assert "conv1.weight" in line
    assert "large.bin" in line


# -- options ----------------------------------------------------------------------------------------------------------


def test_a_target_misspelt(folder: Path) -> None:
    line = refused(folder, 2, "compile", "small.onnx", "--target", "snowflak")
    assert "no target 'snowflak'" in line
    assert "did you mean 'snowflake'?" in line


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    for output in ("absent/small.dnnc", "."):
        assert repr(output) in refused(folder, 2, "compile", "small.onnx", "--no-cache", "-o", output)


def test_no_host_lists_all_nodes_at_once(tmp_path: Path) -> None:
    onnx.save(NETWORKS["googlenet"](), tmp_path / "googlenet.onnx")
    line = refused(tmp_path, 3, "compile", "googlenet.onnx", "--no-host", "--no-cache")
    assert line.startswith("error: 2 node(s) need the host")
    assert re.findall(r"'(\w+)' \(LRN\)", line) == ["norm1", "norm2"]


def test_a_constraint_that_names_no_layer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[[layer]]\nmatch = "conv3"\nmode = "independent"\n')
    line = refused(folder, 2, "compile", "small.onnx", "--no-cache", "--constraints", tmp_path / "rules.toml")
    assert "rules.toml:2" in line
    assert "'conv3' names no layer" in line
    assert "'conv1'" in line


@pytest.mark.parametrize("rule", ['tiles = { y = 7 }\nmode = "cooperative"', "order = []\nsizes = { k = 8 }"])
def test_a_constraint_that_leaves_no_schedule(folder: Path, tmp_path: Path, rule: str) -> None:
    (tmp_path / "rules.toml").write_text(f'[[layer]]\nmatch = "conv1"\n{rule}\n')
    line = refused(folder, 2, "compile", "small.onnx", "--no-cache", "--constraints", tmp_path / "rules.toml")
    assert "layer 'conv1' (Conv): no schedule of snowflake is legal" in line
    assert "rules.toml" in line


# -- what does not fit ------------------------------------------------------------------------------------------------


def machine_file(path: Path, **sizes: int) -> Path:
    """two-buffer with memories of so many bytes."""
    target = dnnc.load_machine("two-buffer")
    for name, size in sizes.items():
        target = target.with_memory(name, size)
    path.write_text(target.text)
    return path


@pytest.mark.parametrize("sizes", [{"weights": 4}, {"maps": 16}, {"maps": 16, "weights": 2}])
def test_what_does_not_fit_names_the_smallest_sizes_that_do(tmp_path: Path, sizes: dict[str, int]) -> None:
    net = ModelBuilder("one", 0)
    onnx.save(net.model(net.conv(net.input(1, 8, 6, 6), "conv", 4, 3, pad=1)), tmp_path / "one.onnx")

    def compiled(sizes: dict[str, int]) -> subprocess.CompletedProcess[str]:
        target = machine_file(tmp_path / "tiny.toml", **sizes)
        return dnnc_command(tmp_path, "compile", "one.onnx", "--no-cache", "-q", "--target", target)

    refusal = compiled(sizes)
    line = refusal.stderr
    assert (refusal.returncode, refusal.stdout, line.count("\n")) == (4, "", 1), line
    assert line.startswith("error: layer 'conv' (Conv) does not fit two-buffer: "), line
    found = re.findall(r"memory '(\w+)' has ([\d,]+) B and lacks ([\d,]+) B: [^:;]* is ([\d,]+) B", line)
    named = {name: [int(figure.replace(",", "")) for figure in figures] for name, *figures in found}
    assert {name: has for name, (has, _, _) in named.items()} == sizes
    assert all(lacks == smallest - has > 0 for has, lacks, smallest in named.values())
    enough = {name: smallest for name, (_, _, smallest) in named.items()}
    assert compiled(enough).returncode == 0
    for name, smallest in enough.items():
        assert compiled({**enough, name: smallest - 2}).returncode == 4


# -- artifacts --------------------------------------------------------------------------------------------------------


def changed(folder: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The artifact with a member changed."""
    content = json.loads((folder / "small.dnnc").read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_corrupted_artifact(folder: Path, tmp_path: Path, command: str) -> None:
    content = (folder / "small.dnnc").read_bytes()
    cut, flipped = tmp_path / "cut.dnnc", tmp_path / "flipped.dnnc"
    cut.write_bytes(content[: len(content) // 2])
    flipped.write_bytes(content.replace(b'"k":16', b'"k":15', 1))
    assert flipped.read_bytes() != content
    assert "cut.dnnc': not a JSON document" in refused(folder, 2, command, cut)
    assert "flipped.dnnc': it does not have the sha256" in refused(folder, 2, command, flipped)


def test_a_newer_artifact(folder: Path, tmp_path: Path) -> None:
    newer = changed(folder, tmp_path / "newer.dnnc", lambda content: content.update(format=content["format"] + 1, dnnc="9.0"))
    line = refused(folder, 2, "inspect", newer)
    assert "written by a newer dnnc (9.0)" in line
    assert "upgrade dnnc" in line


def test_an_artifact_of_another_model(folder: Path, tmp_path: Path) -> None:
    onnx.save(network(channels=8), tmp_path / "other.onnx")
    line = refused(folder, 2, "run", folder / "small.dnnc", "--model", tmp_path / "other.onnx")
    assert "is not the one that was compiled" in line


# -- machine-readable output ------------------------------------------------------------------------------------------

BYTES = {"type": "integer", "minimum": 0}
MOVED = {"type": "object", "required": ["read", "write"], "additionalProperties": BYTES}
TOTALS = ("dram_bytes", "dram_read_bytes", "dram_write_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes",
          "host_bytes", "macs", "valid_ops")  # fmt: skip
TRAFFIC = ("input", "weights", "bias", "residual", "output", "partial_sums", "other")
LAYER = ("name", "operator", "nodes", "dims", "mode", "dataflow", "order", "tiles", "tile_counts", "residency", "halo",
         "fused", "traffic", "dram_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes", "cycles", "memory",
         "proof")  # fmt: skip


def members(names: tuple[str, ...], of: object, **known: object) -> dict[str, Any]:
    """The JSON Schema of an object that has these members."""
    return {"type": "object", "required": [*names], "properties": {**dict.fromkeys(names, of), **known}}


OUTPUT = members(
    ("status", "totals", "layers"),
    True,
    status={"enum": ["optimal", "feasible"]},
    totals=members(TOTALS, BYTES),
    layers={
        "type": "array",
        "minItems": 1,
        "items": members(
            LAYER,
            True,
            traffic=members(TRAFFIC, MOVED),
            memory={"type": "object", "additionalProperties": BYTES},
            dram_bytes=BYTES,
            bus_bytes=BYTES,
            compulsory_bytes=BYTES,
            lower_bound_bytes=BYTES,
            cycles=BYTES,
            proof=members(("bound_bytes", "gap", "deterministic_time"), {"type": "number", "minimum": 0}, status=True),
        ),
    },
)
"""What ``dnnc compile --json`` prints at least."""


def test_json_is_all_there_is_on_stdout(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.dnnc"
    found = dnnc_command(folder, "compile", "small.onnx", "--no-cache", "--json", "-v", "-o", output)
    assert found.returncode == 0, found.stderr
    data = json.loads(found.stdout)
    jsonschema.validate(data, OUTPUT)
    layers = data["layers"]
    for figure in ("dram_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes", "macs", "valid_ops"):
        assert data["totals"][figure] == sum(layer[figure] for layer in layers), figure
    for layer in layers:
        assert layer["dram_bytes"] == sum(way for moved in layer["traffic"].values() for way in moved.values())
    schema = json.loads(Path(artifact.__file__).with_name("artifact.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(output.read_text("utf-8")), schema)


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_the_solver_leaves_ctrl_c_to_python(tmp_path: Path) -> None:
    """A solver that takes over the signal leaves the process without a handler, to die at the next."""
    code = (
        "import signal, onnx\n"
        "from dnnc.layer import Shape\n"
        "from dnnc.proof import minimum\n"
        "from dnnc.space import Space\n"
        "from dnnc_runtime.machine import load\n"
        "from dnnc_runtime.program import Window\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "target = load('two-buffer').with_memory('maps', 64).with_memory('weights', 32)\n"
        "solved = minimum(Space(Shape('array', 1, 1, 4, 4, Window(6, 6), Window(6, 6)), target))\n"
        "assert solved.structures[1] and solved.closed, solved\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('seen')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "seen\n"), found.stderr


def searched_long() -> onnx.ModelProto:
    """Convolutions that miss their lower bounds on snowflake, so that the solver proves each: seconds a layer."""
    net = ModelBuilder("long", 0)
    x = net.input(1, 128, 56, 56)
    for i, (k, stride) in enumerate(((256, 1), (256, 2), (512, 1), (512, 1), (480, 1), (448, 1), (416, 1))):
        x = net.relu(net.conv(x, f"conv{i}", k, 3, stride=stride, pad=1), f"relu{i}")
    return net.model(x)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_ctrl_c_in_the_search_gives_the_best_so_far(tmp_path: Path, seconds: float) -> None:
    onnx.save(searched_long(), tmp_path / "long.onnx")
    command = [sys.executable, "-c", PROGRAM, "compile", "long.onnx", "--no-cache", "-v", "--json", "-o", "long.dnnc"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        while not process.stderr.readline().endswith("lower\n"):
            assert process.poll() is None
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "not proven" in err
    data = json.loads(out)
    jsonschema.validate(data, OUTPUT)
    assert (data["status"], data["interrupted"]) == ("feasible", True)
    assert data["layers"][-1]["proof"]["status"] == "feasible"
    inspected = dnnc_command(tmp_path, "inspect", "long.dnnc", "--json")
    assert json.loads(inspected.stdout)["status"] == "feasible"
