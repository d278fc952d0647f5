"""MobileNetV2."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder, Value

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block (t, c, n, s of the paper)."""

BRANCH_GAIN = 0.5
"""Scale of the last batch norm of a block that adds its input, so that sums stay near unit size."""


def mobilenetv2(seed: int | None = 0) -> onnx.ModelProto:
    """MobileNetV2: 17 inverted residual blocks with depthwise convolutions; input 224x224.

    Dimensions: M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", arXiv 1801.04381,
    table 2, width 1.0, as torchvision's ``mobilenet_v2`` has them.
    """
    net = ModelBuilder("mobilenetv2", seed)
    x = _conv(net, net.input(1, 3, 224, 224), "features.0", 32, 3, stride=2)
    blocks = [(t, c, s if i == 0 else 1) for t, c, n, s in STAGES for i in range(n)]
    for i, (expansion, channels, stride) in enumerate(blocks, start=1):
        x = _inverted_residual(net, x, f"features.{i}", expansion, channels, stride)
    x = _conv(net, x, "features.18", 1280, 1)
    x = net.dropout(net.flatten(net.global_average(x, "avgpool"), "flatten"), "dropout")
    return net.model(net.linear(x, "classifier", 1000))


def _conv(net: ModelBuilder, x: Value, name: str, k: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Value:
    x = net.conv(x, f"{name}.conv", k, kernel, stride=stride, pad=kernel // 2, groups=groups, bias=False)
    return net.relu6(net.batch_norm(x, f"{name}.bn"), f"{name}.relu6")


def _inverted_residual(net: ModelBuilder, x: Value, name: str, expansion: int, channels: int, stride: int) -> Value:
    width = expansion * x.shape[1]
    y = _conv(net, x, f"{name}.expand", width, 1) if expansion > 1 else x
    y = _conv(net, y, f"{name}.depthwise", width, 3, stride=stride, groups=width)
    y = net.conv(y, f"{name}.project.conv", channels, 1, bias=False)
    if stride > 1 or channels != x.shape[1]:
        return net.batch_norm(y, f"{name}.project.bn")
    return net.add(x, net.batch_norm(y, f"{name}.project.bn", gain=BRANCH_GAIN), f"{name}.add")
