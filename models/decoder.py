"""Transformer decoders."""

from __future__ import annotations

from math import sqrt

import onnx

from model_builder import ModelBuilder


def decoder(
    seed: int | None = None, *, layers: int = 96, width: int = 12288, heads: int = 96, tokens: int = 2048
) -> onnx.ModelProto:
    """The layers of a transformer decoder over a whole sequence; without a seed, shapes only.

    Dimensions: S. Zhang et al., "OPT: Open pre-trained transformer language models", arXiv 2205.01068, table 1 and
    section 2: OPT-175B has 96 layers of width 12,288, 96 heads, Relu, and reads 2,048 tokens. So is GPT-3, but for the
    activation (T. Brown et al., "Language models are few-shot learners", arXiv 2005.14165, table 2.1, which says that
    the inner width is four times the width). The input is what the embeddings give, and the output is what the
    projection on the vocabulary reads: neither of them is here.

    Raises:
        ValueError: the heads do not divide the width, or the weights are too many for an ONNX file.
    """
    if width % heads:
        raise ValueError(f"width is {width}; a multiple of the {heads} heads was expected")
    net = ModelBuilder("decoder", seed)
    # As GPT-2 was initialised: all branches together have power 1.
    gain = sqrt(1 / (2 * layers))
    x = net.input(1, tokens, width)
    for i in range(layers):
        name = f"layer{i}"
        y = net.layer_norm(x, f"{name}.norm1")
        q, k, v = (net.project(y, f"{name}.attention.{part}_proj", width) for part in "qkv")
        y = net.attention(q, k, v, f"{name}.attention", heads)
        x = net.add(net.project(y, f"{name}.attention.out_proj", width, gain=gain), x, f"{name}.add1")
        y = net.project(net.layer_norm(x, f"{name}.norm2"), f"{name}.fc1", 4 * width)
        y = net.project(net.relu(y, f"{name}.relu"), f"{name}.fc2", width, gain=gain)
        x = net.add(y, x, f"{name}.add2")
    return net.model(net.layer_norm(x, "norm"))
