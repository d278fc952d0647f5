"""Plans without a program: the bytes, schedules and proofs are those of a compilation, and nothing is emitted."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dnnc
from dnnc import planning
from dnnc.cli.program import status
from dnnc.search import Result, optimize
from dnnc.segments import SCOPES, Scope
from dnnc_runtime.errors import CapacityFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Compute
from graphs import networks
from model_builder import ModelBuilder
from zoo import NETWORKS


@contextmanager
def nothing_emitted() -> Generator[None, None, None]:
    """Fails where a program is emitted, walked or timed."""

    def emitted(*_: object) -> None:
        pytest.fail("a program was made")

    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "dnnc.emit.emit", "dnnc.emit.emit_layer", "dnnc.planning.emit_layer", "dnnc.agreement.agree",
            "dnnc_runtime.timeline.timeline",
        ):  # fmt: skip
            patch.setattr(name, emitted)
        yield


@dataclass(frozen=True)
class Outcome:
    """How ``dnnc compile`` ended, and what it printed."""

    status: int
    out: str
    err: str


Compile = Callable[..., Outcome]


@pytest.fixture
def compile(capsys: pytest.CaptureFixture[str]) -> Compile:
    """Runs ``dnnc compile`` in this process, without a cache; with --no-emit, it must not emit."""

    def run(*arguments: object) -> Outcome:
        words = ["compile", "--no-cache", *map(str, arguments)]
        if "--no-emit" in words:
            with nothing_emitted():
                ended = status(words)
        else:
            ended = status(words)
        captured = capsys.readouterr()
        return Outcome(ended, captured.out, captured.err)

    return run


def groups() -> onnx.ModelProto:
    """Groups on a machine with small memories: a fused pool, a residual, a node of the host, a linear layer."""
    net = ModelBuilder("groups", 0)
    x = net.max_pool(net.relu(net.conv(net.input(1, 16, 32, 32), "first", 32, 3, pad=1), "relu"), "pool", 2, stride=2)
    y = net.relu(net.conv(x, "second", 32, 3, pad=1), "relu2")
    x = net.lrn(net.add(x, net.conv(y, "third", 32, 3, pad=1), "add"), "lrn", 5, 1e-4, 0.75)
    return net.model(net.linear(net.flatten(net.global_average(x, "mean"), "flat"), "linear", 10))


MODELS = {"groups": groups, "conv13x13": NETWORKS["conv13x13"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and a machine with small memories."""
    path = tmp_path_factory.mktemp("models")
    for name, model in MODELS.items():
        onnx.save(model(), path / f"{name}.onnx")
    machine = dnnc.load_machine("snowflake").with_memory("maps", 8192).with_memory("weights", 4096)
    (path / "small.toml").write_text(machine.text, "utf-8")
    return path


@st.composite
def targets(draw: st.DrawFn) -> Machine:
    """A machine with little memory: of one unit, or of four that share rows."""
    name = draw(st.sampled_from(["two-buffer", "snowflake"]))
    maps, weights = draw(st.sampled_from([256, 512, 1024, 2048, 8192])), draw(st.sampled_from([256, 1024, 8192]))
    return dnnc.load_machine(name).with_memory("maps", maps).with_memory("weights", weights)


# -- from Python -----------------------------------------------------------------------------------------------------


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(networks(), targets(), st.sampled_from(SCOPES))
def test_a_plan_without_a_program_is_that_of_the_compilation(
    model: onnx.ModelProto, target: Machine, scope: Scope
) -> None:
    stages: list[str] = []
    try:
        with nothing_emitted():
            planned = dnnc.plan_network(model, target, plan=scope, hook=lambda stage, _: stages.append(stage))
    except CapacityFault:
        assume(False)
        raise
    assert stages == ["import", "simplify", "lower", "plan", "together"]
    compilation = dnnc.compile(model, target, plan=scope)
    assert not isinstance(planned, dnnc.Compilation)
    assert planned.plan == compilation.plan
    assert (planned.graph, planned.lowered.layers) == (compilation.graph, compilation.lowered.layers)
    assert (planned.unfused, planned.interrupted) == (compilation.unfused, compilation.interrupted)
    assert (planned.machine, planned.layers, planned.traffic) == (target, compilation.layers, compilation.traffic)
    # Where layers run together, as many bytes are counted as were predicted without counting.
    assert planned.plan.totals.dram_bytes == sum(compilation.counted.payload.values())
    assert (planned.realized is None) == (planned.plan.network is None)
    if planned.realized and compilation.realized:
        assert planned.realized.segments == compilation.realized.segments
        assert planned.realized.used == compilation.realized.used


