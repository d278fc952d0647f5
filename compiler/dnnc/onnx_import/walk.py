"""The walk over a model's nodes that gives every value its shape, and folds what is constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper, shape_inference

from dnnc.graph import Graph, Loader, Node, Source, Value
from dnnc.onnx_import import input_shapes
from dnnc.onnx_import.input_shapes import Dimensions
from dnnc.onnx_import.protos import (
    NO_TYPE,
    constant_tensor,
    dimensions,
    dtype_name,
    graph_node,
    model_of,
    one_line,
    tensor_data,
    value_info,
    where,
)
from dnnc.onnx_import.reading import check_form, check_support, ordered
from dnnc_runtime.errors import ModelFault

NOT_FOLDED = frozenset({"Dropout", "LRN", "BatchNormalization", "Softmax", "LogSoftmax", "Hardmax"})
"""Operators left alone even where all their inputs are constant: what onnx's evaluator computes is wrong."""

SIZED_BY_NUMBERS = frozenset({"Range", "Resize", "Upsample"})
"""Operators whose output shape depends on floating-point constants."""

FEATURE_TYPES = frozenset({"float32", "bool"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})
"""Types of values that nodes may produce; integers and truth values only between host nodes."""

STRUCTURAL_ELEMENTS = 4096
"""Largest integer constant whose data shape inference is given."""


class Import:
    """One import: values and constants gathered in execution order."""

    def __init__(self, model: ModelProto, source: Source, given: Mapping[str, tuple[int, ...]]) -> None:
        self.model, self.source, self.given = model, source, given
        self.folder = source.path.parent if source.path else None
        self.opsets = check_support(model)
        self.values: dict[str, Value] = {}
        self.loaders: dict[str, Loader] = {}
        infos = (*model.graph.value_info, *model.graph.output)
        self.declared = {info.name: dimensions(info) for info in infos}
        self.read = {*(v for n in model.graph.node for v in n.input), *(o.name for o in model.graph.output)}

    def graph(self) -> Graph:
        """The finished graph."""
        proto = self.model.graph
        self._stored_constants()
        order = ordered(self.model, self.loaders)
        check_form(self.model, [proto.node[index] for index in order], self.loaders)
        inputs = [info for info in proto.input if info.name not in self.loaders]
        self._inputs(inputs)
        names = _node_names(proto.node)
        nodes = {index: self._visit(proto.node[index], names[index]) for index in order}
        kept = [node for _, node in sorted(nodes.items()) if node]
        used = {*(v for n in kept for v in (*n.inputs, *n.outputs)), *(info.name for info in (*inputs, *proto.output))}
        return Graph(
            proto.name,
            [info.name for info in inputs],
            [info.name for info in proto.output],
            kept,
            [value for value in self.values.values() if value.name in used],
            self.loaders,
            self.opsets.items(),
            self.source,
        )

    def _stored_constants(self) -> None:
        """Initialisers and Constant nodes."""
        for tensor in self.model.graph.initializer:
            self._stored(tensor.name, tensor)
        for node in self.model.graph.node:
            if node.op_type == "Constant":
                self._stored(node.output[0], constant_tensor(node))

    def _stored(self, name: str, tensor: TensorProto) -> None:
        if name in self.values:
            raise ModelFault(f"constant {name!r} is defined twice; every value must have one origin")
        dtype = dtype_name(tensor.data_type)
        if dtype == NO_TYPE or min(tensor.dims, default=1) < 0:
            raise ModelFault(f"constant {name!r} is {dtype}{list(tensor.dims)}, which no tensor is")
        value = Value(name, tuple(tensor.dims), dtype, constant=True)
        self._constant(value, partial(tensor_data, name, tensor, self.folder))

    def _constant(self, value: Value, loader: Loader) -> None:
        self.values[value.name] = value
        self.loaders[value.name] = loader

    def _inputs(self, infos: Sequence[ValueInfoProto]) -> None:
        """The model's inputs, every dimension known."""
        declared: list[input_shapes.Declared] = []
        for info in infos:
            dtype = dtype_name(info.type.tensor_type.elem_type)
            if dtype != "float32":
                raise ModelFault(f"input {info.name!r} is {dtype}; inputs must be float32 tensors: convert the model")
            declared.append(input_shapes.Declared(info.name, dimensions(info)))
        for name, shape in input_shapes.resolve(tuple(declared), self.given).items():
            self.values[name] = Value(name, shape)

    def _visit(self, node: NodeProto, name: str) -> Node | None:
        """Gives a node's outputs their values; the graph's node, or None where its outputs are constants."""
        inputs = [self.values[v] for v in node.input if v]
        outputs = [v for v in node.output if v in self.read]
        if node.op_type in ("Shape", "Size") and not node.domain:
            self._constant(*_measured(node, inputs[0]))
            return None
        if node.op_type == "Dropout" and not self._drops_nothing(node):
            raise ModelFault(f"{where(node)}: is in training mode, and drops at random; export the model for inference")
        infos = self._infer(node, inputs, outputs)
        if inputs and all(v.constant for v in inputs) and node.op_type not in NOT_FOLDED:
            self._fold(node, infos)
            return None
        for info in infos:
            self.values[info.name] = self._feature(node, info)
        return graph_node(node, name, self.read)

    def _drops_nothing(self, node: NodeProto) -> bool:
        """Whether a Dropout is known to be in inference mode, or to have a ratio of 0."""
        ratio, mode = (node.input[i] if i < len(node.input) else "" for i in (1, 2))
        return not mode or self._is_zero(mode) or (ratio != "" and self._is_zero(ratio))

    def _is_zero(self, name: str) -> bool:
        return self.values[name].constant and not np.any(self.loaders[name]())

    def _infer(self, node: NodeProto, inputs: Sequence[Value], outputs: Sequence[str]) -> list[ValueInfoProto]:
        """A node's outputs with what onnx's inference says of them."""
        known = {value.name: self.loaders[value.name]() for value in inputs if _decides_shapes(node, value)}
        model = model_of(
            [node],
            self.opsets,
            [value_info(value) for value in inputs if value.name not in known],
            [numpy_helper.from_array(np.asarray(data, order="C"), name) for name, data in known.items()],
            [ValueInfoProto(name=name) for name in outputs],
        )
        try:
            return list(shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output)
        except shape_inference.InferenceError as error:
            shapes = ", ".join(f"{value.name} {list(value.shape)}" for value in inputs)
            raise ModelFault(f"{where(node)}: its inputs {shapes} do not fit it: {one_line(error)}") from None

    def _feature(self, node: NodeProto, info: ValueInfoProto) -> Value:
        """A value that is computed when the model runs."""
        dtype = dtype_name(info.type.tensor_type.elem_type)
        if dtype not in FEATURE_TYPES:
            raise ModelFault(f"{where(node)}: output {info.name!r} is {dtype}; feature maps must be float32 tensors")
        shape = self._reconciled(node, info.name, dimensions(info))
        if 0 in shape:
            raise ModelFault(f"{where(node)}: output {info.name!r} has a zero-sized dimension: {list(shape)}")
        return Value(info.name, shape, dtype)

    def _reconciled(self, node: NodeProto, name: str, inferred: Dimensions | None) -> tuple[int, ...]:
        """The inferred shape, completed by the one that the model declares."""
        declared = self.declared.get(name)
        first = inferred if inferred is not None else declared or ()
        second = declared if declared is not None else first
        if not _compatible(first, second):
            raise ModelFault(
                f"{where(node)}: output {name!r} is {list(first)}, but the model declares {list(second)}; "
                "correct or remove the declaration"
            )
        merged = [a if isinstance(a, int) else b for a, b in zip(first, second, strict=True)]
        shape = tuple(size for size in merged if isinstance(size, int))
        if (inferred is None and declared is None) or len(shape) != len(merged):
            found = ", ".join(f"{v} {list(self.values[v].shape)}" for v in node.input if v)
            raise ModelFault(
                f"{where(node)}: the shape of its output {name!r} does not follow from its inputs {found}: they do not "
                "fit it, or the shape depends on data; every shape must be fixed before the model runs"
            )
        return shape

    def _fold(self, node: NodeProto, infos: Sequence[ValueInfoProto]) -> None:
        """Makes constants of the outputs of a node whose inputs are constants."""
        names = [name for name in dict.fromkeys(node.input) if name]
        inputs = {name: self.loaders[name] for name in names}
        infos_in = [value_info(self.values[name]) for name in names]
        outputs = [ValueInfoProto(name=info.name) for info in infos]
        model = model_of([node], self.opsets, infos_in, (), outputs)
        for index, info in enumerate(infos):
            load = partial(_evaluated, model, inputs, index)
            shape = dimensions(info)
            fixed = tuple(size for size in shape or () if isinstance(size, int))
            if shape is None or len(fixed) != len(shape):
                fixed = load().shape
            self._constant(Value(info.name, fixed, dtype_name(info.type.tensor_type.elem_type), constant=True), load)


