"""What users get wrong, from the shell: an exit status and one line that says what, where, and what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from onnx import TensorProto, helper

import dnnc
from dnnc import artifact, documents
from dnnc.capacity import ways
from dnnc.cli.program import status
from dnnc.layer import Shape
from dnnc.schedule import Dim
from dnnc.space import Limits, Space
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.program import Window
from model_builder import ModelBuilder
from zoo import NETWORKS

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("compiler", "runtime"))}


@dataclass(frozen=True)
class Program:
    """The program ``dnnc``, run in this process and a folder of its own."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command; what libraries write to them is seen too."""
        self.capture.readouterr()
        ended = status([str(argument) for argument in arguments])
        out, err = self.capture.readouterr()
        return ended, out, err

    def refuses(self, expected: int, *arguments: object) -> str:
        """The one line on stderr with which a command ends; nothing is on stdout."""
        status, out, err = self.run(*arguments)
        assert (status, out) == (expected, ""), err
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        return err


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    monkeypatch.chdir(tmp_path)
    return Program(tmp_path, capfd)


def network(channels: int = 16) -> onnx.ModelProto:
    """Two convolutions with a normalisation between them, which the shipped machines leave to the host."""
    net = ModelBuilder("small", 0)
    x = net.relu(net.conv(net.input(1, channels, 8, 8), "conv1", 16, 3, pad=1), "relu1")
    return net.model(net.conv(net.lrn(x, "norm", 5, 1e-4, 0.75), "conv2", 8, 1))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a model, beside its artifact ``small.dnnc``."""
    path = tmp_path_factory.mktemp("input") / "small.onnx"
    onnx.save(network(), path)
    dnnc.compile(path).save(path.with_suffix(".dnnc"))
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
def test_a_bad_model(program: Program, name: str) -> None:
    content, words = MODELS[name]
    (program.folder / "bad.onnx").write_bytes(content)
    line = program.refuses(3, "compile", "bad.onnx", "--no-cache", "-o", "bad.dnnc")
    assert all(word in line for word in words), line
    assert not (program.folder / "bad.dnnc").exists()


def test_a_missing_model(program: Program) -> None:
    assert "'absent.onnx': No such file" in program.refuses(2, "compile", "absent.onnx")
    assert "Is a directory" in program.refuses(2, "compile", program.folder)


def test_the_shell_sees_status_and_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dnnc", "compile", "absent.onnx"]
    found = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: model 'absent.onnx': No such file or directory; give the path of an ONNX file\n"


def test_the_shape_asked_for_mends_a_missing_extent(program: Program) -> None:
    (program.folder / "open.onnx").write_bytes(MODELS["missing extent"][0])
    assert program.run("check", "open.onnx", "--input-shape", "x:2x4")[0] == 0
    assert "its inputs are x" in program.refuses(2, "check", "open.onnx", "--input-shape", "z:2x4")
    assert "x" in program.refuses(2, "check", "open.onnx", "--input-shape", "x:2x5")


def test_absent_external_data_is_missed_when_numbers_are_wanted(program: Program) -> None:
    path = program.folder / "large.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="large.bin", size_threshold=0)
    (program.folder / "large.bin").unlink()
    assert program.run("compile", "large.onnx", "--no-cache", "-q", "-o", "large.dnnc")[::2] == (0, "")
    line = program.refuses(3, "run", "large.dnnc")
    assert re.match(r"error: tensor 'conv1\.\w+': its external data file 'large\.bin' is absent", line), line


# -- options ----------------------------------------------------------------------------------------------------------


def test_a_target_misspelt(program: Program, small: Path) -> None:
    line = program.refuses(2, "compile", small, "--target", "snowflak")
    assert "no target 'snowflak'" in line
    assert "did you mean 'snowflake'?" in line


def test_an_output_that_cannot_be_written(program: Program, small: Path) -> None:
    for output in ("absent/small.dnnc", "."):
        assert repr(output) in program.refuses(2, "compile", small, "--no-cache", "-o", output)


def test_an_output_that_is_read_is_refused_by_any_name(program: Program) -> None:
    """The model, its data, the constraints and the machine keep their content; any other file is written over."""
    onnx.save(network(), program.folder / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    (program.folder / "rules.toml").write_text("[all]\n")
    (program.folder / "machine.toml").write_text(dnnc.load_machine("snowflake").text)
    (program.folder / "link").symlink_to("m.onnx")
    os.link(program.folder / "m.bin", program.folder / "hard")
    asked = "compile", "m.onnx", "--no-cache", "-q", "--constraints", "rules.toml", "--target", "machine.toml", "-o"
    for output in (
        "m.onnx",
        "./m.onnx",
        program.folder / "m.onnx",
        "link",
        "m.bin",
        "hard",
        "rules.toml",
        "machine.toml",
    ):
        before = Path(output).read_bytes()
        line = program.refuses(2, *asked, output)
        assert re.search(r"output '.*' is the file '.*', which is read; choose another path", line), line
        assert Path(output).read_bytes() == before
    (program.folder / "old.dnnc").write_text("of an earlier run")
    assert program.run(*asked, "old.dnnc")[0] == 0
    with pytest.raises(UsageFault, match="is the file"):
        dnnc.load("old.dnnc").save("m.onnx")


def test_no_host_lists_all_nodes_at_once(program: Program) -> None:
    onnx.save(NETWORKS["googlenet"](), program.folder / "googlenet.onnx")
    line = program.refuses(3, "compile", "googlenet.onnx", "--no-host", "--no-cache")
    assert line.startswith("error: 2 node(s) need the host")
    assert re.findall(r"'(\w+)' \(LRN\)", line) == ["norm1", "norm2"]


def test_a_constraint_that_names_no_layer(program: Program, small: Path) -> None:
    (program.folder / "rules.toml").write_text('[[layer]]\nmatch = "conv3"\nmode = "independent"\n')
    line = program.refuses(2, "compile", small, "--no-cache", "--constraints", "rules.toml")
    assert "rules.toml:2" in line
    assert "'conv3' names no layer" in line
    assert "'conv1'" in line


@pytest.mark.parametrize("rule", ['tiles = { y = 7 }\nmode = "cooperative"', "order = []\nsizes = { k = 8 }"])
def test_a_constraint_that_leaves_no_schedule(program: Program, small: Path, rule: str) -> None:
    (program.folder / "rules.toml").write_text(f'[[layer]]\nmatch = "conv1"\n{rule}\n')
    line = program.refuses(2, "compile", small, "--no-cache", "--constraints", "rules.toml")
    assert "layer 'conv1' (Conv): no schedule of snowflake is legal" in line
    assert "rules.toml" in line


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [{"weights": 4}, {"maps": 16}, {"maps": 16, "weights": 2}])
def test_what_does_not_fit_names_the_smallest_sizes_that_do(program: Program, sizes: dict[str, int]) -> None:
    net = ModelBuilder("one", 0)
    onnx.save(net.model(net.conv(net.input(1, 2, 3, 3), "conv", 2, 3, pad=1)), program.folder / "one.onnx")

    def command(sizes: dict[str, int]) -> tuple[object, ...]:
        target = dnnc.load_machine("two-buffer")
        for name, size in sizes.items():
            target = target.with_memory(name, size)
        (program.folder / "tiny.toml").write_text(target.text)
        return "compile", "one.onnx", "--no-cache", "-q", "--target", "tiny.toml"

    line = program.refuses(4, *command(sizes))
    assert line.startswith("error: layer 'conv' (Conv) does not fit two-buffer: "), line
    for way in line.split("; or "):
        found = re.findall(r"memory '(\w+)' has ([\d,]+) B and lacks ([\d,]+) B: [^:;,]* is ([\d,]+) B", way)
        named = {name: [int(figure.replace(",", "")) for figure in figures] for name, *figures in found}
        assert {name: has for name, (has, _, _) in named.items()} == sizes
        assert all(lacks == smallest - has > 0 for has, lacks, smallest in named.values())
        enough = {name: smallest for name, (_, _, smallest) in named.items()}
        assert program.run(*command(enough))[0] == 0
        for name, smallest in enough.items():
            program.refuses(4, *command({**enough, name: smallest - 2}))


def test_where_either_memory_would_do_the_smaller_shortage_comes_first() -> None:
    """A layer in one tile, 16 to 16 planes of 8x8, 3x3, in bytes of one unit's maps and one vMAC's weights:

    combined: 4 of 8 rows, 16 planes of 2 rows out: 1024 + 512; 4 kernels of 288: 1152.
    cooperative: all rows, 4 planes out: 2048 + 512; one kernel: 288.
    """
    square = Window(8, 8, 3, pad=1, pad_after=1)
    tiles: tuple[tuple[Dim, int], ...] = (("y", 1), ("x", 1), ("k", 1), ("c", 1))
    limits = Limits(modes=("cooperative", "combined"), counts=tiles, move=False)

    def enough(maps: int, weights: int) -> list[list[tuple[str, int]]]:
        machine = dnnc.load_machine("snowflake").with_memory("maps", maps).with_memory("weights", weights)
        found = ways(Space(Shape("array", 1, 1, 16, 16, square, square), machine, limits))
        return [[(memory.name, memory.lacks) for memory in way] for way in found]

    assert enough(1536, 1150) == [[("weights", 2)], [("maps", 1024)]]
    assert enough(2558, 288) == [[("maps", 2)], [("weights", 864)]]
    assert enough(1534, 286) == [[("maps", 2), ("weights", 866)], [("maps", 1026), ("weights", 2)]]
    assert enough(1534, 1152) == [[("maps", 2)]]
    assert enough(2560, 286) == [[("weights", 2)]]


# -- artifacts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_corrupted_artifact(program: Program, small: Path, command: str) -> None:
    content = small.with_suffix(".dnnc").read_text("utf-8")
    (program.folder / "cut.dnnc").write_text(content[: len(content) // 2])
    (program.folder / "other.dnnc").write_text(content.replace('"optimal"', '"feasible"', 1))
    assert "'cut.dnnc': not a JSON document" in program.refuses(2, command, "cut.dnnc")
    assert "'other.dnnc': its content does not have the sha256" in program.refuses(2, command, "other.dnnc")


def test_a_newer_artifact(program: Program, small: Path) -> None:
    content = json.loads(small.with_suffix(".dnnc").read_text("utf-8"))
    newer = {**content, "format": content["format"] + 1, "dnnc": "9.0"}
    (program.folder / "newer.dnnc").write_text(json.dumps(newer))
    line = program.refuses(2, "inspect", "newer.dnnc")
    assert "written by dnnc 9.0" in line
    assert "upgrade it" in line


def test_a_changed_figure_is_named_with_both_values(program: Program, small: Path) -> None:
    content = json.loads(small.with_suffix(".dnnc").read_text("utf-8"))
    true = content["layers"][1]["figures"]["memory"]["maps"]
    content["layers"][1]["figures"]["memory"]["maps"] = true + 2
    del content["sha256"]
    (program.folder / "bad.dnnc").write_text(json.dumps({**content, "sha256": documents.digest(content)}))
    line = program.refuses(2, "inspect", "bad.dnnc")
    assert f"layer 'conv2': states figures.memory.maps {true + 2}, where it is {true}; compile" in line


def test_an_artifact_of_another_model(program: Program, small: Path) -> None:
    onnx.save(network(channels=8), program.folder / "other.onnx")
    line = program.refuses(2, "run", small.with_suffix(".dnnc"), "--model", "other.onnx")
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


def test_json_is_all_there_is_on_stdout(program: Program, small: Path) -> None:
    status, out, err = program.run("compile", small, "--no-cache", "--json", "-v", "-o", "small.dnnc")
    assert status == 0, err
    data = json.loads(out)
    jsonschema.validate(data, OUTPUT)
    layers = data["layers"]
    for figure in ("dram_bytes", "bus_bytes", "compulsory_bytes", "lower_bound_bytes", "macs", "valid_ops"):
        assert data["totals"][figure] == sum(layer[figure] for layer in layers), figure
    for layer in layers:
        assert layer["dram_bytes"] == sum(way for moved in layer["traffic"].values() for way in moved.values())
    schema = json.loads(Path(artifact.__file__).with_name("artifact.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads((program.folder / "small.dnnc").read_text("utf-8")), schema)


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


# A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dnnc.cli import main; main()"
)


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
@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_ctrl_c_in_the_search_gives_the_best_so_far(tmp_path: Path, seconds: float) -> None:
    onnx.save(searched_long(), tmp_path / "long.onnx")
    command = [
        sys.executable,
        "-c",
        INTERRUPTIBLE,
        "compile",
        "long.onnx",
        "--no-cache",
        "-v",
        "--json",
        "-o",
        "long.dnnc",
    ]
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
    assert dnnc.load(tmp_path / "long.dnnc").plan.status == "feasible"
