"""AlexNet in one tower ("one weird trick")."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder


def alexnet(seed: int | None = 0) -> onnx.ModelProto:
    """AlexNetOWT: 5 convolutions (64-192-384-256-256), 3 linear layers; input 224x224.

    Dimensions: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997,
    footnote 1, as torchvision's ``alexnet`` has them: the first layer 11x11 with stride 4 and padding 2, pools 3x3
    with stride 2 behind layers 1, 2 and 5, no normalisation.
    """
    net = ModelBuilder("alexnet", seed)
    x = net.input(1, 3, 224, 224)
    layers = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
    for i, (k, kernel, stride, pad) in enumerate(layers, start=1):
        x = net.relu(net.conv(x, f"conv{i}", k, kernel, stride=stride, pad=pad), f"relu{i}")
        if i in (1, 2, 5):
            x = net.max_pool(x, f"pool{i}", 3, stride=2)
    x = net.flatten(x, "flatten")
    for i in (6, 7):
        x = net.relu(net.linear(net.dropout(x, f"drop{i}"), f"fc{i}", 4096), f"relu{i}")
    return net.model(net.linear(x, "fc8", 1000))