def _compatible(first: Dimensions, second: Dimensions) -> bool:
    """Whether two shapes are equal where both are known."""
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in pairs)


def _evaluated(model: ModelProto, inputs: Mapping[str, Loader], index: int) -> NDArray[Any]:
    """One output of a one-node model on constants."""
    from onnx.reference import ReferenceEvaluator

    data = {name: load() for name, load in inputs.items()}
    try:
        evaluator: Any = ReferenceEvaluator(model)
        return np.asarray(evaluator.run(None, data)[index])
    except Exception as error:  # whatever the operator's implementation raises
        node = model.graph.node[0]
        raise ModelFault(f"{where(node)}: cannot be computed from its constant inputs: {one_line(error)}") from error


def _measured(node: NodeProto, value: Value) -> tuple[Value, Loader]:
    """The constant that a Shape or Size node computes."""
    attributes = {a.name: a.i for a in node.attribute}
    first, last = attributes.get("start", 0), attributes.get("end", len(value.shape))
    data = np.array(value.shape[first:last] if node.op_type == "Shape" else prod(value.shape), np.int64)
    return Value(node.output[0], data.shape, "int64", constant=True), lambda: data


def _decides_shapes(node: NodeProto, value: Value) -> bool:
    """Whether shape inference of a node may need the data of this input."""
    if not value.constant or prod(value.shape) > STRUCTURAL_ELEMENTS:
        return False
    return "int" in value.dtype or node.op_type in SIZED_BY_NUMBERS


def _node_names(nodes: Sequence[NodeProto]) -> list[str]:
    """A unique name for each node: its own, or its first output where it has none or shares it."""
    times = Counter(node.name for node in nodes)
    taken = {name for name in times if name and times[name] == 1}
    names: list[str] = []
    for node in nodes:
        name = node.name if node.name in taken else next(filter(None, node.output), "")
        while node.name != name and name in taken:
            name += "'"
        taken.add(name)
        names.append(name)
    return names