def test_constraints_and_shapes_are_kept(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[all]\nhalo = { units = "reload" }\n')
    asked: dict[str, Any] = {"constraints": rules, "input_shapes": {"input": (1, 16, 32, 32)}}
    planned, compilation = dnnc.plan_network(groups(), **asked), dnnc.compile(groups(), **asked)
    assert (planned.plan, planned.constraints) == (compilation.plan, compilation.constraints)
    assert planned.input_shapes == compilation.input_shapes == asked["input_shapes"]


def test_in_a_notebook_the_times_are_said_to_be_of_the_closed_form() -> None:
    with nothing_emitted():
        shown = dnnc.plan_network(groups())._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "ms closed form" in shown
    assert "time       in closed form " in shown


# -- the command -----------------------------------------------------------------------------------------------------


def without_times(data: Any) -> Any:
    """What `compile --json` prints, with null for what takes a program."""
    layers = [{**layer, "time": None} for layer in data["layers"]]
    return {**data, "layers": layers, "totals": {**data["totals"], "time": None}, "agreement": None}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scope", SCOPES)
def test_json_is_that_of_the_compilation_but_for_what_takes_a_program(
    compile: Compile, folder: Path, model: str, scope: str
) -> None:
    arguments = folder / f"{model}.onnx", "--target", folder / "small.toml", "--plan", scope, "--json"
    full, alone = compile(*arguments), compile(*arguments, "--no-emit")
    assert (full.status, alone.status, alone.err) == (0, 0, "")
    data = json.loads(full.out)
    assert None not in (data["agreement"], data["totals"]["time"], *(layer["time"] for layer in data["layers"]))
    assert json.loads(alone.out) == without_times(data)


@pytest.mark.parametrize("scope", SCOPES)
def test_text_is_that_of_the_compilation_but_for_times(compile: Compile, folder: Path, scope: Scope) -> None:
    model, machine = folder / "groups.onnx", folder / "small.toml"
    arguments = model, "--target", machine, "--plan", scope
    full, alone = compile(*arguments), compile(*arguments, "--no-emit")
    assert (full.status, alone.status, alone.err) == (0, 0, full.err)
    plan = dnnc.plan_network(model, machine, plan=scope).plan

    # A layer's line ends with its time; in closed form, they add up to all cycles.
    heads, many = alone.out.splitlines()[0], len(plan.on_array)
    assert heads.endswith("  proof  ms closed form")
    tables = [text.out.splitlines()[: many + 1] for text in (full, alone)]
    column = heads.index("  proof") + 2
    assert [line[:column] for line in tables[0]] == [line[:column] for line in tables[1]]
    times = [float(line.split()[-1]) for line in tables[1][1:]]
    assert times == [round(1e3 * layer.figures.cycles / plan.machine.clock_hz, 3) for layer in plan.on_array]

    # From there on, all lines are the same up to that of the time.
    rest, other = full.out.splitlines()[many + 1 :], alone.out.splitlines()[many + 1 :]
    until = next(at for at, line in enumerate(rest) if line.startswith("time "))
    assert rest[:until] == other[:until]
    assert other[until].startswith(f"time       in closed form {plan.totals.cycles:,} cycles = ")
    assert not [line for line in other if line.startswith(("spent ", "predicted ", "agreement  counted"))]
    assert [line for line in other[until:] if line.startswith("host ")] == [
        line for line in rest[until:] if line.startswith("host ")
    ]
    assert other[-1] == "agreement  none: without a program, the bytes are predicted and proven, not counted"


def test_the_program_would_have_the_tiles_that_it_has(compile: Compile, folder: Path) -> None:
    """Every tile is computed by one instruction."""
    model, machine = folder / "groups.onnx", folder / "small.toml"
    compilation = dnnc.compile(model, machine)
    assert any(layer.strips for layer in compilation.plan.on_array)
    on_host = {layer.name for layer in compilation.plan.on_host}
    sections = [section for section in compilation.program.sections if section.name not in on_host]
    count = sum(isinstance(instruction, Compute) for section in sections for instruction in section.instructions)
    found = compile(model, "--target", machine, "--no-emit")
    assert found.out.splitlines()[-2].endswith(f" it would have {count:,} tiles")


def test_an_interrupted_search_has_predicted_bytes_that_are_not_proven(
    compile: Compile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def interrupted(*arguments: Any) -> Result:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return optimize(*arguments)

    monkeypatch.setattr(planning, "optimize", interrupted)
    found = compile(folder / "groups.onnx", "--no-emit")
    assert found.status == 130
    assert found.out.splitlines()[-1] == "agreement  none: without a program, the bytes are predicted, not counted"
    assert "not proven" in found.err
