"""Reading an ONNX model, and the checks that need no shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto, checker, inliner

from dnnc.graph import Source, Value
from dnnc.onnx_import.protos import domain_name, one_line, value_info, where
from dnnc_runtime.errors import ModelFault, UsageFault

OLDEST_OPSET = 7
NEWEST_OPSET = onnx.defs.onnx_opset_version()

QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
    | {"ConvInteger", "MatMulInteger"}
)
"""Operators of quantised models."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Operators whose results differ from run to run."""

DOMAINS = frozenset(schema.domain for schema in onnx.defs.get_all_schemas())
"""Operator domains that onnx describes."""


def read(model: ModelProto | str | Path) -> tuple[ModelProto, Source]:
    """The model with its local functions inlined, and where it came from."""
    if isinstance(model, ModelProto):
        proto = _inlined(model)
        return proto, Source(None, _digest(proto), lambda: proto)
    path = Path(model)
    data = _bytes(path)
    return _parsed(path, data), Source(path, hashlib.sha256(data).hexdigest(), lambda: _parsed(path, _bytes(path)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageFault(f"model {str(path)!r}: {error.strerror or error}; give the path of an ONNX file") from None


def _parsed(path: Path, data: bytes) -> ModelProto:
    """The model in a file's bytes."""
    if not data:
        raise ModelFault(f"model {str(path)!r} is empty; an ONNX model was expected")
    try:
        proto = ModelProto.FromString(data)
    except Exception:  # protobuf's DecodeError; its package ships no types
        proto = ModelProto()
    if not proto.graph.output:
        raise ModelFault(f"model {str(path)!r} is not an ONNX model, or is cut short ({len(data)} bytes)")
    return _inlined(proto)


def _inlined(model: ModelProto) -> ModelProto:
    return inliner.inline_local_functions(model) if model.functions else model


def _digest(model: ModelProto) -> str:
    """A digest of a model that may be too large to serialise as one message."""
    digest = hashlib.sha256()
    for part in (*model.opset_import, *model.graph.node, *model.graph.initializer, *model.graph.input):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def check_support(model: ModelProto) -> dict[str, int]:
    """The opset versions by domain; a fault if the model uses what is not supported."""
    opsets = {domain_name(opset.domain): opset.version for opset in model.opset_import}
    version = opsets.get("", 0)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ModelFault(
            f"the model's opset is {version or 'missing'}; {OLDEST_OPSET} to {NEWEST_OPSET} are supported; "
            "convert it with onnx.version_converter, or export it anew"
        )
    if not model.graph.output:
        raise ModelFault("the model has no outputs; at least one was expected")
    for node in model.graph.node:
        _check_operator(node, opsets)
    if random := [where(node) for node in model.graph.node if node.op_type in RANDOM and not node.domain]:
        raise ModelFault(f"{', '.join(random)}: random numbers are not supported, no two runs could be compared")
    if model.graph.sparse_initializer:
        raise ModelFault("the model has sparse initialisers, which are not supported; store them dense")
    return {domain: version for domain, version in opsets.items() if domain in DOMAINS}


def _check_operator(node: NodeProto, opsets: Mapping[str, int]) -> None:
    domain, at = domain_name(node.domain), where(node)
    if domain not in opsets or domain not in DOMAINS:
        known = ", ".join(sorted(d or "ai.onnx" for d in DOMAINS & opsets.keys()))
        raise ModelFault(f"{at}: operator domain {node.domain!r} is unknown; the model may use {known}")
    if not onnx.defs.has(node.op_type, opsets[domain], domain):
        raise ModelFault(f"{at}: opset {opsets[domain]} of {domain or 'ai.onnx'} has no such operator")
    if not node.output or (node.op_type == "Constant" and len(node.attribute) != 1):
        raise ModelFault(f"{at}: has no output, or is a constant without a value")
    if node.op_type in QUANTISED:
        raise ModelFault(f"{at}: quantised models are not supported; give the float32 model")
    if any(a.name == "training_mode" and a.i for a in node.attribute):
        raise ModelFault(f"{at}: is in training mode; export the model for inference")
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        raise ModelFault(f"{at}: control flow (If, Loop, Scan) is not supported; export the model without it")


def check_form(model: ModelProto, nodes: Sequence[NodeProto], constants: Collection[str]) -> None:
    """Holds the nodes against onnx's checker, without the weights, which may be large."""
    given = {*constants, *(info.name for info in model.graph.input)}
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.name = model.graph.name or "graph"
    bare.graph.node.extend(nodes)
    # Any types do: the checker asks for some, and compares none.
    bare.graph.input.extend(map(_scalar, sorted(given)))
    bare.graph.output.extend(_scalar(info.name) for info in model.graph.output if info.name not in given)
    try:
        checker.check_model(bare)  # pyright: ignore[reportUnknownMemberType]
    except checker.ValidationError as error:
        raise ModelFault(f"the model is not valid ONNX: {one_line(error)}") from None


def _scalar(name: str) -> ValueInfoProto:
    return value_info(Value(name, ()))


def ordered(model: ModelProto, constants: Collection[str]) -> list[int]:
    """Indices of the nodes that compute something, each after those it reads from."""
    nodes = {index: node for index, node in enumerate(model.graph.node) if node.op_type != "Constant"}
    producer = {name: index for index, node in nodes.items() for name in node.output if name}
    known = {"", *constants, *producer, *(info.name for info in model.graph.input)}
    for node in nodes.values():
        for name in node.input:
            if name not in known:
                raise ModelFault(f"{where(node)} reads value {name!r}, which nothing produces")
    sorter = TopologicalSorter({i: [producer[v] for v in node.input if v in producer] for i, node in nodes.items()})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        cycle = " -> ".join(where(nodes[index]) for index in reversed(error.args[1]))
        raise ModelFault(f"the graph has a cycle, {cycle}; it must have none") from None
