from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dnnc
from dnnc import planning
from dnnc.agreement import NOT_COUNTED
from dnnc.artifact import attach
from dnnc.cli.options import cache_directory, input_shapes
from dnnc.cli.program import status
from dnnc.numeric import LayerNumbers, Verification
from dnnc.search import Result, optimize
from dnnc_runtime.errors import DisagreementFault, UsageFault
from dnnc_runtime.machine import shipped
from model_builder import ModelBuilder
from zoo import NETWORKS

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("compiler", "runtime"))


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""

    def run(*arguments: object) -> Outcome:
        ended = status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(ended, captured.out, captured.err)

    return run


def network() -> onnx.ModelProto:
    """Convolutions, a residual sum, a batch norm that folds into nothing before it, a host node, a linear layer."""
    net = ModelBuilder("net", 0)
    x = net.max_pool(net.input(1, 16, 12, 12), "pool", 2, stride=2)
    y = net.conv(net.relu(net.batch_norm(x, "norm"), "relu"), "conv", 16, 3, pad=1)
    x = net.lrn(net.add(x, y, "add"), "lrn", 5, 1e-4, 0.75)
    return net.model(net.linear(net.flatten(net.global_average(x, "mean"), "flat"), "linear", 10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, the artifact of it, and that of its layers one by one."""
    path = tmp_path_factory.mktemp("models")
    onnx.save(network(), path / "net.onnx")
    dnnc.compile(path / "net.onnx").save(path / "net.dnnc")
    dnnc.compile(path / "net.onnx", plan="layerwise").save(path / "alone.dnnc")
    return path


# -- the program itself ----------------------------------------------------------------------------------------------


def test_the_version_is_the_projects(cli: Command) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == dnnc.__version__
    assert cli("--version").out == f"dnnc {dnnc.__version__}\n"


def test_help_lists_commands_and_exit_statuses(cli: Command) -> None:
    found = cli("--help")
    assert found.status == 0
    for word in ("compile", "check", "run", "inspect", "report", "targets", "130 interrupted"):
        assert word in found.out


@pytest.mark.parametrize("command", [[], ["compile"], ["check"], ["run"], ["inspect"], ["report"], ["targets"]])
def test_help_imports_no_heavy_module(command: list[str]) -> None:
    heavy = ("numpy", "networkx", "onnx", "onnxruntime", "ortools", "pandas", "rich.console", "rich.table")
    code = (
        "import sys\n"
        "from dnnc.cli.program import status\n"
        f"status({[*command, '--help']})\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": PATHS}, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: dnnc" in done.stdout


def test_the_package_imports_lazily_and_offers_what_it_names() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import dnnc, sys; print('numpy' in sys.modules)"],
        env={"PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n"
    for name in dnnc.__all__:
        assert getattr(dnnc, name) is not None
    assert set(dnnc.__all__) <= set(dir(dnnc))
    with pytest.raises(AttributeError, match="has no attribute 'compiler'"):
        getattr(dnnc, "compiler")  # noqa: B009


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["comple"], "'compile'"),
        (["compile", "net.onnx", "--objetive", "traffic"], "--objective"),
        (["compile"], "error: missing argument 'MODEL'; see dnnc compile --help"),
        (["compile", "net.onnx", "--objective", "speed"], "'--objective': 'speed' is not one of 'traffic', "),
        (["compile", "net.onnx", "--objective", "balanced", "--within", "nan"], "'--within'"),
        (["compile", "net.onnx", "--objective", "balanced", "--within", "inf"], "inf is not a finite number"),
        (["compile", "net.onnx", "--time-limit", "nan"], "'--time-limit'"),
        (["compile", "net.onnx", "--time-limit", "soon"], "'--time-limit'"),
        (["run", "net.dnnc", "--seed", "-1"], "'--seed'"),
        (["run", "net.dnnc", "more"], "more"),
        (["targets", "snowflak"], "did you mean 'snowflake'?"),
        (["targets", "mine.toml"], "mine.toml: cannot read the target file"),
        (["check", "absent.onnx"], "absent.onnx"),
        (["compile", "absent.onnx", "--target", "twobuffer"], "did you mean 'two-buffer'?"),
        (["compile", "absent.onnx", "--within", "3"], "--within is for --objective balanced"),
        (["compile", "absent.onnx", "--cache", "here", "--no-cache"], "exclude each other"),
        (
            ["compile", "absent.onnx", "--no-emit", "-o", "net.dnnc"],
            "an artifact holds a program; leave out --no-emit or -o",
        ),
        (["compile", "absent.onnx", "--no-emit", "--objective", "latency"], "under latency the search itself emits"),
        (["compile", "absent.onnx", "--no-emit", "--objective", "balanced"], "leave out --no-emit or --objective"),
        (["compile", "absent.onnx", "--input-shape", "input=1x3"], "expected NAME:EXTENTS"),
        (["compile", "absent.onnx", "--constraints", "absent.toml"], "absent.toml: cannot read"),
        (["inspect", "absent.dnnc"], "artifact 'absent.dnnc' cannot be read"),
        (["run", "absent.dnnc"], "artifact 'absent.dnnc' cannot be read"),
    ],
)
def test_mistakes_of_usage(cli: Command, arguments: list[str], words: str) -> None:
    found = cli(*arguments)
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert words in found.err


def model(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...] = (1, 4), kind: int = TensorProto.FLOAT) -> bytes:
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    graph = helper.make_graph(nodes, "bad", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def relu() -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"], "relu")


def external() -> bytes:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="absent.bin")
    proto = onnx.load_from_string(model([helper.make_node("MatMul", ["x", "w"], ["y"], "product")]))
    proto.graph.initializer.append(weights)
    return bytes(proto.SerializeToString())


BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 3, "empty"),
    "not ONNX": (b"an essay about models, not a model", 3, ""),
    "truncated": (network().SerializeToString()[:-100], 3, ""),
    "cyclic": (
        model([helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]),
        3,
        "cycle",
    ),
    "unknown domain": (model([helper.make_node("Mystery", ["x"], ["y"], "odd", domain="my.domain")]), 3, "my.domain"),
    "no extents": (model([relu()], ("N", 4)), 3, "--input-shape"),
    "no elements": (model([relu()], (0, 4)), 3, "0"),
    "strings": (model([helper.make_node("Identity", ["x"], ["y"], "same")], kind=TensorProto.STRING), 3, "string"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_models(cli: Command, tmp_path: Path, name: str) -> None:
    content, status, words = BAD[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    for command in ("compile", "check"):
        found = cli(command, path, *(["--no-cache"] if command == "compile" else []))
        assert (found.status, found.out) == (status, ""), found.err
        assert found.err.startswith("error: ")
        assert found.err.count("\n") == 1
        assert words in found.err


def test_an_internal_fault_is_one_line_and_a_traceback_if_asked_for(
    cli: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("dnnc_runtime.machine.load", broken)
    found = cli("check", folder / "net.onnx")
    assert found.status == 1
    assert found.err == (
        "error: internal fault: ZeroDivisionError: of all things; "
        "this is a defect of dnnc, run again with -v for the traceback\n"
    )
    assert "Traceback (most recent call last)" in cli("check", folder / "net.onnx", "-v").err


# -- compile ---------------------------------------------------------------------------------------------------------


def test_compile_prints_layers_totals_and_agreement(cli: Command, folder: Path, tmp_path: Path) -> None:
    found = cli("compile", folder / "net.onnx", "-o", tmp_path / "net.dnnc", "--cache", tmp_path / "cache")
    assert found.status == 0
    lines = found.out.splitlines()
    assert lines[0].split()[:3] == ["layer", "operator", "output"]
    assert any("the array has no unit for LRN" in line for line in lines)
    assert any(line.startswith("agreement  counted = predicted: ") for line in lines)
    assert lines[-1] == f"written    {tmp_path / 'net.dnnc'}"
    assert "\x1b" not in found.out + found.err
    assert list((tmp_path / "cache").rglob("*"))
    again = cli("compile", folder / "net.onnx", "--cache", tmp_path / "cache")
    assert again.out.splitlines() == lines[:-1]


def test_compile_as_json_prints_nothing_else_on_stdout(cli: Command, folder: Path) -> None:
    found = cli("compile", folder / "net.onnx", "--no-cache", "--json", "--objective", "traffic", "-v")
    assert found.status == 0
    data = found.data
    assert (data["status"], data["objective"], data["interrupted"]) == ("optimal", "traffic", False)
    assert data["model"]["path"] == str(folder / "net.onnx")
    assert data["model"]["input_shapes"] == {"input": [1, 16, 12, 12]}
    assert data["target"]["name"] == "snowflake"
    assert data["agreement"]["counted_bytes"] == data["totals"]["dram_bytes"]
    assert [host["name"] for host in data["host"]] == ["lrn"]
    stages = [line.split("  ")[-1] for line in found.err.splitlines()]
    assert stages == ["import", "simplify", "lower", "plan", "together", "program", "agreement"]


def test_quiet_prints_the_outcome_alone(cli: Command, folder: Path) -> None:
    found = cli("compile", folder / "net.onnx", "--no-cache", "-q")
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith("net on snowflake, objective traffic: ")


def test_colour_is_for_terminals_unless_asked_for(cli: Command, folder: Path) -> None:
    assert "\x1b[" in cli("check", folder / "net.onnx", "--color", "always").out
    assert "\x1b[" not in cli("check", folder / "net.onnx", "--color", "never").out


def test_results_of_another_version_are_one_warning_unless_quiet(
    cli: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "compile", folder / "net.onnx", "-q", "--cache", tmp_path
    assert cli(*command).err == ""
    monkeypatch.setattr("dnnc.cache.COST_MODEL", "0")
    found = cli(*(word for word in command if word != "-q"))
    assert found.status == 0
    assert found.err.startswith(f"warning: cache {tmp_path}: ignored ")
    assert found.err.count("warning: ") == 1
    monkeypatch.setattr("dnnc.cache.COST_MODEL", "00")
    assert cli(*command).err == ""


def test_no_host_refuses_every_node_at_once(cli: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "net.dnnc"
    found = cli("compile", folder / "net.onnx", "--no-host", "--no-cache", "-o", output)
    assert (found.status, found.out) == (3, "")
    assert "'lrn' (LRN): the array has no unit for LRN" in found.err
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_found_before_the_search(
    cli: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*_: object, **__: object) -> None:
        pytest.fail("it was compiled first")

    monkeypatch.setattr("dnnc.pipeline.compile", compiled)
    found = cli("compile", folder / "net.onnx", "-o", folder / "absent" / "net.dnnc")
    assert (found.status, found.out) == (2, "")
    assert "cannot be written" in found.err


def test_what_does_not_fit_names_the_memory_and_the_size_that_would_do(
    cli: Command, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "whole.toml"
    file.write_text('[[layer]]\nmatch = "conv"\norder = []\nbuffers = { weights = 1 }\n')
    found = cli("compile", folder / "net.onnx", "--target", _small(tmp_path), "--constraints", file, "--no-cache")
    assert (found.status, found.out) == (4, "")
    assert "layer 'conv' (Conv) does not fit small" in found.err
    assert "the smallest size that would do is" in found.err


def _small(tmp_path: Path) -> Path:
    """two-buffer with 256 B of weights memory."""
    text = (ROOT / "runtime/dnnc_runtime/targets/two-buffer.toml").read_text("utf-8")
    path = tmp_path / "small.toml"
    path.write_text(text.replace('name = "two-buffer"', 'name = "small"').replace("bytes = 262144", "bytes = 256"))
    return path


def test_a_disagreement_writes_nothing(
    cli: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagree(*_: object) -> None:
        raise DisagreementFault("layer 'conv': read of input: counted 2 payload bytes, predicted 1")

    monkeypatch.setattr("dnnc.agreement.agree", disagree)
    found = cli("compile", folder / "net.onnx", "--no-cache", "-o", tmp_path / "net.dnnc")
    assert (found.status, found.out) == (5, "")
    assert "counted 2 payload bytes" in found.err
    assert not (tmp_path / "net.dnnc").exists()


def test_an_interrupted_search_gives_the_best_so_far_marked_as_not_proven(
    cli: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def interrupted(*arguments: Any) -> Result:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return optimize(*arguments)

    monkeypatch.setattr(planning, "optimize", interrupted)
    output = tmp_path / "net.dnnc"
    found = cli("compile", folder / "net.onnx", "--no-cache", "--json", "-o", output)
    assert found.status == 130
    assert (found.data["status"], found.data["interrupted"]) == ("feasible", True)
    assert "feasible" in {layer["proof"]["status"] for layer in found.data["layers"]}
    assert "not proven" in found.err
    assert cli("inspect", output, "--json").data["interrupted"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_the_search(tmp_path: Path) -> None:
    onnx.save(NETWORKS["squeezenet"](), tmp_path / "model.onnx")
    command = [sys.executable, "-m", "dnnc", "compile", "model.onnx", "--no-cache", "-v", "-o", "model.dnnc"]
    environment, pipe = {**os.environ, "PYTHONPATH": PATHS}, subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=pipe, stdout=pipe, text=True)
    assert process.stderr
    while "lower" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "not proven" in err or "interrupted" in err
    assert "Traceback" not in err
    assert not out or "  gap " in out


# -- check and targets -----------------------------------------------------------------------------------------------


def test_check_tells_array_from_host(cli: Command, folder: Path) -> None:
    found = cli("check", folder / "net.onnx")
    assert found.status == 0
    lines = found.out.splitlines()
    assert "net on snowflake" in lines
    assert "input      input 1x16x12x12" in lines
    assert "host       1 node" in lines
    assert "not folded 1 batch norm, layers of their own: norm" in lines
    refused = cli("check", folder / "net.onnx", "--no-host")
    assert refused.status == 3
    assert refused.out == found.out
    assert "'lrn' (LRN)" in refused.err


def test_check_as_json(cli: Command, folder: Path) -> None:
    data = cli("check", folder / "net.onnx", "--target", "two-buffer", "--json").data
    assert (data["target"], data["unfolded_batch_norms"]) == ("two-buffer", ["norm"])
    assert [host["operator"] for host in data["host"]] == ["LRN"]
    covered = {node for layer in (*data["array"], *data["host"]) for node in layer["nodes"]}
    assert {"pool", "norm", "relu", "conv", "add", "lrn", "mean", "linear"} <= covered


def test_check_wants_open_extents(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "open.onnx").write_bytes(model([relu()], ("N", 4)))
    found = cli("check", tmp_path / "open.onnx", "--input-shape", "x:2x4", "--json")
    assert found.data["array"][0]["dims"]["k"] * found.data["array"][0]["dims"]["y"] == 8


def test_targets_are_listed_with_their_figures(cli: Command, tmp_path: Path) -> None:
    text = cli("targets").out
    assert text.startswith("snowflake: ")
    assert "\n\ntwo-buffer: " in text
    data = cli("targets", "--json").data
    assert [machine["name"] for machine in data] == list(shipped())
    assert data[0]["memories"][0] == {"name": "maps", "level": "cu", "bytes": 65536, "instances": 4}
    assert cli("targets", _small(tmp_path)).out.startswith("small: ")


# -- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_shows_what_compile_showed(cli: Command, folder: Path) -> None:
    compiled = cli("compile", folder / "net.onnx", "--no-cache", "--plan", "layerwise")
    inspected = cli("inspect", folder / "alone.dnnc")
    assert (inspected.status, inspected.out) == (0, compiled.out)
    assert cli("inspect", folder / "net.dnnc", "--json").data["totals"]["macs"] > 0


def test_inspect_shows_what_stays_on_chip(cli: Command, folder: Path) -> None:
    found = cli("inspect", folder / "net.dnnc")
    assert found.status == 0
    for heading in ("plan       fused: ", "group 1: ", "maps memory: ", "on chip ", "to DRAM "):
        assert heading in found.out
    assert "the host reads it for lrn" in found.out


def test_inspect_shows_a_layer_by_the_name_of_any_node_in_it(cli: Command, folder: Path) -> None:
    found = cli("inspect", folder / "alone.dnnc", "conv")
    assert found.status == 0
    for heading in ("loop nest", "memory", "bytes", "proof: optimal", "runner-up: "):
        assert heading in found.out
    assert cli("inspect", folder / "alone.dnnc", "add").out == found.out
    data = cli("inspect", folder / "alone.dnnc", "conv", "--json").data
    assert {"name", "transfers", "runner_ups"} <= set(data)
    assert "the array has no unit for LRN" in cli("inspect", folder / "alone.dnnc", "lrn").out


def test_inspect_lists_instructions(cli: Command, folder: Path) -> None:
    found = cli("inspect", folder / "alone.dnnc", "conv", "--program")
    assert found.out.startswith("section conv\n")
    assert "  load input maps word " in found.out
    data = cli("inspect", folder / "alone.dnnc", "conv", "--program", "--json").data
    assert data["program"] == found.out.splitlines()


def test_inspect_suggests_the_nearest_layer(cli: Command, folder: Path) -> None:
    found = cli("inspect", folder / "net.dnnc", "covn")
    assert (found.status, found.out) == (2, "")
    assert "did you mean 'conv'?" in found.err


def test_a_damaged_artifact_is_refused(cli: Command, folder: Path, tmp_path: Path) -> None:
    text = (folder / "net.dnnc").read_text("utf-8")
    for damaged in (text[:-50], text.replace('"k":16', '"k":17', 1).replace('"k": 16', '"k": 17', 1), ""):
        (tmp_path / "bad.dnnc").write_text(damaged)
        found = cli("inspect", tmp_path / "bad.dnnc")
        assert (found.status, found.out) == (2, ""), damaged[-100:]
        assert found.err.count("\n") == 1


# -- run -------------------------------------------------------------------------------------------------------------


def test_run_agrees_in_both_number_systems(cli: Command, folder: Path) -> None:
    found = cli("run", folder / "net.dnnc", "--seed", "3")
    assert found.status == 0, found.err
    assert found.out.splitlines()[0].split() == [
        "layer", "float32", "error", "fixed", "point", "saturations", "overflows",
    ]  # fmt: skip
    outcome = [line for line in found.out.splitlines() if line[:7] in ("float32", "fixed  ", "agreeme")][-3:]
    assert [line.split()[0] for line in outcome] == ["float32", "fixed", "agreement"]
    assert "bit-equal to the untiled reference; 0 saturations, 0 overflows" in found.out
    data = cli("run", folder / "net.dnnc", "--json", "--numbers", "fixed").data
    assert set(data) == {"seed", "agreement", "fixed"}
    assert data["fixed"]["agree"]
    assert {layer["error"] for layer in data["fixed"]["layers"]} == {0.0}


def test_run_names_the_first_layer_that_differs(cli: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"pool": 0.0, "conv": 0.25, "linear": np.inf}
    layers = tuple(LayerNumbers(name, error, 0, 0) for name, error in errors.items())

    def verify(*_: object) -> Verification:
        return Verification(layers, False, "conv", NOT_COUNTED)

    monkeypatch.setattr("dnnc.pipeline.verify", verify)
    found = cli("run", folder / "net.dnnc", "--json")
    assert found.status == 5
    assert "float32: layer 'conv' is the first that differs from onnxruntime, by 0.25" in found.err
    assert [layer["error"] for layer in found.data["fixed"]["layers"]] == [0.0, 0.25, None]


def test_weights_are_wanted_only_where_numbers_are(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(external())
    assert cli("compile", tmp_path / "model.onnx", "--no-cache", "-o", tmp_path / "model.dnnc").status == 0
    found = cli("run", tmp_path / "model.dnnc")
    assert (found.status, found.out) == (3, "")
    assert "absent.bin" in found.err


def test_run_takes_inputs_from_a_file(cli: Command, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, input=np.ones((1, 16, 12, 12), np.float32))
    assert cli("run", folder / "net.dnnc", "--inputs", file, "--numbers", "float32", "-q").status == 0
    np.savez(tmp_path / "name.npz", x=np.ones((1, 16, 12, 12), np.float32))
    np.savez(tmp_path / "shape.npz", input=np.ones((1, 3), np.float32))
    for name, words in (("name", "found x; expected input"), ("shape", "has shape (1, 3)")):
        found = cli("run", folder / "net.dnnc", "--inputs", tmp_path / f"{name}.npz")
        assert found.status == 2
        assert words in found.err
    file.write_bytes(b"not numbers")
    assert "not an .npz file" in cli("run", folder / "net.dnnc", "--inputs", file).err
    file.write_bytes(b"PK\x03\x04 not a zip file")
    assert "not an .npz file" in cli("run", folder / "net.dnnc", "--inputs", file).err
    assert "cannot be read" in cli("run", folder / "net.dnnc", "--inputs", tmp_path / "absent.npz").err


INPUT = np.random.default_rng(0).standard_normal((1, 16, 12, 12))


@pytest.mark.parametrize("kind", ["float64", "float16", "int8", "bool"])
def test_real_inputs_of_any_type_are_taken_as_float32(cli: Command, folder: Path, tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "in.npz", input=INPUT.astype(kind))
    found = cli("run", folder / "net.dnnc", "--inputs", tmp_path / "in.npz", "--json")
    assert found.status == 0, found.err
    np.savez(tmp_path / "in.npz", input=INPUT.astype(kind).astype(np.float32))
    assert cli("run", folder / "net.dnnc", "--inputs", tmp_path / "in.npz", "--json").data == found.data


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (INPUT.astype(np.complex64), "input 'input' is of type complex64; real numbers are expected"),
        (INPUT.astype(str), "input 'input' is of type <U"),
        (INPUT.astype("datetime64[s]"), "input 'input' is of type datetime64[s]"),
        (np.where(INPUT[0, 1, 2, 3] == INPUT, np.nan, INPUT), "input 'input' is nan at [0, 1, 2, 3]; finite numbers"),
        (np.where(INPUT[0, 1, 2, 3] == INPUT, -np.inf, INPUT), "input 'input' is -inf at [0, 1, 2, 3]"),
        (np.where(INPUT[0, 1, 2, 3] == INPUT, 1e39, INPUT), "input 'input' is 1e+39 at [0, 1, 2, 3]"),
    ],
)
def test_inputs_that_are_not_finite_real_numbers(
    cli: Command, folder: Path, tmp_path: Path, values: np.ndarray[Any, Any], words: str
) -> None:
    np.savez(tmp_path / "in.npz", input=values)
    for numbers in ("float32", "fixed", "both"):
        found = cli("run", folder / "net.dnnc", "--inputs", tmp_path / "in.npz", "--numbers", numbers)
        assert (found.status, found.out) == (2, "")
        assert found.err.startswith(f"error: {words}")
        assert found.err.count("\n") == 1


def test_inputs_are_checked_in_python_too(folder: Path) -> None:
    compilation = attach(dnnc.load(folder / "net.dnnc"))
    assert dnnc.verify(compilation, {"input": INPUT}).agree
    single = dnnc.execute(compilation, {"input": INPUT.astype(np.float32)}, "fixed")
    for name, values in dnnc.execute(compilation, {"input": INPUT}, "fixed").items():
        np.testing.assert_array_equal(values, single[name])
    for system in ("float32", "fixed"):
        with pytest.raises(UsageFault, match="finite"):
            dnnc.verify(compilation, {"input": INPUT * np.nan}, system)
        with pytest.raises(UsageFault, match="real numbers"):
            dnnc.execute(compilation, {"input": INPUT * 1j}, system)


# -- options ---------------------------------------------------------------------------------------------------------


def test_input_shapes() -> None:
    assert input_shapes(["input:0:1x3", "mask:2,4", "scalar:7"]) == {"input:0": (1, 3), "mask": (2, 4), "scalar": (7,)}
    for wrong in ("1x3", ":1x3", "x:", "x:1x", "x:1x-3"):
        with pytest.raises(UsageFault, match="expected NAME:EXTENTS"):
            input_shapes([wrong])
    with pytest.raises(UsageFault, match="given twice"):
        input_shapes(["x:1", "x:2"])


def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_directory() == Path("/caches/dnnc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "dnnc"
