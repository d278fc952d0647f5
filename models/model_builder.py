"""Writes ONNX models layer by layer, with seeded random weights that keep every activation near unit size.

Without a seed there are no weights: the model says where they would lie, in a file that nobody has to have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import e, prod, sqrt

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

LARGEST_MODEL = 2**31 - 2**20
"""Bytes of weights that an ONNX file can hold: protobuf's limit is 2 GiB, and the nodes take some."""

MASKED = -64.0
"""Added to the scores of tokens to come: as good as minus infinity behind a Softmax, and a number in Q8.8."""

Attribute = int | float | list[int] | onnx.TensorProto
Draw = Callable[[np.random.Generator], NDArray[np.float32] | NDArray[np.float64]]


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

    Args:
        name: of the network.
        seed: of the weights; None for a model of shapes only, whose weights are external data in the file NAME.weights.
    """

    def __init__(self, name: str, seed: int | None) -> None:
        self._name = name
        self._random = None if seed is None else np.random.default_rng(seed)
        self._weight_bytes = 0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[Callable[[], onnx.TensorProto]] = []
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
        gain: float = 1.0,
    ) -> Value:
        """Conv of k kernels, square; its output's standard deviation is ``gain``."""
        n, c, *size = x.shape
        taps = (c // groups, kernel, kernel)
        names = [x.name, self._uniform(f"{name}.weight", (k, *taps), gain * sqrt(1 / (prod(taps) * x.power)))]
        names += [self._bias(name, k, gain)] if bias else []
        attributes = _window(kernel, stride, pad)
        out = (n, k, *(_outputs(s, kernel, stride, (pad, pad)) for s in size))
        return self._node("Conv", name, names, Value(name, out, gain**2), group=groups, **attributes)

    def linear(self, x: Value, name: str, k: int, *, bias: bool = True) -> Value:
        """Gemm with k outputs, its matrix stored (k, inputs)."""
        n, c = x.shape
        names = [x.name, self._uniform(f"{name}.weight", (k, c), sqrt(1 / (c * x.power)))]
        names += [self._bias(name, k)] if bias else []
        return self._node("Gemm", name, names, Value(name, (n, k)), transB=1)

    def project(self, x: Value, name: str, k: int, *, gain: float = 1.0) -> Value:
        """MatMul with a matrix (inputs, k), and a bias added: a linear layer for every row of x."""
        *rows, c = x.shape
        weights = self._uniform(f"{name}.weight", (c, k), gain * sqrt(1 / (c * x.power)))
        y = self._node("MatMul", name, [x.name, weights], Value(f"{name}.product", (*rows, k), gain**2))
        return self._node("Add", f"{name}.add", [y.name, self._bias(name, k, gain)], replace(y, name=name))

    def layer_norm(self, x: Value, name: str) -> Value:
        """LayerNormalization over the last axis."""
        k = x.shape[-1]
        weights = self._drawn(f"{name}.weight", (k,), lambda random: random.uniform(0.8, 1.2, k))
        names = [weights, self._bias(name, k)]
        return self._node("LayerNormalization", name, [x.name, *names], Value(name, x.shape), axis=-1)

    def attention(self, q: Value, k: Value, v: Value, name: str, heads: int) -> Value:
        """Causal attention of (n, tokens, width) in heads: every token sees itself and those before.

        The queries are scaled, not their products with the keys: these numbers are the same, and there are fewer.
        """
        n, tokens, width = q.shape
        depth = width // heads
        scale = self._constant(f"{name}.scale", np.float32(1 / sqrt(depth)))
        scaled = replace(q, name=f"{name}.scaled", power=q.power / depth)
        q = self._heads(self._node("Mul", scaled.name, [q.name, scale], scaled), f"{name}.q", heads, [0, 2, 1, 3])
        k = self._heads(k, f"{name}.k", heads, [0, 2, 3, 1])
        v = self._heads(v, f"{name}.v", heads, [0, 2, 1, 3])
        scores = Value(f"{name}.scores", (n, heads, tokens, tokens), depth * q.power * k.power)
        masked = replace(scores, name=f"{name}.masked")
        # Of t normal scores, the squares of what Softmax makes of them add up to about e / t.
        power = sum(min(1.0, e / t) for t in range(1, tokens + 1)) / tokens
        shares = replace(scores, name=f"{name}.shares", power=power)
        mixed = replace(v, name=f"{name}.mixed", power=power * v.power)
        back = replace(mixed, name=f"{name}.back", shape=(n, tokens, heads, depth))
        self._node("MatMul", scores.name, [q.name, k.name], scores)
        self._node("Add", masked.name, [scores.name, self._causal(tokens)], masked)
        self._node("Softmax", shares.name, [masked.name], shares, axis=-1)
        self._node("MatMul", mixed.name, [shares.name, v.name], mixed)
        self._node("Transpose", back.name, [mixed.name], back, perm=[0, 2, 1, 3])
        return self._reshape(back, name, (n, tokens, width))

    def _heads(self, x: Value, name: str, heads: int, order: list[int]) -> Value:
        """(n, tokens, width) as (n, tokens, heads, depth), in another order."""
        n, tokens, width = x.shape
        split = self._reshape(x, f"{name}.split", (n, tokens, heads, width // heads))
        out = replace(split, name=name, shape=tuple(split.shape[axis] for axis in order))
        return self._node("Transpose", name, [split.name], out, perm=order)

    def _reshape(self, x: Value, name: str, shape: tuple[int, ...]) -> Value:
        extents = self._constant(f"{name}.shape", np.array(shape, np.int64))
        return self._node("Reshape", name, [x.name, extents], replace(x, name=name, shape=shape))

    def _causal(self, tokens: int) -> str:
        """The mask of all attentions over so many tokens, computed by the model: it takes no room in the file."""
        name = f"causal{tokens}"
        if all(node.output[0] != name for node in self._nodes):
            shape = self._constant(f"{name}.shape", np.array([tokens, tokens], np.int64))
            above = self._constant(f"{name}.above", np.int64(1))
            full = Value(f"{name}.full", (tokens, tokens))
            fill = numpy_helper.from_array(np.array([MASKED], np.float32))
            self._node("ConstantOfShape", full.name, [shape], full, value=fill)
            self._node("Trilu", name, [full.name, above], Value(name, full.shape), upper=1)
        return name

    def batch_norm(self, x: Value, name: str, *, gain: float = 1.0) -> Value:
        """BatchNormalization with statistics near the true ones and a scale near ``gain``."""
        k = x.shape[1]
        vectors: dict[str, Draw] = {
            "weight": lambda random: gain * random.uniform(0.8, 1.2, k),
            "bias": lambda random: random.normal(0, 0.05, k),
            "running_mean": lambda random: random.normal(0, 0.05, k) * sqrt(x.power),
            "running_var": lambda random: random.uniform(0.8, 1.2, k) * x.power,
        }
        names = [self._drawn(f"{name}.{key}", (k,), draw) for key, draw in vectors.items()]
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
        """The finished model with this one output.

        Raises:
            ValueError: it has more weights than an ONNX file can hold.
        """
        if self._random and self._weight_bytes > LARGEST_MODEL:
            raise ValueError(f"its {self._weight_bytes / 1e9:,.1f} GB of weights fit no ONNX file; leave them out")
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [_info(value) for value in self._inputs],
            [_info(output)],
            [make() for make in self._constants],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="dnnc models")

    def _node(self, operator: str, name: str, inputs: list[str], output: Value, **attributes: Attribute) -> Value:
        node = helper.make_node(operator, inputs, [output.name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def _constant(self, name: str, array: NDArray[np.int64] | np.float32 | np.int64) -> str:
        self._constants.append(lambda: numpy_helper.from_array(np.asarray(array), name))
        return name

    def _drawn(self, name: str, shape: tuple[int, ...], draw: Draw) -> str:
        """A constant of random numbers, drawn when the model is finished; or of none."""
        random, offset, length = self._random, self._weight_bytes, 4 * prod(shape)
        self._weight_bytes += length
        if random is None:
            self._constants.append(lambda: _absent(name, shape, f"{self._name}.weights", offset, length))
        else:
            self._constants.append(lambda: numpy_helper.from_array(draw(random).astype(np.float32, copy=False), name))
        return name

    def _uniform(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """A constant of this standard deviation about 0. In place: VGG's has 100 million elements."""

        def draw(random: np.random.Generator) -> NDArray[np.float32]:
            array = random.random(shape, np.float32)
            array -= np.float32(0.5)
            array *= np.float32(deviation * sqrt(12))
            return array

        return self._drawn(name, shape, draw)

    def _bias(self, name: str, k: int, gain: float = 1.0) -> str:
        return self._uniform(f"{name}.bias", (k,), gain * 0.05)


def _absent(name: str, shape: tuple[int, ...], location: str, offset: int, length: int) -> onnx.TensorProto:
    """A tensor of floats that lies in another file, whether there is one or not."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


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
