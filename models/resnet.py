"""Residual networks."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import onnx

from model_builder import ModelBuilder, Value

Block = Callable[[ModelBuilder, Value, str, int, int], Value]
"""A residual block: builder, input, name, width, stride."""

BRANCH_GAIN = 0.5
"""Scale of each branch's last batch norm, so that a stage's sums stay near unit size."""


def resnet18(seed: int | None = 0) -> onnx.ModelProto:
    """ResNet-18: 8 blocks of two 3x3 convolutions; input 224x224.

    Dimensions: K. He et al., "Deep residual learning for image recognition", arXiv 1512.03385, table 1, with
    projection shortcuts where the shape changes (option B).
    """
    return _resnet("resnet18", (2, 2, 2, 2), _basic, seed)


def resnet34(seed: int | None = 0) -> onnx.ModelProto:
    """ResNet-34: 16 blocks of two 3x3 convolutions; input 224x224.

    Dimensions: as ResNet-18, arXiv 1512.03385, table 1.
    """
    return _resnet("resnet34", (3, 4, 6, 3), _basic, seed)


def resnet50(seed: int | None = 0) -> onnx.ModelProto:
    """ResNet-50: 16 bottleneck blocks (1x1, 3x3, 1x1); input 224x224.

    Dimensions: arXiv 1512.03385, table 1, but with a stage's stride in the 3x3 convolution of its first block
    ("version 1.5", as torchvision and most published models have it), not in the 1x1 before it.
    """
    return _resnet("resnet50", (3, 4, 6, 3), _bottleneck, seed)


def residual_chain(seed: int | None = 0, *, layers: int = 1000) -> onnx.ModelProto:
    """A residual network of any depth for 32x32 images, as those for CIFAR-10: 16, 32 and 64 channels.

    Dimensions: arXiv 1512.03385, section 4.2 (which goes to 1,202 layers): a 3x3 convolution, blocks of two 3x3
    convolutions in three stages, global average pooling, a linear layer of 10 outputs. As there, ``layers`` counts the
    convolutions and the linear layer, but no shortcuts; the two of other extents are projections (option B), not zeros.
    Batch norms are folded: every convolution has a bias. Stages differ by at most one block.

    Raises:
        ValueError: ``layers`` is odd, or leaves a stage without a block.
    """
    if layers % 2 or layers < 8:
        raise ValueError(f"layers is {layers}; an even number from 8 on was expected: 2, and 2 for each block")
    blocks = (layers - 2) // 2
    net = ModelBuilder("residual_chain", seed)
    x = net.relu(net.conv(net.input(1, 3, 32, 32), "conv1", 16, 3, pad=1), "relu1")
    for stage in range(3):
        for i in range((blocks + 2 - stage) // 3):
            name, width, stride = f"layer{stage + 1}.{i}", 16 << stage, 2 if i == 0 and stage else 1
            y = net.relu(net.conv(x, f"{name}.conv1", width, 3, stride=stride, pad=1), f"{name}.relu1")
            # All branches together have power 1, however many there are.
            y = net.conv(y, f"{name}.conv2", width, 3, pad=1, gain=sqrt(1 / blocks))
            if x.shape != y.shape:
                x = net.conv(x, f"{name}.downsample", width, 1, stride=stride)
            x = net.relu(net.add(y, x, f"{name}.add"), f"{name}.relu")
    return net.model(net.linear(net.flatten(net.global_average(x, "avgpool"), "flatten"), "fc", 10))


def _resnet(name: str, blocks: tuple[int, ...], block: Block, seed: int | None) -> onnx.ModelProto:
    net = ModelBuilder(name, seed)
    x = net.conv(net.input(1, 3, 224, 224), "conv1", 64, 7, stride=2, pad=3, bias=False)
    x = net.relu(net.batch_norm(x, "bn1"), "relu1")
    x = net.max_pool(x, "maxpool", 3, stride=2, pad=1)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            x = block(net, x, f"layer{stage}.{i}", 32 << stage, 2 if i == 0 and stage > 1 else 1)
    x = net.flatten(net.global_average(x, "avgpool"), "flatten")
    return net.model(net.linear(x, "fc", 1000))


def _basic(net: ModelBuilder, x: Value, name: str, width: int, stride: int) -> Value:
    y = net.conv(x, f"{name}.conv1", width, 3, stride=stride, pad=1, bias=False)
    y = net.relu(net.batch_norm(y, f"{name}.bn1"), f"{name}.relu1")
    y = net.conv(y, f"{name}.conv2", width, 3, pad=1, bias=False)
    return _join(net, x, net.batch_norm(y, f"{name}.bn2", gain=BRANCH_GAIN), name, stride)


def _bottleneck(net: ModelBuilder, x: Value, name: str, width: int, stride: int) -> Value:
    y = net.conv(x, f"{name}.conv1", width, 1, bias=False)
    y = net.relu(net.batch_norm(y, f"{name}.bn1"), f"{name}.relu1")
    y = net.conv(y, f"{name}.conv2", width, 3, stride=stride, pad=1, bias=False)
    y = net.relu(net.batch_norm(y, f"{name}.bn2"), f"{name}.relu2")
    y = net.conv(y, f"{name}.conv3", 4 * width, 1, bias=False)
    return _join(net, x, net.batch_norm(y, f"{name}.bn3", gain=BRANCH_GAIN), name, stride)


def _join(net: ModelBuilder, x: Value, branch: Value, name: str, stride: int) -> Value:
    """Adds the branch to its input, projected where the shapes differ."""
    if x.shape != branch.shape:
        x = net.conv(x, f"{name}.downsample.conv", branch.shape[1], 1, stride=stride, bias=False)
        x = net.batch_norm(x, f"{name}.downsample.bn")
    return net.relu(net.add(branch, x, f"{name}.add"), f"{name}.relu")
