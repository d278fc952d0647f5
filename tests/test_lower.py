"""One node, one layer: every operator in its varieties computes what onnxruntime does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from dnnc import operators, rules
from dnnc.layer import HostLayer, Layer
from lowering import Net, brief, lowered, snowflake


def conv_net(**attributes: Any) -> onnx.ModelProto:
    net = Net(x=(2, 6, 9, 8))
    net.op("Relu", net.op("Conv", "x", net.const(4, 6 // attributes.get("group", 1), 3, 2), net.const(4), **attributes))
    return net.model()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1], "strides": [2, 3]},
        {"group": 2, "dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ],
    ids=str,
)
def test_convolution(attributes: dict[str, Any]) -> None:
    assert brief(lowered(conv_net(**attributes))) == ["Conv+activation"]


def test_depthwise_and_one_dimensional_convolutions() -> None:
    net = Net(x=(1, 6, 7, 7), s=(2, 4, 9))
    a = net.conv("x", 6, 12, 3, group=6)
    b = net.op("Conv", "s", net.const(6, 2, 3), group=2, pads=[1, 1], strides=[2])
    made = lowered(net.model(a, b))
    first, second = (layer.shape for layer in made.layers if isinstance(layer, Layer))
    assert (first.g, first.k, first.c) == (6, 2, 1)
    assert (second.n, second.y.out, second.x.out, second.g, second.k, second.c) == (2, 1, 5, 2, 3, 2)


GEMMS: dict[str, tuple[Any, Any, Any, dict[str, Any], list[str]]] = {
    "plain": ((4, 6), (6, 5), None, {}, ["Gemm"]),
    "transposed weights": ((4, 6), (5, 6), (5,), {"transB": 1}, ["Gemm"]),
    "transposed input": ((6, 4), (6, 5), (1, 5), {"transA": 1}, ["Gemm"]),
    "scaled": ((4, 6), (6, 5), (1,), {"alpha": 0.5, "beta": 2.0}, ["Gemm"]),
    "column": ((4, 6), (6, 5), (4, 1), {"beta": 0.5}, ["Gemm", "Add"]),
    "matrix": ((4, 6), (6, 5), (4, 5), {}, ["Gemm+residual"]),
}


@pytest.mark.parametrize("case", GEMMS)
def test_gemm(case: str) -> None:
    first, second, summand, attributes, expected = GEMMS[case]
    net = Net(x=first)
    net.op("Gemm", "x", net.const(*second), *([net.const(*summand)] if summand else []), **attributes)
    assert brief(lowered(net.model())) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((2, 3, 4, 6), (6, 5), ["MatMul"]),
        ((2, 3, 4, 6), (3, 6, 5), ["MatMul"]),
        ((2, 3, 4, 6), (2, 1, 6, 5), ["MatMul"]),
        ((2, 3, 4, 6), (2, 3, 6, 5), ["MatMul"]),
        ((4, 6), (6,), ["MatMul"]),
        ((6,), (6, 5), ["MatMul"]),
        ((2, 1, 6), (2, 6, 5), ["MatMul"]),
        ((4, 6), (2, 6, 5), ["MatMul"]),
        ((7, 16), (4, 16, 9), ["MatMul"]),
        ((1, 3, 4, 6), (2, 3, 6, 5), ["MatMul"]),
        ((2, 1, 4, 6), (1, 3, 6, 5), ["(MatMul)"]),
        ((6,), (2, 6, 5), ["(MatMul)"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("constant", ["none", "first", "second"])
def test_matmul(first: tuple[int, ...], second: tuple[int, ...], expected: list[str], constant: str) -> None:
    shapes = {"first": first, "second": second}
    net = Net(**{side: shape for side, shape in shapes.items() if side != constant})
    net.op("MatMul", *(net.const(*shape) if side == constant else side for side, shape in shapes.items()))
    assert brief(lowered(net.model())) == expected


def test_attention_needs_no_copy() -> None:
    net = Net(x=(1, 5, 12))

    def heads(order: tuple[int, ...]) -> str:
        split = net.reshape(net.op("MatMul", "x", net.const(12, 12)), 1, 5, 3, 4)
        return net.op("Transpose", split, perm=order)

    scores = net.op("Softmax", net.op("MatMul", heads((0, 2, 1, 3)), heads((0, 2, 3, 1))), axis=-1)
    mixed = net.op("MatMul", scores, heads((0, 2, 1, 3)))
    back = net.reshape(net.op("Transpose", mixed, perm=(0, 2, 1, 3)), 1, 5, 12)
    out = net.op("Add", net.op("MatMul", back, net.const(12, 12)), "x")
    made = lowered(net.model(out))
    assert brief(made) == ["MatMul", "MatMul", "MatMul", "(Softmax)", "MatMul", "MatMul", "MatMul+residual"]
    scores_layer = made.layers[2]
    assert isinstance(scores_layer, Layer)
    assert (scores_layer.shape.g, scores_layer.shape.y.out, scores_layer.shape.packed) == (3, 5, False)


ACTIVATIONS: dict[str, tuple[list[tuple[int, ...]], dict[str, Any]]] = {
    "Relu": ([], {}),
    "LeakyRelu": ([], {}),
    "Clip": ([(), ()], {}),
    "HardSigmoid": ([], {"alpha": 0.3}),
    "HardSwish": ([], {}),
    "Sigmoid": ([], {}),
    "Tanh": ([], {}),
    "PRelu": ([(6, 1, 1)], {}),
}


@pytest.mark.parametrize("operator", ACTIVATIONS)
@pytest.mark.parametrize("fused", [True, False])
def test_activation(operator: str, fused: bool) -> None:
    shapes, attributes = ACTIVATIONS[operator]
    net = Net(x=(1, 3, 5, 5))
    out = net.op(operator, net.conv("x", 3, 6), *(net.const(*shape) for shape in shapes), **attributes)
    made = lowered(net.model(out), fused=lambda layer, kind: fused)
    assert brief(made) == (["Conv+activation"] if fused else ["Conv", operator])


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize(
    ("other", "second"),
    [
        # Where the second operand has rows and columns alike, they are one axis of pixels, y.
        ((2, 3, 4, 5), (True, True, False, True)),
        ((3, 1, 1), (False, False, False, True)),
        ((1, 3, 1, 1), (False, False, False, True)),
        ((2, 1, 4, 5), (True, True, False, False)),
        ((4, 1), (False, True, False, False)),
        ((5,), (False, False, True, False)),
        ((1,), (False, False, False, False)),
    ],
    ids=str,
)
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_binary(operator: str, other: tuple[int, ...], second: object, constant: bool, first: bool) -> None:
    net = Net(x=(2, 3, 4, 5)) if constant else Net(x=(2, 3, 4, 5), b=other)
    operands = ["x", net.const(*other) if constant else "b"]
    made = lowered(net.model(net.op(operator, *(operands if first else operands[::-1]))))
    if operator != "Sub" or first or (len(other) == 4 and other[1] > 1 and other[2] > 1):
        assert brief(made) == [operator]
        assert isinstance(layer := made.layers[0], Layer)
        assert layer.shape.second == second
    elif constant and max(other) == np.prod(other) and np.prod(other) in (1, 3):
        assert isinstance(layer := made.layers[0], Layer)
        assert layer.kernel.operation == "scale"


def test_two_broadcasting_operands_run_on_the_host() -> None:
    net = Net(x=(2, 3, 1, 1), y=(1, 3, 4, 5))
    made = lowered(net.model(net.op("Add", "x", "y")))
    assert brief(made) == ["(Add)"]
    assert isinstance(host := made.layers[0], HostLayer)
    # Words of 2 bytes: 6 + 60 elements read, 120 written.
    assert (host.read_bytes, host.write_bytes) == (132, 240)
    assert host.reason.startswith("the array needs one operand of the output's shape")


def test_the_later_of_two_convolutions_takes_the_residual() -> None:
    net = Net(x=(1, 4, 6, 6))
    a, b = net.conv("x", 4, 4), net.conv("x", 4, 4, 1)
    out = net.op("MaxPool", net.op("Relu", net.op("Add", b, a)), kernel_shape=[2, 2], strides=[2, 2])
    made = lowered(net.model(out))
    assert brief(made) == ["Conv", "Conv+residual+activation+pool"]
    assert made.layers[1].nodes == (b, "add2", "relu3", "maxpool4")
    assert {p.name for p in made.placements} == {"x", a, out}


def test_what_others_read_is_not_fused_away() -> None:
    net = Net(x=(1, 4, 6, 6))
    seen = net.conv("x", 4, 4)
    twice = net.conv(net.op("Relu", seen), 4, 4)
    out = net.op("Add", net.op("Add", twice, twice), seen)
    assert brief(lowered(net.model(out))) == ["Conv", "Relu", "Conv", "Add", "Add"]
    net.op("Relu", net.conv(out, 4, 4))
    assert brief(lowered(net.model(net.nodes[-1].input[0], net.nodes[-1].output[0])))[-2:] == ["Conv", "Relu"]


POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "max": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "ceil": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "dilated": ("MaxPool", {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 0, 0, 1]}),
    "average": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [0, 1, 1, 1]}),
    "padded": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 0, 2], "count_include_pad": 1}),
    "ragged": (
        "AveragePool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1, "count_include_pad": 1},
    ),
    "global": ("GlobalAveragePool", {}),
}


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("fused", [True, False])
def test_pool(case: str, fused: bool) -> None:
    operator, attributes = POOLS[case]
    net = Net(x=(2, 3, 8, 7))
    out = net.op("Relu", net.op(operator, net.conv("x", 3, 4), **attributes))
    made = lowered(net.model(out), fused=lambda layer, kind: fused or kind == "activation")
    pooled = "AveragePool" if operator.startswith("Global") else operator
    assert brief(made) == (["Conv+pool", "Relu"] if fused else ["Conv", f"{pooled}+activation"])


def test_what_the_array_has_no_unit_for_runs_on_the_host() -> None:
    net = Net(x=(1, 4, 6, 6), v=(1, 2, 3, 4, 5))
    pooled = net.op("MaxPool", "x", kernel_shape=[2, 2], outputs=2)
    deep = net.op("Conv", "v", net.const(3, 2, 1, 1, 1))
    normal = net.op("LRN", net.conv("x", 4, 4), size=3)
    soft = net.op("Softmax", net.op("Flatten", normal))
    made = lowered(net.model(pooled, f"{pooled}.1", deep, soft))
    assert brief(made) == ["(MaxPool)", "(Conv)", "Conv", "(LRN)", "(Softmax)"]
    reasons = [layer.reason for layer in made.layers if isinstance(layer, HostLayer)]
    assert reasons == [
        "the array needs no output used but the first",
        "the array needs one or two spatial axes",
        "the array has no unit for LRN",
        "the array has no unit for Softmax",
    ]


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        ((0, 0, 1, 2, 0, 0, 0, 1), ["Pad"]),
        ((0, 2, 0, 0, 0, 1, 0, 0), ["Pad"]),
        ((0, 0, 0, 3, 0, 0, 0, 0), ["Pad"]),
        ((1, 1, 1, 0, 0, 0, 0, 0), ["(Pad)"]),
        ((0, 0, -1, 0, 0, 0, 0, 0), ["(Pad)"]),
    ],
    ids=str,
)
def test_pad(pads: tuple[int, ...], expected: list[str]) -> None:
    net = Net(x=(2, 3, 4, 5))
    out = net.op("Pad", "x", net.data(np.array(pads, np.int64)), net.data(np.float32(0.5)))
    assert brief(lowered(net.model(out))) == expected


def test_a_batch_norm_that_cannot_be_folded_is_a_layer() -> None:
    net = Net(x=(2, 4, 5, 5))
    norm = net.op("BatchNormalization", "x", *(net.const(4) for _ in range(4)))
    out = net.conv(net.op("Relu", norm), 4, 6)
    made = lowered(net.model(out))
    assert brief(made) == ["BatchNormalization+activation", "Conv"]


def test_a_machine_that_fuses_nothing_runs_every_node_alone() -> None:
    net = Net(x=(1, 4, 6, 6))
    a = net.conv("x", 4, 4)
    pooled = net.op("AveragePool", net.op("Relu", net.op("Add", a, "x")), kernel_shape=[6, 6])
    net.op("Gemm", net.op("Flatten", pooled), net.const(4, 3), net.const(3), beta=0.5)
    made = lowered(net.model(), replace(snowflake(), fuses=frozenset()))
    assert brief(made) == ["Conv", "Add", "Add", "Relu", "AveragePool", "Gemm", "Add"]


def test_every_operator_of_the_array_has_a_rule() -> None:
    layers = {name for name, row in operators.OPERATORS.items() if row.kind not in ("alias", "concat")}
    assert layers == rules.RULES.keys()
