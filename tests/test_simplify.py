"""Simplification: the same numbers as onnxruntime computes on the whole model, and the promised forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dnnc import onnx_import
from dnnc.graph import Graph, Node
from dnnc.simplify import RULES, MergePads, RemoveIdentities, simplify
from dnnc_runtime.errors import ModelFault
from networks import SHAPE_ONLY
from test_graph import renamed

Array = NDArray[Any]
OPSETS = (7, 9, 10, 11, 13, 18)


def session(proto: ModelProto) -> Any:
    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def evaluate(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """Every value of a graph, computed node by node."""
    known = dict(feeds)
    for node in graph.nodes:
        proto = onnx_import.single_node_model(graph, node)
        results = session(proto).run(None, {i.name: known[i.name] for i in proto.graph.input})
        known |= zip(filter(None, node.outputs), results, strict=True)
    return known


class Net:
    """A model under construction: a chain from x, with every constant an initialiser."""

    def __init__(self, shape: tuple[int, ...], opset: int = 13, seed: int = 0) -> None:
        self.opset, self.shape, self.random = opset, shape, np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.last = "x"
        self.first = shape

    def constant(self, data: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(data, dtype)
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.random.uniform(0.5, 1.5, shape) * self.random.choice([-1, 1], shape))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> Net:
        """Appends a node; its input is the last one's output unless told."""
        out = f"v{len(self.nodes)}"
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs or (self.last,), [out], name, **attributes))
        self.last = out
        return self

    def on(self, operator: str, *others: str, **attributes: Any) -> Net:
        """Appends a node that reads the last one's output, then others."""
        return self.add(operator, self.last, *others, **attributes)

    def model(self, *outputs: str) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.first)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs or (self.last,)],
            [numpy_helper.from_array(data, name) for name, data in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def agree(proto: ModelProto, rules: tuple[Any, ...] = RULES) -> Graph:
    """The simplified graph; every value that it has in common with the model is the same."""
    before = onnx_import.load(proto)
    after = simplify(before, rules)
    x = np.random.default_rng(1).standard_normal(before.value("x").shape, np.float32)
    found = evaluate(after, {"x": x})
    names = [o.name for o in proto.graph.output if o.name != "x"]
    produced = {name for node in proto.graph.node for name in node.output}
    shared = sorted(produced & found.keys() - set(names))
    whole = onnx_import.with_outputs(proto, [*names, *shared])
    for name, expected in zip([*names, *shared], session(whole).run(None, {"x": x}), strict=True):
        scale = np.abs(expected).max(initial=1e-6)
        np.testing.assert_allclose(found[name] / scale, expected / scale, atol=2e-5, err_msg=name)
        assert found[name].shape == after.value(name).shape
    return after


def operators(graph: Graph) -> list[str]:
    return [node.operator for node in graph.nodes]


# Random networks

Step = Callable[[Net, st.DrawFn], None]


def conv(net: Net, draw: st.DrawFn) -> None:
    channels, group = net.shape[1], draw(st.sampled_from([1, net.shape[1]]))
    k, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    maps = channels * draw(st.integers(1, 2))
    names = [net.weights(maps, channels // group, k, k), *([net.weights(maps)] if draw(st.booleans()) else [])]
    paddings: list[dict[str, Any]] = [{}, {"pads": [0, 1, 2, 0]}]
    paddings += [{"auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")]
    net.on("Conv", *names, strides=[stride, stride], group=group, **draw(st.sampled_from(paddings)))


def batch_norm(net: Net, draw: st.DrawFn) -> None:
    c = net.shape[1]
    positive = net.constant(net.random.uniform(0.5, 2, c))
    net.on("BatchNormalization", net.weights(c), net.weights(c), net.weights(c), positive, epsilon=0.01)


def affine(net: Net, draw: st.DrawFn) -> None:
    operator = draw(st.sampled_from(["Add", "Mul", "Sub"]))
    c = net.shape[1]
    other = net.weights(*draw(st.sampled_from([(), (1,), (c, 1, 1), (1, c, 1, 1), (1, 1, 1), net.shape])))
    pair = draw(st.permutations([net.last, other]))
    net.add(operator, *pair)


def pad(net: Net, draw: st.DrawFn) -> None:
    pads = [0, 0, 1, draw(st.integers(0, 1)), 0, 0, draw(st.integers(0, 1)), 1]
    value = draw(st.sampled_from([0.0, 0.0, 1.0]))
    if net.opset < 11:
        net.on("Pad", pads=pads, value=value)
    else:
        net.on("Pad", net.constant(pads, np.int64), net.constant(value))


def pool(net: Net, draw: st.DrawFn) -> None:
    operator = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    extra: dict[str, Any] = draw(st.sampled_from([{}, {"pads": [1, 0, 0, 1]}, {"auto_pad": "SAME_UPPER"}]))
    if operator == "AveragePool" and draw(st.booleans()):
        extra = {**extra, "count_include_pad": 1}
    if net.opset >= 10 and not extra:
        extra = {"ceil_mode": draw(st.integers(0, 1))}
    net.on(operator, kernel_shape=[2, 2], strides=[2, 1], **extra)


def clip(net: Net, draw: st.DrawFn) -> None:
    if net.opset < 11:
        net.on("Clip", min=-1.0, max=6.0)
    else:
        net.on("Clip", *draw(st.sampled_from([("", net.constant(2)), (net.constant(0), net.constant(6)), ()])))


def many(net: Net, draw: st.DrawFn) -> None:
    # Before opset 8 a Sum did not broadcast.
    others = [net.weights(*(net.shape if net.opset < 8 else (1,))) for _ in range(draw(st.integers(0, 2)))]
    inputs = [net.last] * draw(st.integers(1, 3)) + others
    net.add("Sum", *inputs)


def nothing(net: Net, draw: st.DrawFn) -> None:
    operator = draw(st.sampled_from(["Identity", "Dropout", "Cast", "Transpose", "Reshape", "Concat"]))
    extra: dict[str, dict[str, Any]] = {
        "Cast": {"to": TensorProto.FLOAT},
        "Concat": {"axis": -3 if net.opset > 10 else 1},
        "Transpose": {"perm": [0, 1, 2, 3]},
    }
    names = [net.constant([0, 0, 0, 0], np.int64)] if operator == "Reshape" else []
    net.on(operator, *names, **extra.get(operator, {}))


def residual(net: Net, draw: st.DrawFn) -> None:
    before = net.last
    step = draw(st.sampled_from([nothing, affine, clip, batch_norm]))
    step(net, draw)
    net.add("Add", before, net.last)


def simple(net: Net, draw: st.DrawFn) -> None:
    net.on(draw(st.sampled_from(["Relu", "LeakyRelu", "HardSigmoid", "Tanh"])))


def gemm(net: Net, draw: st.DrawFn) -> None:
    net.on("Flatten")
    rows, columns, n = net.shape[0], int(np.prod(net.shape[1:])), 3
    turned = draw(st.integers(0, 1))
    bias = draw(st.sampled_from([(), (1,), (n,), (1, n), (rows, n), (rows, 1)]))
    factors = {"alpha": draw(st.sampled_from([1.0, 0.5])), "beta": draw(st.sampled_from([1.0, 2.0]))}
    net.on(
        "Gemm", net.weights(*((n, columns) if turned else (columns, n))), net.weights(*bias), transB=turned, **factors
    )
    net.on("Mul", net.weights(n)).on("Sub", net.weights(1, n))


def matmul(net: Net, draw: st.DrawFn) -> None:
    net.on("MatMul", net.weights(net.shape[-1], 4))
    net.on("Add", net.weights(*draw(st.sampled_from([(4,), (1, 1, 4), (1,), (net.shape[-2], 1)]))))


def head(net: Net, draw: st.DrawFn) -> None:
    net.on("GlobalAveragePool")
    if net.opset < 13:
        net.on("Squeeze", axes=[2, -1 if net.opset > 10 else 3]).on("Unsqueeze", axes=[0])
    else:
        net.on("Squeeze", net.constant([2, -1], np.int64)).on("Unsqueeze", net.constant([0], np.int64))


STEPS: tuple[Step, ...] = (conv, conv, batch_norm, affine, pad, pool, clip, many, nothing, residual, simple)


@st.composite
def networks_of(draw: st.DrawFn) -> ModelProto:
    """A chain of steps on small maps, and how it may end."""
    net = Net((2, 2, 6, 7), draw(st.sampled_from(OPSETS)), draw(st.integers(0, 9)))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        if min(net.shape[2:]) < 3 and step in (conv, pool):
            continue
        step(net, draw)
        net.shape = onnx_import.load(net.model()).value(net.last).shape
    for step in draw(st.lists(st.sampled_from([gemm, matmul, head, simple]), max_size=1)):
        step(net, draw)
    # Now and then an inner value is an output too.
    inner = draw(st.lists(st.sampled_from([n.output[0] for n in net.nodes]), max_size=1))
    return net.model(*dict.fromkeys([*inner, net.last]))


@settings(max_examples=120)
@given(networks_of())
def test_simplification_preserves_the_numbers(proto: ModelProto) -> None:
    graph = agree(proto)
    assert graph.outputs == tuple(output.name for output in proto.graph.output)
    assert Graph.parse(str(graph)) == graph
    assert str(simplify(graph)) == str(graph)
    for node in graph.nodes:
        hold_promises(node)


def hold_promises(node: Node) -> None:
    """What the description of dnnc.simplify says of the forms of nodes."""
    attributes = dict(node.attributes)
    assert node.operator not in {"Dropout", "GlobalAveragePool", "Sum"}
    assert "auto_pad" not in attributes
    if node.operator in {"Conv", "MaxPool", "AveragePool"}:
        assert {"kernel_shape", "strides", "pads"} <= attributes.keys()
    if node.operator in {"Clip", "Squeeze", "Unsqueeze", "Pad"}:
        assert len(node.inputs) == 1
    if node.operator == "Gemm":
        assert not {"alpha", "beta"} & attributes.keys()


@settings(max_examples=25)
@given(networks_of())
def test_renaming_changes_nothing_but_names(proto: ModelProto) -> None:
    graph = onnx_import.load(proto)
    assert simplify(renamed(graph, "z")) == renamed(simplify(graph), "z")


# Each rule by example


@pytest.mark.parametrize("name", SHAPE_ONLY)
def test_shape_only_networks_shrink_to_what_computes(name: str) -> None:
    path = Path(onnx.backend.test.__file__).parent / "data" / "light" / f"light_{name}.onnx"
    graph = simplify(onnx_import.load(path))
    count = Counter(operators(graph))
    # DenseNet normalises before its convolutions: 62 of its 121 cannot be folded, and take their scales and shifts.
    assert count["BatchNormalization"] == (62 if name == "densenet121" else 0)
    assert not {"Mul", "Sum", "Dropout", "GlobalAveragePool"} & count.keys()
    if name == "resnet50":
        assert len(graph.nodes) == 123
        conv = graph.nodes[0]
        assert len(conv.nodes) == 2


def test_a_folded_convolution_keeps_its_name_and_makes_the_last_value() -> None:
    net = Net((1, 2, 5, 5))
    w = net.weights(3, 2, 3, 3)
    net.on("Conv", w).on("BatchNormalization", *(net.constant(np.full(3, v)) for v in (2, 3, 1, 4)), epsilon=0.0)
    net.on("Mul", net.constant(np.full((3, 1, 1), 5)))
    graph = agree(net.model())
    (conv,) = graph.nodes
    assert (conv.name, conv.outputs, conv.nodes) == ("n0", ("v2",), ("n0", "n1", "n2"))
    assert conv.inputs[1] == f"{w}:folded"
    # 2 / sqrt(4) * 5 and (3 - 1 * 2 / sqrt(4)) * 5.
    np.testing.assert_allclose(graph.constant(conv.inputs[1]), net.constants[w] * 5, rtol=1e-6)
    assert graph.constant(conv.inputs[2]).tolist() == [10, 10, 10]
    assert graph.constant(conv.inputs[2]).dtype == np.float32


def test_weights_that_two_nodes_share_are_folded_apart() -> None:
    net = Net((1, 2, 5, 5))
    w = net.weights(2, 2, 1, 1)
    net.on("Conv", w).on("Mul", net.weights(2, 1, 1)).on("Conv", w).on("Mul", net.weights(2, 1, 1)).on("Conv", w)
    graph = agree(net.model())
    assert len({node.inputs[1] for node in graph.nodes}) == 3
    assert graph.nodes[-1].inputs[1] == w


def test_a_constant_that_is_scale_and_shift_is_folded_apart() -> None:
    net = Net((1, 2, 5, 5))
    c = net.constant([1, 2])
    net.on("BatchNormalization", c, c, c, c).on("Mul", net.weights(2, 1, 1)).on("Add", net.weights(2, 1, 1))
    assert operators(agree(net.model())) == ["BatchNormalization"]


def test_what_another_node_or_the_user_reads_is_not_folded_away() -> None:
    net = Net((1, 2, 5, 5)).on("Relu")
    net.on("Conv", net.weights(2, 2, 1, 1)).on("Mul", net.weights(2, 1, 1))
    assert operators(agree(net.model("v1", "v2"))) == ["Relu", "Conv", "Mul"]
    net.add("Add", "v1", "v2")
    assert operators(agree(net.model())) == ["Relu", "Conv", "Mul", "Add"]


def test_scales_along_other_axes_are_not_folded() -> None:
    net = Net((1, 2, 5, 2))
    net.on("Conv", net.weights(2, 2, 1, 1)).on("Mul", net.weights(2))
    assert operators(agree(net.model())) == ["Conv", "Mul"]
    net = Net((1, 2, 3))
    net.on("MatMul", net.weights(3, 2)).on("BatchNormalization", *[net.constant([1, 2])] * 4)
    assert operators(agree(net.model())) == ["MatMul", "BatchNormalization"]


def test_a_matmul_with_a_bias() -> None:
    net = Net((4, 3))
    net.on("MatMul", net.weights(3, 2)).on("Add", net.weights(2))
    assert operators(agree(net.model())) == ["Gemm"]
    net = Net((1, 4, 3))
    net.on("MatMul", net.weights(3, 2)).on("Add", net.weights(2)).on("Mul", net.weights(2))
    graph = agree(net.model())
    assert operators(graph) == ["MatMul"]
    assert [graph.value(name).shape for name in graph.nodes[0].inputs] == [(1, 4, 3), (3, 2), (2,)]


@pytest.mark.parametrize(
    ("pads", "value", "before", "reader", "merged"),
    [
        ((0, 0, 1, 2, 0, 0, 0, 1), 0.0, "Tanh", "Conv", True),
        ((0, 0, 1, 2, 0, 0, 0, 1), 1.0, "Tanh", "Conv", False),
        ((0, 1, 1, 2, 0, 0, 0, 1), 0.0, "Tanh", "Conv", False),
        ((0, 0, 1, -1, 0, 0, 0, 1), 0.0, "Tanh", "Conv", False),
        ((0, 0, 1, 1, 0, 0, 1, 1), 0.0, "Tanh", "AveragePool", True),
        ((0, 0, 1, 1, 0, 0, 3, 1), 0.0, "Tanh", "AveragePool", False),
        ((0, 0, 1, 1, 0, 0, 1, 1), 0.0, "Relu", "MaxPool", True),
        ((0, 0, 1, 1, 0, 0, 1, 1), 0.0, "Tanh", "MaxPool", False),
        ((0, 0, 1, 1, 0, 0, 1, 1), -np.inf, "Tanh", "MaxPool", True),
    ],
)
def test_a_pad_is_merged_where_that_is_exact(
    pads: tuple[int, ...], value: float, before: str, reader: str, merged: bool
) -> None:
    net = Net((1, 2, 5, 5)).on(before)
    net.on("Pad", net.constant(pads, np.int64), net.constant(value))
    if reader == "Conv":
        net.on("Conv", net.weights(2, 2 + pads[1] + pads[5], 2, 2))
    else:
        net.on(reader, kernel_shape=[3, 3])
    graph = agree(net.model())
    assert operators(graph) == [before, *([] if merged else ["Pad"]), reader]
    if merged:
        assert graph.nodes[-1].integers("pads") == pads[2:4] + pads[6:]
        assert graph.nodes[-1].nodes == ("n1", "n2")


@pytest.mark.parametrize(("opset", "keep"), [(13, 1), (13, 0), (18, 1), (18, 0)])
def test_a_mean_over_the_map_is_a_pool(opset: int, keep: int) -> None:
    net = Net((2, 3, 4, 5), opset)
    if opset < 18:
        net.on("ReduceMean", axes=[-1, 2], keepdims=keep)
    else:
        net.on("ReduceMean", net.constant([3, -2], np.int64), keepdims=keep)
    assert operators(agree(net.model())) == ["AveragePool"] + ["Squeeze"] * (not keep)


def test_a_mean_over_other_axes_stays() -> None:
    assert operators(agree(Net((2, 3, 4, 5)).on("ReduceMean", axes=[1]).model())) == ["ReduceMean"]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_becomes_numbers(auto_pad: str) -> None:
    net = Net((1, 2, 6, 7)).on("Relu")
    net.on("Conv", net.weights(2, 2, 2, 3), auto_pad=auto_pad, strides=[1, 2])
    (_, conv) = agree(net.model()).nodes
    # Rows: 6 outputs of 2 taps need 7. Columns: 4 outputs, 2 apart, of 3 taps need 9.
    expected = {"SAME_UPPER": (0, 1, 1, 1), "SAME_LOWER": (1, 1, 0, 1), "VALID": (0, 0, 0, 0)}
    assert conv.integers("pads") == expected[auto_pad]


def test_a_sum_is_a_chain_whose_last_link_keeps_the_name() -> None:
    net = Net((1, 2, 3, 3)).on("Relu")
    net.add("Sum", "x", "v0", net.weights(2, 1, 1), "x")
    graph = agree(net.model())
    assert [(n.name, n.operator, n.nodes) for n in graph.nodes[1:]] == [
        ("n1:1", "Add", ("n1",)),
        ("n1:2", "Add", ("n1",)),
        ("n1", "Add", ("n1",)),
    ]
    assert graph.outputs == ("v1",)


def test_identities_go_and_the_value_keeps_the_outputs_name() -> None:
    net = Net((1, 2, 3, 3)).on("Relu").on("Identity").on("Dropout").on("Tanh").on("Identity")
    graph = agree(net.model())
    assert [(n.name, n.inputs, n.outputs, n.nodes) for n in graph.nodes] == [
        ("n0", ("x",), ("v0",), ("n0", "n1", "n2")),
        ("n3", ("v0",), ("v4",), ("n3", "n4")),
    ]


def test_an_identity_between_input_and_outputs_stays() -> None:
    net = Net((1, 2, 3, 3)).on("Identity").on("Identity")
    assert operators(agree(net.model())) == ["Identity"]
    net = Net((1, 2, 3, 3)).on("Relu").on("Sum")
    assert operators(agree(net.model("v0", "v1"))) == ["Relu", "Identity"]


def test_a_pad_that_shifts_is_no_identity() -> None:
    net = Net((1, 2, 3, 3)).on("Relu")
    net.on("Pad", net.constant([0, 0, 1, 0, 0, 0, -1, 0], np.int64))
    assert operators(agree(net.model())) == ["Relu", "Pad"]


def test_dead_nodes_go() -> None:
    net = Net((1, 2, 3, 3)).on("Relu").on("Tanh").on("Sigmoid")
    assert operators(agree(net.model("v0"))) == ["Relu"]


def test_a_gemm_with_activations_for_operands_keeps_its_factors() -> None:
    net = Net((3, 3)).on("Relu")
    net.add("Gemm", "x", "v0", "x", alpha=0.5, beta=2.0, transA=1)
    (_, gemm_node) = agree(net.model()).nodes
    assert dict(gemm_node.attributes) == {"alpha": 0.5, "beta": 2.0, "transA": 1}
    net = Net((3, 3)).on("Relu")
    net.add("Gemm", "x", "v0", "x", transA=1)
    assert operators(agree(net.model())) == ["Relu", "Gemm", "Add"]


def test_clips_of_integers_and_computed_bounds_stay_as_they_are() -> None:
    net = Net((1, 2, 3, 3)).on("ReduceMax", keepdims=0)
    net.add("Clip", "x", "", "v0")
    assert agree(net.model()).nodes[-1].inputs == ("x", "", "v0")
    net = Net((1, 2, 3, 3)).on("Cast", to=TensorProto.INT64)
    net.on("Clip", net.constant(0, np.int64)).on("Cast", to=TensorProto.FLOAT)
    assert len(agree(net.model()).nodes[1].inputs) == 2


def test_global_max_pools_and_one_dimension() -> None:
    assert operators(agree(Net((1, 2, 5)).on("GlobalMaxPool").model())) == ["MaxPool"]
    net = Net((1, 2, 5))
    net.on("Conv", net.weights(2, 2, 3), auto_pad="SAME_LOWER").on("Add", net.weights(2, 1))
    assert operators(agree(net.model())) == ["Conv"]


def test_rules_are_chosen_and_observed() -> None:
    proto = Net((1, 2, 3, 3)).on("Relu").on("Identity").on("Tanh").model()
    seen: list[tuple[object, int]] = []
    rules = (MergePads(), RemoveIdentities())
    simplify(onnx_import.load(proto), rules, lambda rule, graph: seen.append((rule, len(graph.nodes))))
    assert seen == [(MergePads(), 3), (RemoveIdentities(), 2)]


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        ((4, 2, 3, 3), {}, "node 'n0' (Conv): 3 input channels, 1 groups"),
        ((4, 1, 3, 3), {"group": 3}, "do not fit weights [4, 1, 3, 3]"),
    ],
)
def test_convolutions_that_do_not_fit_their_weights_are_refused(
    shape: tuple[int, ...], attributes: dict[str, int], message: str
) -> None:
    net = Net((1, 3, 5, 5))
    net.on("Conv", net.weights(*shape), **attributes)
    graph = onnx_import.load(net.model())
    with pytest.raises(ModelFault) as caught:
        simplify(graph)
    assert message in str(caught.value)
