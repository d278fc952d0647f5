"""VGG."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder


def vgg16(seed: int | None = 0) -> onnx.ModelProto:
    """VGG-16: 13 convolutions of 3x3 in five blocks, 3 linear layers; input 224x224.

    Dimensions: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
    arXiv 1409.1556, table 1, column D.
    """
    net = ModelBuilder("vgg16", seed)
    x = net.input(1, 3, 224, 224)
    for block, (k, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for i in range(1, convolutions + 1):
            x = net.relu(net.conv(x, f"conv{block}_{i}", k, 3, pad=1), f"relu{block}_{i}")
        x = net.max_pool(x, f"pool{block}", 2, stride=2)
    x = net.flatten(x, "flatten")
    for i in (6, 7):
        x = net.dropout(net.relu(net.linear(x, f"fc{i}", 4096), f"relu{i}"), f"drop{i}")
    return net.model(net.linear(x, "fc8", 1000))
