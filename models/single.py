"""Single layers, for what can be worked out by hand."""

from __future__ import annotations

import onnx

from model_builder import ModelBuilder


def linear(seed: int | None = 0, *, size: int = 4096, batch: int = 1) -> onnx.ModelProto:
    """A linear layer of M inputs and M outputs without bias, applied to B vectors.

    Dimensions: the M x M layer of E. Culurciello, "Computation and memory bandwidth in deep neural networks", May
    2017: M + M^2 words for one vector (and M more for the result), so that its bandwidth grows with its speed.
    """
    net = ModelBuilder("linear", seed)
    return net.model(net.linear(net.input(batch, size), "linear", size, bias=False))


def conv13x13(seed: int | None = 0) -> onnx.ModelProto:
    """A 3x3 convolution with padding 1, 192 to 384 maps of 13x13, without bias.

    Dimensions: the convolution of the same text (see ``linear``). It says 192 to 192 maps, but its "about 4 MB of
    weights", streamed three times, are those of 192 to 384, layer 3 of AlexNetOWT: 3 x 1,327,104 bytes in 16 bits.
    """
    net = ModelBuilder("conv13x13", seed)
    return net.model(net.conv(net.input(1, 192, 13, 13), "conv", 384, 3, pad=1, bias=False))
