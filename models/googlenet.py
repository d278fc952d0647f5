"""GoogLeNet."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder, Value

INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Output channels of each module: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection."""


def googlenet(seed: int | None = 0) -> onnx.ModelProto:
    """GoogLeNet: 9 inception modules, local response normalisation; input 224x224.

    Dimensions: C. Szegedy et al., "Going deeper with convolutions", arXiv 1409.4842, table 1, and figure 3 for the
    normalisations, whose constants are AlexNet's (5 channels, alpha 0.0001, beta 0.75). As published: no batch
    normalisation, pool windows rounded up. Left out: the two classifiers that only training uses, and the Softmax.
    """
    net = ModelBuilder("googlenet", seed)
    x = net.relu(net.conv(net.input(1, 3, 224, 224), "conv1", 64, 7, stride=2, pad=3), "relu1")
    x = net.lrn(net.max_pool(x, "pool1", 3, stride=2, ceil=True), "norm1", 5, 1e-4, 0.75)
    x = net.relu(net.conv(x, "conv2_reduce", 64, 1), "relu2_reduce")
    x = net.relu(net.conv(x, "conv2", 192, 3, pad=1), "relu2")
    x = net.max_pool(net.lrn(x, "norm2", 5, 1e-4, 0.75), "pool2", 3, stride=2, ceil=True)
    for name, channels in INCEPTIONS.items():
        x = _inception(net, x, f"inception_{name}", channels)
        if name in ("3b", "4e"):
            x = net.max_pool(x, f"pool{name[0]}", 3, stride=2, ceil=True)
    x = net.dropout(net.flatten(net.global_average(x, "pool5"), "flatten"), "drop")
    return net.model(net.linear(x, "fc", 1000))


def _inception(net: ModelBuilder, x: Value, name: str, channels: tuple[int, ...]) -> Value:
    def conv(x: Value, part: str, k: int, kernel: int) -> Value:
        return net.relu(net.conv(x, f"{name}.{part}", k, kernel, pad=kernel // 2), f"{name}.relu_{part}")

    one, reduce3, three, reduce5, five, projection = channels
    pooled = net.max_pool(x, f"{name}.pool", 3, stride=1, pad=1)
    branches = (
        conv(x, "1x1", one, 1),
        conv(conv(x, "3x3_reduce", reduce3, 1), "3x3", three, 3),
        conv(conv(x, "5x5_reduce", reduce5, 1), "5x5", five, 5),
        conv(pooled, "pool_proj", projection, 1),
    )
    return net.concat(branches, f"{name}.output")
