"""SqueezeNet."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder, Value

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Squeeze and expand channels of the fire modules 2 to 9."""


def squeezenet(seed: int | None = 0) -> onnx.ModelProto:
    """SqueezeNet 1.1: 8 fire modules, no linear layer; input 224x224.

    Dimensions: F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360,
    as its authors' release 1.1 changed them: the first convolution is 3x3 with 64 kernels, pools stand before fire
    modules 2, 4 and 6. torchvision's ``squeezenet1_1`` is the same. The final Softmax is left out.
    """
    net = ModelBuilder("squeezenet", seed)
    x = net.relu(net.conv(net.input(1, 3, 224, 224), "conv1", 64, 3, stride=2), "relu1")
    for i, (squeeze, expand) in enumerate(FIRES, start=2):
        if i in (2, 4, 6):
            x = net.max_pool(x, f"pool{i - 1}", 3, stride=2)
        x = _fire(net, x, f"fire{i}", squeeze, expand)
    x = net.relu(net.conv(net.dropout(x, "drop9"), "conv10", 1000, 1), "relu10")
    return net.model(net.flatten(net.global_average(x, "pool10"), "flatten"))


def _fire(net: ModelBuilder, x: Value, name: str, squeeze: int, expand: int) -> Value:
    x = net.relu(net.conv(x, f"{name}.squeeze", squeeze, 1), f"{name}.relu_squeeze")
    branches = (
        net.relu(net.conv(x, f"{name}.expand1x1", expand, 1), f"{name}.relu_expand1x1"),
        net.relu(net.conv(x, f"{name}.expand3x3", expand, 3, pad=1), f"{name}.relu_expand3x3"),
    )
    return net.concat(branches, f"{name}.concat")
