"""Writes ONNX models layer by layer, with seeded random weights that keep every activation near unit size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Attribute = int | float | list[int]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the model.

    ``power`` is its expected mean square, which the next layer's weights divide by; ``rectified`` is the part of it
    that comes from values that cannot be negative, which a further Relu leaves alone.
    """

    name: str
    shape: tuple[int, ...]
    power: float = 1.0
    rectified: float = 0.0


class ModelBuilder:
    """Adds one node per call and returns its output; ``model`` closes the graph.

    Weights are uniform with variance 1 / (fan-in x input power): every sum of products then has variance 1, as with
    He's initialisation behind a Relu (power 1/2), so that values neither saturate nor vanish in Q8.8 at any depth.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[Value] = []

    def input(self, *shape: int) -> Value:
        """The network's input: of unit power, as normalised images are."""
        self._inputs.append(Value("input", shape))
        return self._inputs[-1]

    def conv(
        self,
        x: Value,
        name: str,
        k: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> Value:
        """Conv of k kernels, square."""
        n, c, *size = x.shape
        taps = (c // groups, kernel, kernel)
        names = [x.name, self._uniform(f"{name}.weight", (k, *taps), sqrt(1 / (prod(taps) * x.power)))]
        names += [self._bias(name, k)] if bias else []
        attributes = _window(kernel, stride, pad)
        out = (n, k, *(_outputs(s, kernel, stride, (pad, pad)) for s in size))
        return self._node("Conv", name, names, Value(name, out), group=groups, **attributes)

    def linear(self, x: Value, name: str, k: int, *, bias: bool = True) -> Value:
        """Gemm with k outputs, its matrix stored (k, inputs)."""
        n, c = x.shape
        names = [x.name, self._uniform(f"{name}.weight", (k, c), sqrt(1 / (c * x.power)))]
        names += [self._bias(name, k)] if bias else []
        return self._node("Gemm", name, names, Value(name, (n, k)), transB=1)

    def batch_norm(self, x: Value, name: str, *, gain: float = 1.0) -> Value:
        """BatchNormalization with statistics near the true ones and a scale near ``gain``."""
        k = x.shape[1]
        vectors = {
            "weight": gain * self._random.uniform(0.8, 1.2, k),
            "bias": self._random.normal(0, 0.05, k),
            "running_mean": self._random.normal(0, 0.05, k) * sqrt(x.power),
            "running_var": self._random.uniform(0.8, 1.2, k) * x.power,
        }
        names = [self._constant(f"{name}.{key}", vector.astype(np.float32)) for key, vector in vectors.items()]
        return self._node("BatchNormalization", name, [x.name, *names], Value(name, x.shape, gain**2))

    def relu(self, x: Value, name: str) -> Value:
        """Relu."""
        return self._node("Relu", name, [x.name], _rectified(x, name))

    def relu6(self, x: Value, name: str) -> Value:
        """Relu6, which ONNX calls Clip."""
        bounds = [self._constant(f"{name}.{key}", np.float32(v)) for key, v in (("min", 0.0), ("max", 6.0))]
        return self._node("Clip", name, [x.name, *bounds], _rectified(x, name))

    def add(self, x: Value, y: Value, name: str) -> Value:
        """Add of two tensors of one shape: independent powers add up."""
        value = Value(name, x.shape, x.power + y.power, x.rectified + y.rectified)
        return self._node("Add", name, [x.name, y.name], value)

    def concat(self, parts: Sequence[Value], name: str) -> Value:
        """Concat along the channels."""
        n, _, *size = parts[0].shape
        channels = [part.shape[1] for part in parts]
        power = sum(part.power * k for part, k in zip(parts, channels, strict=True)) / sum(channels)
        out = Value(name, (n, sum(channels), *size), power)
        return self._node("Concat", name, [part.name for part in parts], out, axis=1)

    def max_pool(self, x: Value, name: str, kernel: int, *, stride: int, pad: int = 0, ceil: bool = False) -> Value:
        """MaxPool; ``ceil`` rounds the number of windows up, as Caffe did."""
        *outer, y, z = x.shape
        out = (*outer, *(_outputs(s, kernel, stride, (pad, pad), ceil=ceil) for s in (y, z)))
        # The largest of nearby rectified values has 1.4 to 5 times their power (measured here), mostly about twice.
        value = Value(name, out, 2 * x.power, 2 * x.power)
        return self._node("MaxPool", name, [x.name], value, **_window(kernel, stride, pad), ceil_mode=int(ceil))

    def global_average(self, x: Value, name: str) -> Value:
        """GlobalAveragePool."""
        return self._node("GlobalAveragePool", name, [x.name], Value(name, (*x.shape[:2], 1, 1), x.power / 2))

    def lrn(self, x: Value, name: str, size: int, alpha: float, beta: float) -> Value:
        """LRN over ``size`` channels."""
        return self._node("LRN", name, [x.name], replace(x, name=name), size=size, alpha=alpha, beta=beta)

    def flatten(self, x: Value, name: str) -> Value:
        """Flatten to (n, the rest)."""
        return self._node("Flatten", name, [x.name], Value(name, (x.shape[0], prod(x.shape[1:])), x.power))

    def dropout(self, x: Value, name: str) -> Value:
        """Dropout, which does nothing at inference."""
        return self._node("Dropout", name, [x.name], replace(x, name=name))

    def model(self, output: Value) -> onnx.ModelProto:
        """The finished model with this one output."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [_info(value) for value in self._inputs],
            [_info(output)],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="dnnc models")

    def _node(self, operator: str, name: str, inputs: list[str], output: Value, **attributes: Attribute) -> Value:
        node = helper.make_node(operator, inputs, [output.name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def _constant(self, name: str, array: NDArray[np.float32] | np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _uniform(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """A constant of this standard deviation about 0. In place: VGG's has 100 million elements."""
        array = self._random.random(shape, np.float32)
        array -= np.float32(0.5)
        array *= np.float32(deviation * sqrt(12))
        return self._constant(name, array)

    def _bias(self, name: str, k: int) -> str:
        return self._uniform(f"{name}.bias", (k,), 0.05)


def _rectified(x: Value, name: str) -> Value:
    """What a Relu makes of x: of the power of values of either sign, half stays."""
    power = (x.rectified + x.power) / 2
    return Value(name, x.shape, power, power)


def _window(kernel: int, stride: int, pad: int) -> dict[str, list[int]]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}


def _outputs(size: int, kernel: int, stride: int, pads: tuple[int, int], *, ceil: bool = False) -> int:
    """Windows along one axis."""
    room = size + sum(pads) - kernel
    return (-(-room // stride) if ceil else room // stride) + 1


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, value.shape)
