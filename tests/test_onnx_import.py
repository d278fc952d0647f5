"""Import: what a model says becomes a graph with every shape known, and what cannot be is refused in one line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, shape_inference

from dnnc import onnx_import
from dnnc.graph import Graph, Node
from dnnc.onnx_import.reading import NEWEST_OPSET
from dnnc.simplify import simplify
from dnnc_runtime.errors import Fault, ModelFault, UsageFault
from networks import SHAPE_ONLY

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shape = Sequence[int | str | None] | None


def model(
    *nodes: NodeProto,
    inputs: dict[str, Shape] | None = None,
    outputs: dict[str, Shape] | None = None,
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    dtype: int = FLOAT,
) -> ModelProto:
    """A model of these nodes; by default x (1, 3, 8, 8) to y."""
    given = {name: numpy_helper.from_array(np.asarray(data), name) for name, data in (constants or {}).items()}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, dtype, s) for n, s in (inputs or {"x": (1, 3, 8, 8)}).items()],
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (outputs or {"y": None}).items()],
        list(given.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def run(proto: ModelProto, feeds: dict[str, NDArray[Any]]) -> list[Any]:
    session: Any = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def refused(proto: ModelProto | str | Path, kind: type[Fault] = ModelFault, **shapes: tuple[int, ...]) -> str:
    """The message with which a model is refused, one line long."""
    with pytest.raises(kind) as caught:
        onnx_import.load(proto, shapes)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def light(name: str) -> Path:
    """The file of a network that the onnx package ships as shapes only."""
    return Path(onnx.backend.test.__file__).parent / "data" / "light" / f"light_{name}.onnx"


# Shapes


@pytest.mark.parametrize("name", SHAPE_ONLY)
def test_shape_only_networks_agree_with_inference_on_the_whole_model(name: str) -> None:
    graph = onnx_import.load(light(name))
    inferred = shape_inference.infer_shapes(
        ModelProto.FromString(light(name).read_bytes()), strict_mode=True, data_prop=True
    ).graph
    known = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*inferred.value_info, *inferred.output)
    }
    produced = [value for n in graph.nodes for value in n.outputs if value]
    assert {value: graph.value(value).shape for value in produced} == {value: known[value] for value in produced}
    assert graph == Graph.parse(str(graph))
    assert len(graph.inputs) == 1
    assert not {"Constant", "ConstantOfShape", "Unsqueeze"} & {n.operator for n in graph.nodes}


def test_constants_of_shape_only_networks_are_computed_when_they_are_wanted() -> None:
    graph = onnx_import.load(light("densenet121"))
    norm = next(n for n in graph.nodes if n.operator == "BatchNormalization")
    assert [graph.constant(name).shape for name in norm.inputs[1:]] == [(64,)] * 4
    mul = next(n for n in graph.nodes if n.operator == "Mul")
    assert graph.constant(mul.inputs[1]).shape == graph.value(mul.inputs[1]).shape == (64, 1, 1)


@pytest.mark.parametrize("opset", range(7, NEWEST_OPSET + 1))
def test_every_opset_is_read(opset: int) -> None:
    conv = node("Conv", "x w", "c", auto_pad="SAME_UPPER", strides=[2, 2])
    graph = onnx_import.load(model(conv, node("Relu", "c"), constants={"w": weights(5, 3, 3, 3)}, opset=opset))
    assert graph.value("y").shape == (1, 5, 4, 4)
    assert graph.opset() == opset


def test_shape_computations_become_constants() -> None:
    """The flatten of older exporters: x.view(x.shape[0], -1), and one with arithmetic that onnx does not propagate."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 rest", "flat", axis=0),
        node("Reshape", "x flat", "r"),
        node("Size", "x", "size"),
        node("Div", "size two", "half"),
        node("Reshape", "half axes1", "half1"),
        node("Concat", "two1 half1", "pair", axis=0),
        node("Reshape", "r pair"),
    ]
    one = {"zero": np.int64(0), "axes": [0], "rest": [-1], "two": np.int64(2), "axes1": [1], "two1": [2]}
    proto = model(*nodes, constants={name: np.asarray(data, np.int64) for name, data in one.items()})
    graph = onnx_import.load(proto)
    assert [(n.operator, graph.value(n.outputs[0]).shape) for n in graph.nodes] == [
        ("Reshape", (1, 192)),
        ("Reshape", (2, 96)),
    ]
    assert graph.constant("pair").tolist() == [2, 96]


