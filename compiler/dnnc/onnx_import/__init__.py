"""ONNX models: a ModelProto to a Graph, and nodes of a graph back to models. The only package that imports onnx.

Every value of the graph has a shape and a type, found node by node with onnx's own inference. What can be computed
from constants and shapes alone is a constant; the data of constants is read when it is wanted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto, numpy_helper

from dnnc.graph import Graph, Node
from dnnc.onnx_import.protos import model_of, node_protos, run_opsets, value_info
from dnnc.onnx_import.reading import read
from dnnc.onnx_import.walk import Import
from dnnc_runtime.errors import Fault

_log = logging.getLogger("dnnc")


def load(model: ModelProto | str | Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """The graph of an ONNX model; a file of its weights that is absent is told of, and missed where numbers are wanted.

    Args:
        model: a model, or the path of one.
        input_shapes: shapes of inputs by name, where the model leaves dimensions open.

    Raises:
        UsageFault: the file cannot be read, or an input shape names no input or contradicts the model.
        ModelFault: the model is malformed or not supported; the message names the node or value.
    """
    proto, source = read(model)
    graph = Import(proto, source, input_shapes or {}).graph()
    if source.path:
        _warn_of_absent(source.path, _external_files(proto, source.path.parent))
    return graph


def _warn_of_absent(path: Path, files: Collection[Path]) -> None:
    """Warn of files that a model keeps tensors in and that are not there: it can be compiled, but not run."""
    absent = sorted(str(file) for file in files if not os.path.exists(file))
    if absent:
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        _log.warning(
            "model %r: its weights file %r%s is absent; it compiles without, but does not run",
            str(path),
            absent[0],
            more,
        )


def external_files(path: Path) -> set[Path]:
    """The files beside a model in which it keeps tensors; none where it cannot be read, which :func:`load` will say."""
    try:
        proto, _ = read(path)
    except Fault:
        return set()
    return _external_files(proto, path.parent)


def _external_files(proto: ModelProto, folder: Path) -> set[Path]:
    attributes = (attribute.t for node in proto.graph.node for attribute in node.attribute if attribute.HasField("t"))
    entries = (entry for tensor in (*proto.graph.initializer, *attributes) for entry in tensor.external_data)
    return {folder / entry.value for entry in entries if entry.key == "location"}


def original(graph: Graph) -> ModelProto:
    """The model that a graph came from; external data is not loaded, it lies beside ``graph.source.path``."""
    if graph.source is None:
        raise ValueError(f"graph {graph.name!r} was not imported from an ONNX model")
    model: ModelProto = graph.source.open()
    return model


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """A copy of a model whose outputs are these values; names that no node of it produces are left out."""
    declared = {output.name: output for output in model.graph.output}
    produced = {name for node in model.graph.node for name in node.output}
    out = ModelProto()
    out.CopyFrom(model)
    del out.graph.output[:]
    out.graph.output.extend(declared.get(name) or ValueInfoProto(name=name) for name in names if name in produced)
    return out


def single_node_model(graph: Graph, node: Node, fed: Collection[str] = ()) -> ModelProto:
    """A model of one node of a graph, as onnxruntime can run it.

    Its inputs are the values that the node reads, in order and each once, save for constants not named in ``fed``,
    which are part of the model. Its outputs are those that the node has.
    """
    names = list(dict.fromkeys(filter(None, node.inputs)))
    inside = {name for name in names if graph.value(name).constant and name not in fed}
    return model_of(
        node_protos(node),
        run_opsets(graph, node),
        [value_info(graph.value(name)) for name in names if name not in inside],
        [
            numpy_helper.from_array(np.asarray(graph.constant(name), order="C"), name)
            for name in names
            if name in inside
        ],
        [value_info(graph.value(name)) for name in node.outputs if name],
    )
