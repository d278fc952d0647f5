"""The networks of models/: their sizes are the published ones, and their activations suit Q8.8."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import dnnc
from build import main
from dnnc import onnx_import
from dnnc.cli.program import status
from dnnc.simplify import simplify
from dnnc_runtime.errors import ModelFault
from networks import SHAPE_ONLY, shape_only
from zoo import NETWORKS, SCALE

PARAMETERS = {
    # Convolutions, k (c r r + 1): 23,296 + 307,392 + 663,936 + 884,992 + 590,080 = 2,469,696;
    # linear layers, k (c + 1): 4096 x 9217 + 4096 x 4097 + 1000 x 4097 = 58,631,144.
    "alexnet": 61_100_840,
    # The Caffe model's 13,378,280 less the two classifiers for training, 3,188,840 and 3,190,888.
    "googlenet": 6_998_552,
    # As torchvision's model pages give them; a batch norm counts its scale and its bias.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg16": 138_357_544,
    "squeezenet": 1_235_496,
    "mobilenetv2": 3_504_872,
    "linear": 4096 * 4096,
    "conv13x13": 384 * 192 * 9,
}


def _residual_macs(blocks: tuple[int, ...], expansion: int) -> int:
    """Row by row of table 1 of arXiv 1512.03385: w wide blocks of s x s maps, the stride in the first 3x3."""
    total, c = 112**2 * 64 * 3 * 7**2, 64
    for stage, count in enumerate(blocks):
        w, s = 64 << stage, 56 >> stage
        before = s if stage == 0 else 2 * s
        k = expansion * w
        inner = 9 * w * w * s**2 + w * k * s**2  # bottleneck: 3x3, then 1x1 to k
        for i in range(count):
            if expansion == 1:
                total += 9 * c * w * s**2 + 9 * w * w * s**2
            else:
                total += c * w * (before if i == 0 else s) ** 2 + inner
            total += c * k * s**2 if c != k else 0  # projection
            c = k
    return total + c * 1000


MACS = {
    "alexnet": 55**2 * 64 * 363 + 27**2 * 192 * 1600 + 13**2 * (384 * 1728 + 256 * 3456 + 256 * 2304)
    + 9216 * 4096 + 4096 * 4096 + 4096 * 1000,
    "googlenet": 1_582_671_872,  # the paper says 1.5 billion
    "resnet18": _residual_macs((2, 2, 2, 2), 1),
    "resnet34": _residual_macs((3, 4, 6, 3), 1),
    "resnet50": _residual_macs((3, 4, 6, 3), 4),
    "vgg16": 9 * (
        224**2 * (3 * 64 + 64 * 64) + 112**2 * (64 * 128 + 128 * 128) + 56**2 * (128 * 256 + 2 * 256 * 256)
        + 28**2 * (256 * 512 + 2 * 512 * 512) + 14**2 * 3 * 512 * 512
    ) + 25088 * 4096 + 4096 * 4096 + 4096 * 1000,
    "squeezenet": 349_151_936,  # torchvision: 0.35 G
    "mobilenetv2": 300_774_272,  # the paper and torchvision: 300 M
    "linear": 4096 * 4096,
    "conv13x13": 13**2 * 384 * 192 * 9,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_the_published_ones(name: str) -> None:
    model = NETWORKS[name]()
    weights = {c.name: tuple(c.dims) for c in model.graph.initializer if c.name.endswith((".weight", ".bias"))}
    assert sum(map(prod, weights.values())) == PARAMETERS[name]
    shapes = _shapes(model)
    macs = [
        prod(shapes[node.output[0]]) * prod(weights[node.input[1]][1:])
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm")
    ]
    assert sum(macs) == MACS[name]


def test_known_macs_of_residual_networks() -> None:
    """What torchvision's model pages round to 1.81, 3.66 and 4.09 G."""
    assert MACS["resnet18"] == 1_814_073_344
    assert MACS["resnet34"] == 3_663_761_408
    assert MACS["resnet50"] == 4_089_184_256


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "resnet50", "squeezenet", "mobilenetv2", "conv13x13"])
def test_activations_suit_q8_8(name: str) -> None:
    """Far from the largest number, 128, and far above the smallest step, 1/256."""
    for value, activation in _activations(NETWORKS[name](seed=1)).items():
        assert np.abs(activation).max() < 64, value
        assert np.sqrt(np.mean(activation**2)) > 0.1, value


def test_equal_seeds_give_equal_models() -> None:
    build = NETWORKS["squeezenet"]
    first, same, other = (build(seed=seed).SerializeToString() for seed in (3, 3, 4))
    assert first == same
    assert first != other


