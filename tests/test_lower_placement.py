"""What lies where: concatenations in place, shape-only nodes, and the copies that remain."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dnnc import onnx_import
from dnnc.layer import Layer, Lowered
from dnnc.lower import lower
from dnnc.simplify import simplify
from lowering import Net, brief, lowered, snowflake


def views(made: Lowered) -> dict[str, tuple[str, int]]:
    """The tensor and offset of every placed value."""
    return {p.name: (p.view.tensor, p.view.offset) for p in made.placements}


def test_concatenations_nest_in_place() -> None:
    net = Net(x=(1, 4, 5, 5))
    a, b, c = (net.conv("x", 4, k) for k in (2, 3, 4))
    inner = net.op("Concat", a, net.op("Relu", b), axis=1)
    outer = net.op("Concat", c, inner, axis=1)
    made = lowered(net.model(net.op("MaxPool", outer, kernel_shape=[2, 2]), inner))
    assert brief(made) == ["Conv", "Conv", "Conv+activation", "MaxPool"]
    assert views(made)[inner] == (outer, 4)
    assert views(made)[a] == (outer, 4)
    assert views(made)[c] == (outer, 0)


def test_concatenations_that_grow_share_one_tensor() -> None:
    net = Net(x=(1, 4, 5, 5))
    parts = [net.conv("x", 4, 4)]
    for _ in range(3):
        joined = net.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        parts.append(net.conv(net.op("Relu", joined), 4 * len(parts), 4))
    last = net.op("Concat", *parts, axis=1)
    made = lowered(net.model(last))
    assert brief(made) == ["Conv", "Relu", "Conv", "Relu", "Conv", "Relu", "Conv"]
    assert {tensor for name, (tensor, _) in views(made).items() if name.startswith("concat")} == {last}


def test_what_cannot_be_computed_in_place_is_copied_into_a_concatenation() -> None:
    net = Net(x=(1, 4, 5, 5))
    a = net.conv("x", 4, 2)
    first = net.op("Concat", a, "x", net.const(1, 1, 5, 5), a, axis=1)
    second = net.op("Concat", net.conv(first, 9, 2), a, axis=3)
    made = lowered(net.model(first, second))
    assert brief(made) == ["Conv", "copy", "copy", "copy", "copy", "Conv"]
    assert all(layer.nodes for layer in made.layers)


def test_detection_heads_are_computed_into_their_rows() -> None:
    net = Net(x=(1, 4, 6, 6))
    heads: list[str] = []
    for stride in (1, 2):
        head = net.op("Transpose", net.conv("x", 4, 6, strides=[stride, stride]), perm=(0, 2, 3, 1))
        heads.append(net.reshape(head, 1, -1, 3))
    made = lowered(net.model(net.op("Concat", *heads, axis=1)))
    assert brief(made) == ["Conv", "Conv"]


def test_a_channel_shuffle_is_one_copy() -> None:
    net = Net(x=(1, 4, 5, 5))
    split = net.reshape(net.conv("x", 4, 6, 1), 1, 2, 3, 5, 5)
    shuffled = net.reshape(net.op("Transpose", split, perm=(0, 2, 1, 3, 4)), 1, 6, 5, 5)
    made = lowered(net.model(net.conv(shuffled, 6, 6, group=6)))
    assert brief(made) == ["Conv", "copy", "Conv"]
    assert made.layers[1].name == "conv4:copy0"


def test_a_flattened_map_is_read_as_it_lies() -> None:
    net = Net(x=(2, 3, 4, 5))
    flat = net.op("Flatten", net.op("Relu", net.conv("x", 3, 6)))
    made = lowered(net.model(net.op("Gemm", flat, net.const(7, 120), net.const(7), transB=1)))
    assert brief(made) == ["Conv+activation", "Gemm"]


def test_a_reshape_across_channels_last_is_a_copy() -> None:
    net = Net(x=(1, 3, 5, 5))
    made = lowered(net.model(net.op("Relu", net.reshape(net.conv("x", 3, 3), 5, 15))))
    assert brief(made) == ["Conv", "copy", "Relu"]
    assert made.layers[1].nodes == ("reshape1",)


def test_a_model_written_channels_last_needs_no_copy() -> None:
    net = Net(x=(1, 6, 5, 3))
    a = net.conv(net.op("Transpose", "x", perm=(0, 3, 1, 2)), 3, 4)
    back = net.op("Sigmoid", net.op("Transpose", a, perm=(0, 2, 3, 1)))
    made = lowered(net.model(net.op("Softmax", back, axis=3)))
    assert brief(made) == ["Conv", "Sigmoid", "(Softmax)"]


def test_five_loops_are_too_many_for_a_copy() -> None:
    net = Net(x=(2, 2, 2, 2, 2))
    turned = net.op("Transpose", net.op("Relu", "x"), perm=(4, 3, 2, 1, 0))
    made = lowered(net.model(net.op("Relu", net.op("Add", turned, "x"))))
    assert brief(made) == ["Relu", "(Add)", "Relu"]


def test_inputs_and_constants_may_be_outputs() -> None:
    net = Net(x=(1, 2))
    outputs = net.op("Relu", "x"), net.op("Identity", "x"), net.op("Identity", net.const(2, 3))
    made = lowered(net.model(*outputs))
    assert brief(made) == ["Relu"]
    assert {*outputs} <= {p.name for p in made.placements}


def test_squeeze_and_excitation() -> None:
    net = Net(x=(1, 4, 6, 6))
    a = net.op("Relu", net.conv("x", 4, 8))
    s = net.conv(net.op("Relu", net.conv(net.op("GlobalAveragePool", a), 8, 2, 1)), 2, 8, 1)
    made = lowered(net.model(net.op("Mul", a, net.op("HardSigmoid", s))))
    assert brief(made) == ["Conv+activation", "AveragePool", "Conv+activation", "Conv+activation", "Mul"]
    assert isinstance(layer := made.layers[-1], Layer)
    assert layer.shape.second == (True, False, False, True)


def test_equal_weights_share_a_tensor_and_nothing_is_loaded() -> None:
    net = Net(x=(1, 4, 5, 5), y=(1, 4, 5, 5))
    weights = net.weights(4, 4, 3, 3)
    graph = simplify(onnx_import.load(net.model(*(net.op("Conv", name, weights) for name in ("x", "y")))))

    def load() -> NDArray[Any]:
        raise AssertionError("a constant was loaded")

    unread = graph.rewrite(constants={value.name: load for value in graph.values if value.constant})
    assert [t.name for t in lower(unread, snowflake()).tensors if t.constant] == [weights]
