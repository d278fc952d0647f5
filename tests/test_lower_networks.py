"""Random networks, and published ones, lowered and computed layer by layer."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnnc import onnx_import
from dnnc.layer import HostLayer, Layer
from dnnc.lower import lower
from dnnc.simplify import simplify
from dnnc_runtime import machine
from lowering import Net, lowered
from networks import SHAPE_ONLY, shape_only
from zoo import NETWORKS


class Walk:
    """Random nodes over a growing set of values whose shapes are known."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        shape = tuple(draw(st.sampled_from(extents)) for extents in ((1, 2), (2, 4), (4, 6), (4, 6)))
        self.net = Net(x=shape)
        self.shapes = {"x": shape}

    def pick(self, *ranks: int) -> str:
        names = [name for name, shape in self.shapes.items() if len(shape) in ranks]
        return self.draw(st.sampled_from(names[-4:]))

    def put(self, name: str, *shape: int) -> None:
        self.shapes[name] = shape

    def conv(self) -> None:
        x = self.pick(4)
        n, c, h, w = self.shapes[x]
        size, stride = self.draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
        group = self.draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
        k = group * self.draw(st.sampled_from([1, 2, 3]))
        out = self.net.conv(x, c, k, size, group, strides=[stride] * 2)
        self.put(out, n, k, (h - 1) // stride + 1, (w - 1) // stride + 1)

    def shortcut(self) -> None:
        x = self.pick(4)
        c = self.shapes[x][1]
        other = self.net.conv(x, c, c, 1) if self.draw(st.booleans()) else x
        operands = self.draw(st.permutations([self.net.conv(x, c, c), other]))
        self.put(self.net.op("Relu", self.net.op("Add", *operands)), *self.shapes[x])

    def pool(self) -> None:
        x = self.pick(4)
        n, c, h, w = self.shapes[x]
        operator = self.draw(st.sampled_from(["MaxPool", "AveragePool"]))
        out = self.net.op(operator, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        self.put(out, n, c, (h - 1) // 2 + 1, (w - 1) // 2 + 1)

    def activation(self) -> None:
        x = self.pick(2, 3, 4, 5)
        self.put(self.net.op(self.draw(st.sampled_from(["Relu", "Sigmoid", "HardSwish"])), x), *self.shapes[x])

    def norm(self) -> None:
        x = self.pick(3, 4)
        c = self.shapes[x][1]
        self.put(self.net.op("BatchNormalization", x, *(self.net.const(c) for _ in range(4))), *self.shapes[x])

    def binary(self) -> None:
        x = self.pick(2, 3, 4, 5)
        shape = self.shapes[x]
        alike = [name for name, other in self.shapes.items() if other == shape]
        small = tuple(self.draw(st.sampled_from([1, extent])) for extent in shape)
        other = self.draw(st.sampled_from([*alike, *alike, "constant"]))
        other = self.net.const(*small) if other == "constant" else other
        operands = self.draw(st.permutations([x, other]))
        self.put(self.net.op(self.draw(st.sampled_from(["Add", "Add", "Sub", "Mul"])), *operands), *shape)

    def gate(self) -> None:
        x = self.pick(4)
        c = self.shapes[x][1]
        s = self.net.op("Sigmoid", self.net.conv(self.net.op("GlobalAveragePool", x), c, c, 1))
        self.put(self.net.op("Mul", x, s), *self.shapes[x])

    def concat(self) -> None:
        x = self.pick(2, 3, 4, 5)
        shape = self.shapes[x]
        axis = self.draw(st.integers(0, len(shape) - 1))

        def rest(extents: tuple[int, ...]) -> tuple[int, ...]:
            return (*extents[:axis], 0, *extents[axis + 1 :])

        fitting = [name for name, s in self.shapes.items() if len(s) == len(shape) and rest(s) == rest(shape)]
        parts = self.draw(st.lists(st.sampled_from(fitting[-4:]), min_size=2, max_size=3))
        total = sum(self.shapes[part][axis] for part in parts)
        if total <= 24:
            self.put(self.net.op("Concat", *parts, axis=axis), *shape[:axis], total, *shape[axis + 1 :])

    def heads(self) -> None:
        x = self.pick(4)
        n, c, h, w = self.shapes[x]
        heads = [self.net.op("Transpose", self.net.conv(x, c, k), perm=(0, 2, 3, 1)) for k in (4, 2)]
        rows = [self.net.reshape(head, n, -1, 2) for head in heads]
        self.put(self.net.op("Concat", *rows, axis=1), n, 3 * h * w, 2)

    def reshape(self) -> None:
        x = self.pick(2, 3, 4, 5)
        shape = self.shapes[x]
        at = self.draw(st.integers(0, len(shape) - 2))
        parts = [d for d in (2, 3) if shape[at] % d == 0]
        if parts and len(shape) < 5:
            part = self.draw(st.sampled_from(parts))
            new = (*shape[:at], part, shape[at] // part, *shape[at + 1 :])
        else:
            new = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
        if len(new) > 1:
            self.put(self.net.reshape(x, *new), *new)

    def transpose(self) -> None:
        x = self.pick(2, 3, 4, 5)
        order = self.draw(st.permutations(range(len(self.shapes[x]))))
        self.put(self.net.op("Transpose", x, perm=order), *(self.shapes[x][a] for a in order))

    def linear(self) -> None:
        x = self.pick(2, 3, 4)
        *rows, c = self.shapes[x]
        product = self.net.op("MatMul", x, self.net.weights(c, 4))
        self.put(self.net.op("Add", product, self.net.const(4)), *rows, 4)

    def classify(self) -> None:
        x = self.pick(3, 4)
        n, *rest = self.shapes[x]
        flat = self.net.op("Flatten", x)
        self.put(self.net.op("Gemm", flat, self.net.weights(5, int(np.prod(rest))), transB=1), n, 5)

    def attend(self) -> None:
        x = self.pick(3, 4, 5)
        shape = self.shapes[x]
        swap = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        out = self.net.op("MatMul", x, self.net.op("Transpose", x, perm=swap))
        self.put(self.net.op("Tanh", out), *shape[:-1], shape[-2])

    def soften(self) -> None:
        x = self.pick(2, 3, 4, 5)
        self.put(self.net.op("Softmax", x, axis=-1), *self.shapes[x])


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Chains and diamonds of up to twelve nodes, all ends and some of the rest read."""
    walk = Walk(draw)
    steps = [
        *(walk.conv, walk.conv, walk.conv, walk.shortcut, walk.pool, walk.activation, walk.activation, walk.norm),
        *(walk.binary, walk.binary, walk.gate, walk.concat, walk.concat, walk.heads, walk.reshape, walk.transpose),
        *(walk.linear, walk.classify, walk.attend, walk.soften),
    ]
    for step in draw(st.lists(st.sampled_from(range(len(steps))), min_size=2, max_size=12)):
        steps[step]()
    if not walk.net.nodes:
        walk.activation()
    read = {name for node in walk.net.nodes for name in node.input}
    ends = [node.output[0] for node in walk.net.nodes if node.output[0] not in read]
    return walk.net.model(*ends)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(models(), st.booleans())
def test_random_networks(model: onnx.ModelProto, fuse: bool) -> None:
    lowered(model, fused=lambda layer, kind: fuse)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "resnet50"])
def test_shape_only_networks_compute_what_the_model_says(name: str) -> None:
    lowered(shape_only(name))


HOST = {
    "bvlc_alexnet": ["LRN", "LRN", "Softmax"],
    "inception_v1": ["LRN", "LRN", "Softmax"],
    "zfnet512": ["LRN", "LRN", "Softmax"],
    "densenet121": [],
}
"""What runs on the host, where that is not a Softmax alone."""


@pytest.mark.parametrize("name", SHAPE_ONLY)
def test_shape_only_networks_are_copied_only_where_channels_are_shuffled(name: str) -> None:
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    made = lower(simplify(onnx_import.load(folder / f"light_{name}.onnx")), machine.load("snowflake"))
    host = [layer.operator for layer in made.layers if isinstance(layer, HostLayer)]
    assert host == HOST.get(name, ["Softmax"])
    # ShuffleNet has 16 units, each with one shuffle.
    copies = [layer for layer in made.layers if ":copy" in layer.name]
    assert len(copies) == (16 if name == "shufflenet" else 0)


def compulsory(layer: Layer) -> int:
    """Bytes of what an array layer touches of its input, of its weights and of its output, once each."""
    shape = layer.shape
    words = 0
    for operand in layer.operands:
        extents = list(operand.view.shape)
        if operand.role == "input":
            extents[1] = len(shape.y.touched(0, shape.y.out - 1))
            extents[2] = len(shape.x.touched(0, shape.x.out - 1))
        words += prod(extents) if operand.role in ("input", "weights", "output") else 0
    return 2 * words


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 32_166_736), ("resnet50", 92_457_296)])
def test_compulsory_bytes(name: str, expected: int) -> None:
    # Pools are layers of their own. ResNet-18, words: weights 11,689,512 parameters - 9,600 of batch norms - 1,000
    # biases = 11,678,912; maps: conv1 150,528 + 802,816; stage 1 8 x 200,704; stage 2 200,704 + 100,352 + 6 x 100,352
    # and the shortcut's 50,176 + 100,352; stages 3 and 4 a half and a quarter of that; the linear layer 512 + 1,000:
    # 4,404,456.
    # ResNet-50: weights 25,557,032 - 53,120 - 1,000 = 25,502,912; maps, block by block in the same way, 20,725,736.
    made = lower(simplify(onnx_import.load(NETWORKS[name]())), machine.load("two-buffer"))
    layers = [layer for layer in made.layers if isinstance(layer, Layer) and layer.shape.kind == "array"]
    assert sum(map(compulsory, layers)) == expected
