"""The nine networks that the onnx package ships as shapes only, with seeded random weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

SHAPE_ONLY = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)

_FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
_BRANCH_GAIN = 0.4


class _Use(NamedTuple):
    """The node a constant ends in, behind any Reshape or Unsqueeze, and whether a Sum takes that node's output."""

    operator: str
    operand: int
    summed: bool


def shape_only(name: str, seed: int = 0) -> onnx.ModelProto:
    """One of SHAPE_ONLY with random initialisers in place of every ConstantOfShape and of every float constant.

    They are drawn by what they are used for, so that activations stay near unit size (but ShuffleNet's grow to some
    hundreds, more than Q8.8 can hold).
    """
    model = onnx.load(str(_FOLDER / f"light_{name}.onnx"))
    graph, random = model.graph, np.random.default_rng(seed)
    constants = {constant.name: constant for constant in graph.initializer}
    blanks = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes = {node.output[0]: numpy_helper.to_array(constants.pop(node.input[0])).tolist() for node in blanks}
    floats = [constant for constant in constants.values() if constant.data_type == TensorProto.FLOAT]
    shapes |= {constant.name: list(constant.dims) for constant in floats}

    uses = _uses(graph)
    for name in filter(uses.__contains__, shapes):
        constants[name] = numpy_helper.from_array(_draw(random, shapes[name], uses[name]), name)
    inputs = [value for value in graph.input if value.name not in {c.name for c in graph.initializer}]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    bare = onnx.helper.make_graph(nodes, graph.name, inputs, list(graph.output), list(constants.values()))
    # From version 4 of the format on, initialisers need not be inputs; below 8, shape inference ignores such ones.
    return onnx.helper.make_model(bare, opset_imports=model.opset_import, ir_version=8)


def _uses(graph: onnx.GraphProto) -> dict[str, _Use]:
    """The use of every value that is not an activation (of activations, one of their uses)."""
    uses: dict[str, _Use] = {}
    for node in reversed(graph.node):
        through = node.op_type in ("Reshape", "Unsqueeze")
        summed = node.output[0] in uses and uses[node.output[0]].operator == "Sum"
        for operand, name in enumerate(node.input):
            uses[name] = uses[node.output[0]] if through else _Use(node.op_type, operand, summed)
    return uses


def _draw(random: np.random.Generator, shape: Sequence[int], use: _Use) -> NDArray[np.float32]:
    """Kernels and matrices of variance 2 / fan-in; scales and variances about 1; other vectors about 0."""
    match use:
        case _Use("Conv", 1):
            return _uniform(random, shape, (6 / prod(shape[1:])) ** 0.5)
        case _Use("Gemm", 1):  # transposed in all of the nine
            return _uniform(random, shape, (6 / shape[-1]) ** 0.5)
        case _Use("BatchNormalization", 1, summed):
            return (_BRANCH_GAIN if summed else 1) * (1 + _uniform(random, shape, 0.2))
        case _Use("BatchNormalization", 4) | _Use("Mul"):
            return 1 + _uniform(random, shape, 0.2)
        case _:
            return _uniform(random, shape, 0.1)


def _uniform(random: np.random.Generator, shape: Sequence[int], largest: float) -> NDArray[np.float32]:
    return (random.random(shape, np.float32) - np.float32(0.5)) * np.float32(2 * largest)