def test_names_are_unique() -> None:
    for name in ("googlenet", "resnet50", "mobilenetv2"):
        nodes = [node.name for node in NETWORKS[name]().graph.node]
        assert len(nodes) == len(set(nodes))


def test_command_line_writes_the_model(tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    assert main(["linear", "--size", "64", "--batch", "3", "-o", str(path)]) == 0
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert _shapes(model) == {"linear": (3, 64)}


def test_command_line_lists_the_networks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert {*NETWORKS, *SCALE} <= set(capsys.readouterr().out.split())


def test_command_line_names_an_output_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "absent" / "linear.onnx"
    assert main(["linear", "--size", "4", "-o", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n in SHAPE_ONLY if n not in ("vgg19", "bvlc_alexnet", "zfnet512")])
def test_shape_only_networks_get_finite_weights(name: str) -> None:
    model = shape_only(name)
    onnx.checker.check_model(model)
    assert "ConstantOfShape" not in {node.op_type for node in model.graph.node}
    for value, activation in _activations(model).items():
        assert np.abs(activation).max() < 1000, value


# -- networks of any size ---------------------------------------------------------------------------------------------

SMALL: dict[str, dict[str, int]] = {
    "residual_chain": {"layers": 10},
    "decoder": {"layers": 2, "width": 64, "heads": 4, "tokens": 16},
}


@pytest.mark.parametrize("layers", [10, 30, 100, 300, 1000])
def test_a_residual_chain_has_the_layers_asked_for(layers: int) -> None:
    """Two convolutions in each block, one before and a linear layer behind; two shortcuts change extents."""
    model = SCALE["residual_chain"](None, layers=layers)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Conv"] - 2 + counts["Gemm"] == layers
    assert counts["Add"] == (layers - 2) // 2
    shapes = _shapes(model)
    found = Counter(shapes[node.output[0]] for node in model.graph.node if node.op_type == "Add")
    assert set(found) == {(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)}
    assert max(found.values()) - min(found.values()) <= 1


def test_a_decoder_has_the_published_number_of_weights() -> None:
    """Per layer 12 w^2: four matrices of w x w, two of w x 4w. With 96 layers of w = 12,288 that is 173.9 billion: all
    but 1 % of the 175 billion that are published, which count the embeddings.
    """
    model = SCALE["decoder"]()
    matrices = [prod(c.dims) for c in model.graph.initializer if c.name.endswith("weight") and len(c.dims) == 2]
    assert sum(matrices) == 96 * 12 * 12288**2
    assert 0.99 * 175e9 < sum(matrices) < 175e9
    assert model.ByteSize() < 2**20
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["MatMul"] == 96 * 8
    assert counts["Softmax"] == counts["Relu"] == 96


@pytest.mark.parametrize("target", ["snowflake", "two-buffer"])
@pytest.mark.parametrize("name", SCALE)
def test_small_ones_run_to_the_numbers_of_onnxruntime(name: str, target: str) -> None:
    model = SCALE[name](0, **SMALL[name])
    onnx.checker.check_model(model, full_check=True)
    compilation = dnnc.compile(model, target)
    assert {layer.operator for layer in compilation.plan.on_host} <= {"LayerNormalization", "Softmax"}
    random = np.random.default_rng(0)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    inputs = {n: random.standard_normal(shape, np.float32) for n, shape in shapes.items()}
    for numbers in ("float32", "fixed"):
        verified = dnnc.verify(compilation, inputs, numbers)
        assert verified.agree, verified.first_divergence
        assert sum(layer.saturations for layer in verified.layers) == 0


def test_attention_is_causal() -> None:
    """A token that changes, changes itself and those behind it."""
    model = SCALE["decoder"](0, **SMALL["decoder"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first = np.random.default_rng(0).standard_normal((1, 16, 64), np.float32)
    second = first.copy()
    second[0, 9, 0] += 1
    before, after = (np.asarray(session.run(None, {"input": x})[0]) for x in (first, second))
    changed = np.abs(before - after).max(axis=(0, 2)) > 1e-5
    assert list(changed) == [False] * 9 + [True] * 7


@pytest.mark.parametrize(
    ("name", "sizes"), [("residual_chain", {"layers": 300}), ("decoder", {**SMALL["decoder"], "layers": 96})]
)
def test_deep_ones_suit_q8_8(name: str, sizes: dict[str, int]) -> None:
    """What a thousand branches add stays far from the largest number, 128; the branches themselves may be small."""
    activations = _activations(SCALE[name](1, **sizes))
    for value, activation in activations.items():
        assert np.abs(activation).max() < 80, value
        assert np.sqrt(np.mean(activation**2)) > 0.01, value


@pytest.mark.parametrize("name", ["squeezenet", "mobilenetv2", *SCALE])
def test_without_weights_a_model_is_the_same_graph(name: str, tmp_path: Path) -> None:
    build, sizes = {**NETWORKS, **SCALE}[name], SMALL.get(name, {})
    path = tmp_path / "model.onnx"
    options = [text for key, value in sizes.items() for text in (f"--{key}", str(value))]
    assert main([name, "--shapes-only", *options, "-o", str(path)]) == 0
    assert path.stat().st_size < 100_000
    assert simplify(onnx_import.load(path)) == simplify(onnx_import.load(build(0, **sizes)))


@pytest.mark.parametrize("name", SCALE)
def test_without_weights_a_model_compiles_and_does_not_run(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = dnnc.compile(SCALE[name](0, **SMALL[name]))
    assert caplog.messages == []
    onnx.save(SCALE[name](None, **SMALL[name]), tmp_path / "model.onnx")
    compilation = dnnc.compile(tmp_path / "model.onnx")
    assert compilation.plan == whole.plan
    (warning,) = caplog.messages
    assert f"its weights file '{tmp_path / name}.weights' is absent" in warning
    inputs = {n: np.zeros(whole.graph.value(n).shape, np.float32) for n in whole.graph.inputs}
    with pytest.raises(ModelFault, match=rf"its external data file '.*{name}\.weights' is absent; put it beside"):
        dnnc.execute(compilation, inputs)


def test_weights_that_are_given_later_are_read(tmp_path: Path) -> None:
    """The file that a model of shapes only names may be written by anyone: here with the weights of its twin."""
    whole = SCALE["decoder"](0, **SMALL["decoder"])
    bare = SCALE["decoder"](None, **SMALL["decoder"])
    onnx.save(bare, tmp_path / "model.onnx")
    data = {c.name: c.raw_data for c in whole.graph.initializer}
    absent = [c for c in bare.graph.initializer if c.external_data]
    (tmp_path / "decoder.weights").write_bytes(b"".join(data[c.name] for c in absent))
    inputs = {"input": np.random.default_rng(0).standard_normal((1, 16, 64), np.float32)}
    first, second = (dnnc.execute(dnnc.compile(m), inputs) for m in (whole, tmp_path / "model.onnx"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_running_without_weights_ends_with_a_status_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["residual_chain", "--layers", "10", "--shapes-only", "-o", "model.onnx"]) == 0
    assert status(["compile", "model.onnx", "--no-cache", "-o", "model.dnnc"]) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    (said,) = warnings
    assert said.startswith("warning: model 'model.onnx': its weights file 'residual_chain.weights' is absent")
    assert status(["run", "model.dnnc"]) == ModelFault.exit_status
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "its external data file 'residual_chain.weights' is absent; put it beside the model" in err


def test_sizes_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["residual_chain", "--layers", "9"], "an even number from 8 on"),
        (["residual_chain", "--layers", "6"], "an even number from 8 on"),
        (["decoder", "--width", "64", "--heads", "3"], "a multiple of the 3 heads"),
        (["decoder", "--seed", "0"], "695.8 GB of weights fit no ONNX file"),
    ):
        assert main([*arguments, "-o", str(tmp_path / "model.onnx")]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match="2"):
        main(["decoder", "--seed", "0", "--shapes-only", "-o", "model.onnx"])
    with pytest.raises(SystemExit, match="2"):
        main(["decoder", "--layers", "0", "-o", "model.onnx"])


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """ONNX's shapes of all values that nodes make, inferred without copying the weights."""
    graph = model.graph
    weights = [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in graph.initializer]
    bare = helper.make_graph(graph.node, graph.name, [*graph.input, *weights], graph.output)
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(bare, opset_imports=model.opset_import), strict_mode=True
    ).graph
    assert list(graph.output) == list(inferred.output)
    values = (*inferred.value_info, *inferred.output)
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}


def _activations(model: onnx.ModelProto) -> dict[str, Any]:
    """Every value that a node of the model computes in floats, for a random input."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    names = [name for node in model.graph.node for name in node.output[:1] if node.op_type != "Constant"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    values: list[Any] = list(session.run(None, {model.graph.input[0].name: image}))
    return {n: v for n, v in zip(names, values, strict=True) if v.dtype == np.float32}
