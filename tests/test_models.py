"""The networks of models/: their sizes are the published ones, and their activations suit Q8.8."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from build import main
from networks import SHAPE_ONLY, shape_only
from zoo import NETWORKS

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
    assert set(NETWORKS) <= set(capsys.readouterr().out.split())


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