def test_sizes_that_depend_on_data_of_constants_are_found() -> None:
    nodes = [node("NonZero", "c", "at"), node("Transpose", "at", "rows"), node("GatherND", "c rows", "picked")]
    add = node("Add", "x picked")
    proto = model(*nodes, add, inputs={"x": (2,)}, constants={"c": np.array([0, 3, 0, 5], np.float32)})
    graph = onnx_import.load(proto)
    assert [n.operator for n in graph.nodes] == ["Add"]
    assert graph.constant("picked").tolist() == [3, 5]


def test_constant_nodes_of_every_form() -> None:
    nodes = [
        node("Constant", "", "a", value=numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32))),
        node("Constant", "", "b", value_float=2.0),
        node("Constant", "", "c", value_floats=[1.0] * 8),
        node("Add", "x a", "p"),
        node("Add", "p b", "q"),
        node("Add", "q c"),
    ]
    graph = onnx_import.load(model(*nodes))
    assert [graph.value(name).shape for name in "abc"] == [(1, 3, 1, 1), (), (8,)]
    assert graph.constant("b") == np.float32(2)
    assert "value_string" in refused(model(node("Constant", "", "a", value_string="text"), node("Relu", "x")))


def test_the_order_of_the_file_is_kept_and_any_other_put_right() -> None:
    nodes = [node("Relu", "x", "a"), node("Tanh", "x", "b"), node("Add", "a b")]
    assert [n.operator for n in onnx_import.load(model(*nodes)).nodes] == ["Relu", "Tanh", "Add"]
    assert [n.operator for n in onnx_import.load(model(*nodes[::-1])).nodes] == ["Tanh", "Relu", "Add"]


def test_initialisers_that_are_also_inputs_are_constants() -> None:
    proto = model(
        node("Conv", "x w"), inputs={"w": (4, 3, 1, 1), "x": (1, 3, 8, 8)}, constants={"w": weights(4, 3, 1, 1)}
    )
    proto.ir_version = 3
    graph = onnx_import.load(proto)
    assert graph.inputs == ("x",)
    assert graph.value("w").constant


def test_nodes_are_named_as_in_the_model_or_after_their_first_output() -> None:
    nodes = [
        node("Relu", "x", "a", name="first"),
        node("Relu", "a", "b", name="same"),
        node("Relu", "b", "c", name="same"),
        node("Relu", "c"),
    ]
    assert [n.name for n in onnx_import.load(model(*nodes)).nodes] == ["first", "b", "c", "y"]


def test_outputs_may_be_inputs_or_constants() -> None:
    constant = node("Constant", "", "c", value_float=2.0)
    graph = onnx_import.load(model(constant, node("Shape", "x", "s"), outputs={"x": None, "c": None, "s": None}))
    assert graph.outputs == ("x", "c", "s")
    assert not graph.nodes


def test_outputs_that_nothing_reads_are_absent() -> None:
    graph = onnx_import.load(model(node("Dropout", "x", "y mask"), opset=11))
    assert graph.nodes == (Node("y", "Dropout", ("x",), ("y",)),)


def test_model_local_functions_are_inlined() -> None:
    proto = model(node("Twice", "x", domain="local"), opset=17)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    body = [node("Relu", "a", "m"), node("Tanh", "m", "b")]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    graph = onnx_import.load(proto)
    assert [n.operator for n in graph.nodes] == ["Relu", "Tanh"]
    assert graph.outputs == ("y",)


# Input shapes


