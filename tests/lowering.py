"""Small models in the making, lowered and checked: every placed value, layer by layer, against onnxruntime."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dnnc import onnx_import
from dnnc.fuse import Fused, always
from dnnc.layer import HostLayer, Lowered
from dnnc.lower import lower
from dnnc.simplify import simplify
from dnnc_runtime import machine
from dnnc_runtime.machine import Machine
from untiled import reference, run


@cache
def snowflake() -> Machine:
    return machine.load("snowflake")


class Net:
    """An ONNX model in the making: operators return the names of their outputs, constants are seeded."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.random = np.random.default_rng(0)
        self.inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def const(self, *shape: int) -> str:
        return self.data(self.random.uniform(0.1, 1, shape).astype(np.float32))

    def weights(self, *shape: int) -> str:
        """Weights that leave values about as large as they are; c is all but the first axis."""
        return self.data((self.random.uniform(-2, 2, shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32))

    def data(self, data: Any) -> str:
        name = f"w{len(self.constants)}"
        self.constants[name] = np.asarray(data)
        return name

    def op(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        names = [name if i == 0 else f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def conv(self, x: str, c: int, k: int, size: int = 3, group: int = 1, **attributes: Any) -> str:
        weights, bias = self.weights(k, c // group, size, size), self.const(k)
        return self.op("Conv", x, weights, bias, group=group, pads=[size // 2] * 4, **attributes)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.data(np.array(shape, np.int64)))

    def model(self, *outputs: str) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        ends = [onnx.ValueInfoProto(name=name) for name in outputs or (self.nodes[-1].output[0],)]
        constants = [numpy_helper.from_array(data, name) for name, data in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", inputs, ends, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def lowered(model: onnx.ModelProto, target: Machine | None = None, fused: Fused = always) -> Lowered:
    """Lowers a model and checks every value that lies in DRAM."""
    graph = simplify(onnx_import.load(model))
    made = lower(graph, target or snowflake(), fused)
    random = np.random.default_rng(1)
    inputs = {v: random.uniform(-1, 1, graph.value(v).shape).astype(np.float32) for v in graph.inputs}
    found = run(made, graph, inputs)
    for name, expected in reference(graph, inputs, [n for n in found if n not in inputs]).items():
        assert not np.isnan(found[name]).any(), f"{name} was not written"
        scale = max(1e-3, float(np.abs(expected).max()))
        np.testing.assert_allclose(found[name] / scale, expected / scale, atol=2e-5, err_msg=name)
    assert {*graph.outputs} <= found.keys()
    return made


def brief(made: Lowered) -> list[str]:
    """A word a layer: its operator and the nodes fused behind it; host layers in parentheses."""
    words = []
    for layer in made.layers:
        if isinstance(layer, HostLayer):
            words.append(f"({layer.operator})")
        elif ":copy" in layer.name:
            words.append("copy")
        else:
            activated = layer.kernel.activation and layer.kernel.operation != "identity"
            fused = {"+residual": layer.shape.residual, "+activation": activated, "+pool": layer.shape.pool}
            words.append(layer.operator + "".join(mark for mark, has in fused.items() if has))
    return words
