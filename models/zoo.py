"""All networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from alexnet import alexnet
from decoder import decoder
from googlenet import googlenet
from mobilenet import mobilenetv2
from resnet import residual_chain, resnet18, resnet34, resnet50
from single import conv13x13, linear
from squeezenet import squeezenet
from vgg import vgg16

Build = Callable[..., onnx.ModelProto]
"""Takes ``seed``, None for a model without weights, and what else its signature says: all of it has defaults."""

NETWORKS: Mapping[str, Build] = {
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
"""Networks of a size that is compiled, run and proven in every test."""

SCALE: Mapping[str, Build] = {build.__name__: build for build in (residual_chain, decoder)}
"""Networks of any depth and width, to see how dnnc scales."""