def test_open_dimensions_are_given_and_names_hold_for_all_inputs() -> None:
    proto = model(node("Add", "x z"), inputs={"x": ("N", 3, "H", "H"), "z": ("N", 3, "H", 1)})
    graph = onnx_import.load(proto, {"x": (2, 3, 5, 5)})
    assert [graph.value(name).shape for name in "xzy"] == [(2, 3, 5, 5), (2, 3, 5, 1), (2, 3, 5, 5)]
    message = refused(proto)
    assert message.startswith("input 'x': dimensions 0 ('N'), 2 ('H'), 3 ('H') not fixed by the model")
    assert message.endswith("e.g. --input-shape x:1x3x224x224")
    assert refused(proto, UsageFault, x=(2, 3, 5, 6)).endswith("dimension 3 is 6, where the model has 5")
    assert refused(proto, UsageFault, x=(2, 4, 5, 5)).endswith("dimension 1 is 4, where the model has 3")
    assert refused(proto, UsageFault, x=(2, 3, 5)).endswith("has 3 dimensions, the model's input has 4")
    assert refused(proto, UsageFault, x=(0, 3, 5, 5)).endswith("every dimension must be at least 1")
    assert refused(proto, UsageFault, t=(1,)) == "--input-shape t: the model has no such input; its inputs are x, z"


def test_an_unnamed_open_dimension_and_an_absent_shape() -> None:
    assert "dimension 0 not fixed" in refused(model(node("Relu", "x"), inputs={"x": (None, 3, 2, 2)}))
    assert "dimension 0 not fixed" in refused(model(node("Relu", "x"), inputs={"x": (-1, 3, 2, 2)}))
    proto = model(node("Relu", "x"), inputs={"x": None})
    assert refused(proto) == "input 'x' has no shape; give it, e.g. --input-shape x:1x3x224x224"
    assert onnx_import.load(proto, {"x": (7,)}).value("y").shape == (7,)


# External data


def external(folder: Path) -> Path:
    """A model whose weights lie in a file beside it."""
    proto = model(node("Conv", "x w b"), constants={"w": weights(4, 3, 3, 3), "b": weights(4)})
    path = folder / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)  # pyright: ignore[reportUnknownMemberType]
    return path


def test_external_data_is_read_when_it_is_wanted(tmp_path: Path) -> None:
    path = external(tmp_path)
    graph = onnx_import.load(path)
    np.testing.assert_array_equal(graph.constant("w"), weights(4, 3, 3, 3))
    assert isinstance(graph.constant("w"), np.memmap)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(
        ModelFault, match=r"tensor 'w': external data file '.*weights.bin' ends at byte 10, \d+ expected"
    ):
        graph.constant("w")
    data.unlink()
    graph = onnx_import.load(path)
    assert graph.value("y").shape == (1, 4, 6, 6)
    with pytest.raises(ModelFault, match=r"tensor 'w': its external data file '.*weights.bin' is absent"):
        graph.constant("w")


def test_over_2_gb_of_external_data_is_imported_and_read(tmp_path: Path) -> None:
    rows, columns = 60_000, 10_000
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[columns, rows], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", "offset": "4096"}.items():
        tensor.external_data.add(key=key, value=value)
    proto = model(node("MatMul", "x w"), inputs={"x": (1, columns)})
    proto.graph.initializer.append(tensor)
    with (tmp_path / "w.bin").open("wb") as file:
        # Sparse: takes no space, but for its last word.
        file.seek(4096 + 4 * rows * columns - 4)
        file.write(np.float32(3).tobytes())
    (tmp_path / "big.onnx").write_bytes(proto.SerializeToString())
    graph = onnx_import.load(tmp_path / "big.onnx")
    assert graph.value("y").shape == (1, rows)
    assert graph.constant("w")[-1, -1] == 3


