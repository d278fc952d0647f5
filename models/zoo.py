"""All networks by name."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from alexnet import alexnet
from googlenet import googlenet
from mobilenet import mobilenetv2
from resnet import resnet18, resnet34, resnet50
from single import conv13x13, linear
from squeezenet import squeezenet
from vgg import vgg16

NETWORKS: dict[str, Callable[..., onnx.ModelProto]] = {
    build.__name__: build
    for build in (
        alexnet,
        googlenet,
        resnet18,
        resnet34,
        resnet50,
        vgg16,
        squeezenet,
        mobilenetv2,
        linear,
        conv13x13,
    )
}
"""Every builder takes ``seed``; ``linear`` also takes ``size`` and ``batch``."""
