"""Translations between onnx's messages and the graph's values, nodes and attributes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from dnnc.graph import AttributeValue, Graph, Node, Value
from dnnc.onnx_import import external_data
from dnnc.onnx_import.input_shapes import Dimensions
from dnnc_runtime.errors import ModelFault

CANONICAL_OPSETS = {("Clip", 1): 10, ("Pad", 1): 10, ("Squeeze", 1): 11, ("Unsqueeze", 1): 11, ("Gemm", 2): 11}
"""By operator and number of inputs: an opset that has the form which dnnc.simplify gives it, in any model."""

NO_TYPE = "of no tensor type"
"""Stands for the type of what is not a tensor, or is of an unknown type."""

_ELEMENTS = {
    "string" if number == TensorProto.STRING else np.dtype(helper.tensor_dtype_to_np_dtype(number)).name: number
    for number in TensorProto.DataType.values()
    if number != TensorProto.UNDEFINED
}
_CONSTANT_FORMS: dict[int, type[np.int64 | np.float32]] = {
    AttributeProto.INT: np.int64,
    AttributeProto.INTS: np.int64,
    AttributeProto.FLOAT: np.float32,
    AttributeProto.FLOATS: np.float32,
}
_READ: dict[int, Callable[[AttributeProto], AttributeValue]] = {
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.STRING: lambda a: a.s.decode(errors="surrogateescape"),
    AttributeProto.TENSOR: lambda a: a.t.SerializeToString(deterministic=True),
    AttributeProto.INTS: lambda a: tuple(a.ints),
    AttributeProto.FLOATS: lambda a: tuple(a.floats),
    AttributeProto.STRINGS: lambda a: tuple(text.decode(errors="surrogateescape") for text in a.strings),
}
_NAMES = {number: name for name, number in _ELEMENTS.items()}


def dtype_name(element: int) -> str:
    """The numpy name of an ONNX element type, or NO_TYPE."""
    return _NAMES.get(element, NO_TYPE)


def domain_name(domain: str) -> str:
    """An operator domain; the default one is ""."""
    return "" if domain == "ai.onnx" else domain


def where(node: NodeProto) -> str:
    """How messages name an ONNX node."""
    name = node.name or next(filter(None, node.output), "")
    return f"node {name!r} ({node.op_type})"


def one_line(error: Exception) -> str:
    """The gist of an error of onnx, which may have many lines."""
    return " ".join(str(error).replace("==> Context:", "in").split())[:300]


def dimensions(info: ValueInfoProto) -> Dimensions | None:
    """What is said of a value's shape: extents, or names ("" too) of open ones; None where nothing is."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    # Some exporters write a negative extent for an open dimension.
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param for d in dims)


def value_info(value: Value) -> ValueInfoProto:
    """The declaration of a value."""
    return helper.make_tensor_value_info(value.name, _ELEMENTS[value.dtype], value.shape)


def model_of(
    nodes: Sequence[NodeProto],
    opsets: Mapping[str, int],
    inputs: Iterable[ValueInfoProto],
    constants: Iterable[TensorProto],
    outputs: Iterable[ValueInfoProto],
) -> ModelProto:
    """A model that holds just these nodes."""
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    # Below version 4 constants must be inputs too, and below 8 inference ignores them.
    version = max(8, helper.find_min_ir_version_for(imports, ignore_unknown=True))
    graph = helper.make_graph(nodes, nodes[0].name or "node", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=imports, ir_version=version)


def constant_tensor(node: NodeProto) -> TensorProto:
    """The tensor of a Constant node."""
    attribute = node.attribute[0]
    if attribute.type == AttributeProto.TENSOR:
        stored: TensorProto = attribute.t
        return stored
    dtype = _CONSTANT_FORMS.get(attribute.type)
    if dtype is None:
        raise ModelFault(f"{where(node)}: a constant of the form {attribute.name!r} is not supported; store a tensor")
    data = np.array(helper.get_attribute_value(attribute), dtype)
    return numpy_helper.from_array(data)


def tensor_data(name: str, tensor: TensorProto, folder: Path | None) -> NDArray[Any]:
    """The data of a stored constant; ``folder`` is the ONNX file's, for external data."""
    if tensor.data_location == TensorProto.EXTERNAL:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return external_data.read(name, tuple(tensor.dims), dtype, entries, folder)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelFault(f"constant {name!r} does not hold {list(tensor.dims)} elements: {one_line(error)}") from None


def graph_node(node: NodeProto, name: str, read: Collection[str]) -> Node:
    """The graph's node of that name; outputs that nothing reads are absent."""
    domain = domain_name(node.domain)
    outputs = [v if v in read else "" for v in node.output]
    while outputs and not outputs[-1]:
        outputs.pop()
    operator = f"{domain}::{node.op_type}" if domain else node.op_type
    attributes = tuple((a.name, _attribute(node, a)) for a in node.attribute)
    return Node(name, operator, tuple(node.input), tuple(outputs), attributes)


def _attribute(node: NodeProto, attribute: AttributeProto) -> AttributeValue:
    read = _READ.get(attribute.type)
    if read is None:
        raise ModelFault(f"{where(node)}: attribute {attribute.name!r} is of a type that is not supported")
    return read(attribute)


def node_protos(node: Node) -> list[NodeProto]:
    """The ONNX node of a graph's node; a MatMul with a bias is two."""
    domain, _, operator = node.operator.rpartition("::")
    inputs, outputs, sums = node.inputs, node.outputs, list[NodeProto]()
    if operator == "MatMul" and node.input(2):
        product = f"{outputs[0]}:product"
        sums.append(helper.make_node("Add", (product, node.input(2)), outputs))
        inputs, outputs = inputs[:2], (product,)
    proto = helper.make_node(operator, inputs, outputs, node.name, domain=domain)
    proto.attribute.extend(_attribute_proto(name, value) for name, value in node.attributes)
    return [proto, *sums]


def _attribute_proto(name: str, value: AttributeValue) -> AttributeProto:
    if isinstance(value, bytes):
        return helper.make_attribute(name, TensorProto.FromString(value))
    # An empty list does not tell its type; all that operators take empty are lists of integers.
    return helper.make_attribute(name, value, attr_type=AttributeProto.INTS if value == () else None)


def run_opsets(graph: Graph, node: Node) -> dict[str, int]:
    """The opset versions by which a node is to be read: the model's, or one that has its canonical form."""
    opsets = dict(graph.opsets)
    opsets[""] = CANONICAL_OPSETS.get((node.operator, len(node.inputs)), opsets.get("", 0))
    return opsets