COMPILED = """
import re, dnnc
machine = dnnc.load_machine("two-buffer").with_memory("weights", 1 << 28)
compilation = dnnc.compile("big.onnx", machine, plan="layerwise")
(peak,) = re.findall("VmHWM: *([0-9]+) kB", open("/proc/self/status").read().replace("\\t", " "))
print(compilation.plan.totals.dram_bytes, peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files, and the peak of memory in KiB")
def test_over_2_gb_of_external_data_is_compiled_without_being_read(tmp_path: Path) -> None:
    """Each layer moves its 16-bit weights, its input and its output once; the process stays small.

    The machine holds all weights of a layer, which makes the program short.
    """
    size, layers = 8192, 9
    nodes = [node("MatMul", f"v{i} w{i}", f"v{i + 1}") for i in range(layers)]
    proto = model(*nodes, inputs={"v0": (1, size)}, outputs={f"v{layers}": None})
    for i in range(layers):
        tensor = TensorProto(name=f"w{i}", data_type=FLOAT, dims=[size, size], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": "w.bin", "offset": str(4 * size * size * i)}.items():
            tensor.external_data.add(key=key, value=value)
        proto.graph.initializer.append(tensor)
    (tmp_path / "big.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "w.bin").touch()
    os.truncate(tmp_path / "w.bin", 4 * size * size * layers)
    assert (tmp_path / "w.bin").stat().st_size > 2**31
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    moved, peak = map(int, done.stdout.split())
    assert moved == layers * 2 * (size * size + size + size)
    assert peak < 600 * 1024, "KiB"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../w.bin"}, "not a path inside the model's folder"),
        ({"location": "/etc/passwd"}, "not a path inside the model's folder"),
        ({}, "not a path inside the model's folder"),
        ({"location": "w.bin", "offset": "-4"}, "offset is '-4', not a number of bytes"),
        ({"location": "w.bin", "length": "8"}, "8 bytes of external data, 16 expected"),
    ],
)
def test_contradictory_external_data_is_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(100))
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    proto = model(node("Add", "x w"), inputs={"x": (4,)})
    proto.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelFault, match=message):
        onnx_import.load(tmp_path / "m.onnx").constant("w")
    with pytest.raises(ModelFault, match="give the model as a path"):
        onnx_import.load(proto).constant("w")


# Back to onnx


def test_the_source_says_where_a_graph_came_from(tmp_path: Path) -> None:
    proto = model(node("Relu", "x"))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    graph = onnx_import.load(str(path))
    assert graph.source
    assert (graph.source.path, graph.source.sha256) == (path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert onnx_import.original(graph) == proto
    loaded = onnx_import.load(proto)
    assert onnx_import.original(loaded) is proto
    assert loaded.source
    assert loaded.source.path is None
    with pytest.raises(ValueError, match="was not imported"):
        onnx_import.original(Graph.parse(str(graph)))


def test_intermediate_values_can_be_outputs() -> None:
    proto = model(node("Relu", "x", "a"), node("Tanh", "a"))
    x = weights(1, 3, 8, 8)
    a, y = run(onnx_import.with_outputs(proto, ["a", "nothing", "y"]), {"x": x})
    np.testing.assert_array_equal(a, np.maximum(x, 0))
    np.testing.assert_allclose(y, np.tanh(a), rtol=1e-5)
    assert [output.name for output in proto.graph.output] == ["y"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
def test_a_node_runs_by_itself_as_it_does_in_its_model(opset: int) -> None:
    """Softmax means different things before and after opset 13."""
    proto = model(node("LRN", "x", "l", size=3), node("Softmax", "l", axis=1), opset=opset)
    graph = onnx_import.load(proto)
    x = weights(1, 3, 8, 8)
    value = {"x": x}
    for n in graph.nodes:
        single = onnx_import.single_node_model(graph, n)
        checker.check_model(single)  # pyright: ignore[reportUnknownMemberType]
        (value[n.outputs[0]],) = run(single, {name: value[name] for name in n.inputs})
    np.testing.assert_allclose(value["y"], run(proto, {"x": x})[0], rtol=1e-6)


def test_constants_of_a_single_node_model_are_inside_unless_they_are_fed() -> None:
    proto = model(node("Conv", "x w", dilations=[1, 1]), constants={"w": weights(4, 3, 3, 3)})
    graph = onnx_import.load(proto)
    x = weights(1, 3, 8, 8)
    inside = onnx_import.single_node_model(graph, graph.nodes[0])
    fed = onnx_import.single_node_model(graph, graph.nodes[0], fed={"w"})
    assert [i.name for i in fed.graph.input] == ["x", "w"]
    np.testing.assert_allclose(run(inside, {"x": x})[0], run(fed, {"x": x, "w": weights(4, 3, 3, 3)})[0], rtol=1e-4)


def test_attributes_of_every_kind_go_to_the_graph_and_back() -> None:
    value = numpy_helper.from_array(np.array([2], np.float32))
    nodes = [
        node("Resize", "x none scales", "a", mode="nearest", cubic_coeff_a=-0.5, axes=[2, 3]),
        node("LeakyRelu", "a", alpha=0.25),
    ]
    nodes[0].input[1] = ""
    graph = onnx_import.load(model(*nodes, constants={"scales": np.array([2, 2], np.float32)}, opset=18))
    resize = graph.nodes[0]
    assert dict(resize.attributes) == {"mode": "nearest", "cubic_coeff_a": -0.5, "axes": (2, 3)}
    again = onnx_import.single_node_model(graph, resize).graph.node[0]
    assert {a.name: helper.get_attribute_value(a) for a in again.attribute} == {
        a.name: helper.get_attribute_value(a) for a in nodes[0].attribute
    }
    parsed = Graph.parse(str(graph))
    assert parsed.nodes == graph.nodes
    shape = onnx_import.load(
        model(node("ConstantOfShape", "s", value=value), inputs={"x": (1,)}, constants={"s": np.array([2], np.int64)})
    )
    assert shape.constant("y").tolist() == [2, 2]


# Refusals


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert "No such file" in refused(path, UsageFault)
    assert "directory" in refused(tmp_path, UsageFault)
    path.write_bytes(b"")
    assert refused(path).endswith("is empty; an ONNX model was expected")
    data = model(node("Conv", "x w"), constants={"w": weights(8, 3, 3, 3)}).SerializeToString()
    for wrong in (b"this is not a model, but text", b"\x08\x08", data[: len(data) // 2], data[:40]):
        path.write_bytes(wrong)
        assert "is not an ONNX model, or is cut short" in refused(path)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, cut: int) -> None:
    data = model(node("Conv", "x w"), constants={"w": weights(8, 3, 2, 2)}).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[: -cut - 1])
    assert refused(tmp_path / "m.onnx")


REFUSALS: list[tuple[ModelProto, str]] = [
    (
        model(node("Relu", "b", "a"), node("Tanh", "a", "b"), node("Add", "b x")),
        "the graph has a cycle, node 'a' (Relu)",
    ),
    (model(node("Relu", "y")), "cycle, node 'y' (Relu) -> node 'y' (Relu)"),
    (model(node("Relu", "q")), "node 'y' (Relu) reads value 'q', which nothing produces"),
    (model(node("Relu", "x", "z")), "Graph output 'y' is not an output of any node"),
    (model(node("Relu", "x"), node("Tanh", "x")), "not valid ONNX: Graph must be in single static assignment"),
    (model(node("Relu", "x x")), "not valid ONNX"),
    (model(node("Relu", "x", slope=1.0)), "not valid ONNX: Unrecognized attribute: slope"),
    (model(node("Conv", "x w"), constants={"w": weights(4, 3, 3)}), "node 'y' (Conv): its inputs x [1, 3, 8, 8], w"),
    (model(node("Add", "x w"), constants={"w": weights(7)}), "node 'y' (Add): its inputs"),
    (model(node("Gelu", "x", domain="com.microsoft")), "node 'y' (Gelu): operator domain 'com.microsoft' is unknown"),
    (model(node("Rleu", "x")), "node 'y' (Rleu): opset 17 of ai.onnx has no such operator"),
    (model(node("HardSwish", "x"), opset=13), "node 'y' (HardSwish): opset 13 of ai.onnx has no such operator"),
    (model(node("Relu", "x"), opset=6), "the model's opset is 6; 7 to"),
    (model(node("Relu", "x"), opset=NEWEST_OPSET + 1), f"the model's opset is {NEWEST_OPSET + 1}"),
    (model(node("Relu", "x"), inputs={"x": (1, 0)}), "input 'x' has a zero-sized dimension: [1, 0]"),
    (
        model(node("Slice", "x a a"), inputs={"x": (4,)}, constants={"a": np.array([1], np.int64)}),
        "node 'y' (Slice): output 'y' has a zero-sized dimension: [0]",
    ),
    (model(node("NonZero", "x", "i"), node("Cast", "i", to=FLOAT)), "node 'i' (NonZero): the shape of its output 'i'"),
    (model(node("Relu", "x"), dtype=TensorProto.FLOAT16), "input 'x' is float16; inputs must be float32"),
    (model(node("Relu", "x"), dtype=TensorProto.DOUBLE), "input 'x' is float64; inputs must be float32"),
    (model(node("Relu", "x"), dtype=INT64), "input 'x' is int64; inputs must be float32"),
    (
        model(node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "h", to=FLOAT)),
        "node 'h' (Cast): output 'h' is float16",
    ),
    (
        model(node("Relu", "x"), outputs={"y": (1, 3, 8, 9)}),
        "output 'y' is [1, 3, 8, 8], but the model declares [1, 3, 8, 9]",
    ),
    (model(node("Relu", "x"), outputs={"y": (1, 3)}), "but the model declares [1, 3]"),
    (
        model(node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s"), constants={"s": np.float32(1)}),
        "node 'q' (QuantizeLinear): quantised models are not supported",
    ),
    (
        model(node("RandomUniformLike", "x", "r"), node("Bernoulli", "x", "b"), node("Add", "r b")),
        "node 'r' (RandomUniformLike), node 'b' (Bernoulli): random numbers are not supported",
    ),
    (
        model(node("RandomNormal", "", "r", shape=(8,)), node("Add", "x r")),
        "node 'r' (RandomNormal): random numbers are not supported",
    ),
    (
        model(node("Dropout", "x a t"), constants={"a": np.float32(0.5), "t": np.bool_(True)}),
        "node 'y' (Dropout): is in training mode, and drops at random; export the model for inference",
    ),
    (
        model(
            node("ReduceSum", "x", "s", keepdims=0),
            node("Greater", "s a", "t"),
            node("Dropout", "x a t"),
            constants={"a": np.float32(0.5)},
        ),
        "node 'y' (Dropout): is in training mode",
    ),
]


@pytest.mark.parametrize(("proto", "message"), REFUSALS, ids=[message[:40] for _, message in REFUSALS])
def test_models_out_of_reach_are_refused(proto: ModelProto, message: str) -> None:
    assert message in refused(proto)


@pytest.mark.parametrize(("ratio", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_a_dropout_that_drops_nothing_is_read(ratio: float, training: bool) -> None:
    constants = {"a": np.float32(ratio), "t": np.bool_(training)}
    for inputs in ("x a t", "x a", "x"):
        graph = onnx_import.load(model(node("Dropout", inputs, "d"), node("Relu", "d"), constants=constants))
        assert [n.operator for n in simplify(graph).nodes] == ["Relu"]


def test_batch_norms_in_training_mode_are_refused() -> None:
    constants = dict.fromkeys("sbmv", np.ones(3, np.float32))
    for outputs in ("y", "y m2 v2"):
        proto = model(node("BatchNormalization", "x s b m v", outputs, training_mode=1), constants=constants)
        assert refused(proto) == "node 'y' (BatchNormalization): is in training mode; export the model for inference"


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [node("Relu", "x", "b")], "branch", [], [helper.make_tensor_value_info("b", FLOAT, None)]
    )
    proto = model(node("If", "c", then_branch=branch, else_branch=branch), constants={"c": np.bool_(True)})
    assert "node 'y' (If): control flow (If, Loop, Scan) is not supported" in refused(proto)


def test_sequences_and_absent_opsets_are_refused() -> None:
    proto = model(node("Relu", "x"))
    del proto.opset_import[:]
    assert "opset is missing" in refused(proto)
    proto = model(node("SequenceConstruct", "x", "s"), node("ConcatFromSequence", "s", axis=0))
    assert "output 's' is of no tensor type" in refused(proto)
    proto = model(node("Relu", "x"))
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(proto.graph.input[0].type))
    assert "input 'x' is of no tensor type" in refused(proto)


def test_constants_that_do_not_hold_what_they_say_are_refused() -> None:
    proto = model(node("Add", "x w"), constants={"w": weights(8)})
    proto.graph.initializer[0].raw_data = bytes(12)
    graph = onnx_import.load(proto)
    with pytest.raises(ModelFault, match=r"constant 'w' does not hold \[8\] elements"):
        graph.constant("w")
    proto.graph.initializer.append(proto.graph.initializer[0])
    assert "constant 'w' is defined twice" in refused(proto)
    del proto.graph.initializer[1]
    proto.graph.initializer[0].data_type = 0
    assert "constant 'w' is of no tensor type[8]" in refused(proto)
    sparse = model(node("Relu", "x"))
    sparse.graph.sparse_initializer.add()
    assert "sparse initialisers" in refused(sparse)
