"""What each network of models/ has to move at least, from its published table alone: every tensor once, in words.

``pooled`` says whether the machine pools on the way out: then a convolution stores its pooled output alone, else the
pool is a layer that reads the convolution's output and stores its own. Batch norms are folded: every kernel has a bias.
"""

from __future__ import annotations

from collections.abc import Callable

IMAGE = 3 * 224**2


def kernels(k: int, c: int, r: int = 1) -> int:
    """Words of k kernels of r x r over c channels, and of their biases."""
    return k * (c * r * r + 1)


def pooled_output(pooled: bool, before: int, after: int) -> int:
    """Words that a layer of ``before`` outputs and its pool store and read."""
    return after if pooled else before + before + after


def alexnet(pooled: bool) -> int:
    weights = kernels(64, 3, 11) + kernels(192, 64, 5) + kernels(384, 192, 3) + kernels(256, 384, 3)
    weights += kernels(256, 256, 3) + kernels(4096, 256 * 36) + kernels(4096, 4096) + kernels(1000, 4096)
    # Rows: 224 -> 55 -> 27 (5x5 pad 2) -> 13 (three 3x3) -> 6.
    maps = IMAGE + pooled_output(pooled, 64 * 55**2, 64 * 27**2)
    maps += 64 * 27**2 + pooled_output(pooled, 192 * 27**2, 192 * 13**2)
    maps += (192 + 384) * 13**2 + (384 + 256) * 13**2
    maps += 256 * 13**2 + pooled_output(pooled, 256 * 13**2, 256 * 6**2)
    return weights + maps + 256 * 36 + 4096 + 4096 + 4096 + 4096 + 1000


def vgg16(pooled: bool) -> int:
    words, c, size = 0, 3, 224
    for k, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for i in range(convolutions):
            last = i == convolutions - 1
            stored = pooled_output(pooled, k * size**2, k * (size // 2) ** 2) if last else k * size**2
            words += kernels(k, c, 3) + c * size**2 + stored
            c = k
        size //= 2
    for k in (4096, 4096, 1000):
        inputs = c * size**2
        words += kernels(k, inputs) + inputs + k
        c, size = k, 1
    return words


def residual(blocks: tuple[int, ...], bottleneck: bool) -> Callable[[bool], int]:
    """ResNets: the stride of a stage is in the first 3x3 of its first block, and in the shortcut's 1x1."""

    def words(pooled: bool) -> int:
        total = kernels(64, 3, 7) + IMAGE + pooled_output(pooled, 64 * 112**2, 64 * 56**2)
        c, size = 64, 56
        for stage, count in enumerate(blocks):
            width = 64 << stage
            for i in range(count):
                before, size = size, size // 2 if stage and i == 0 else size
                k, map_ = (4 * width if bottleneck else width), size**2
                if bottleneck:
                    total += kernels(width, c) + (c + width) * before**2
                    total += kernels(width, width, 3) + width * (before**2 + map_)
                    total += kernels(k, width) + width * map_
                else:
                    total += kernels(width, c, 3) + c * before**2 + width * map_
                    total += kernels(k, width, 3) + width * map_
                if c != k or size != before:
                    total += kernels(k, c) + (c + k) * map_  # of its input a strided 1x1 touches so many words
                last = stage == len(blocks) - 1 and i == count - 1
                total += k * map_ + (
                    pooled_output(pooled, k * map_, k) if last else k * map_
                )  # the sum's other operand
                c = k
        return total + kernels(1000, c) + c + 1000

    return words


def googlenet(pooled: bool) -> int:
    # The stem: 224 -> 112 -> 56, normalised on the host, and 56 -> 28.
    words = kernels(64, 3, 7) + IMAGE + pooled_output(pooled, 64 * 112**2, 64 * 56**2)
    words += kernels(64, 64) + (64 + 64) * 56**2
    words += kernels(192, 64, 3) + (64 + 192) * 56**2 + 192 * 56**2 + 192 * 28**2
    modules = (
        (28, (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        (14, (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
         (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
        (7, (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    )  # fmt: skip
    c = 192
    for size, *inceptions in modules:
        for one, reduce3, three, reduce5, five, projection in inceptions:
            words += kernels(one, c) + kernels(reduce3, c) + kernels(three, reduce3, 3)
            words += kernels(reduce5, c) + kernels(five, reduce5, 5) + kernels(projection, c)
            # Three 1x1 and the pool read the input; the pool's output is stored and read.
            words += (4 * c + 2 * c + 2 * (reduce3 + reduce5) + one + three + five + projection) * size**2
            c = one + three + five + projection
        # A pool behind the concatenation, the last of them over everything.
        words += c * size**2 + c * ((size // 2) ** 2 if size > 7 else 1)
    return words + kernels(1000, c) + c + 1000


def squeezenet(pooled: bool) -> int:
    # 3x3, stride 2, no padding: 111 outputs touch 223 of 224 rows.
    words = kernels(64, 3, 3) + 3 * 223**2 + pooled_output(pooled, 64 * 111**2, 64 * 55**2)
    c, size = 64, 55
    for i, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        if i in (2, 4):
            words += c * size**2 + c * (size // 2) ** 2
            size //= 2
        words += kernels(squeeze, c) + kernels(expand, squeeze) + kernels(expand, squeeze, 3)
        words += (c + squeeze + 2 * squeeze + 2 * expand) * size**2
        c = 2 * expand
    return words + kernels(1000, c) + c * size**2 + pooled_output(pooled, 1000 * size**2, 1000)


def mobilenetv2(pooled: bool) -> int:
    words, c, size = kernels(32, 3, 3) + IMAGE + 32 * 112**2, 32, 112
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, k, count, stride in stages:
        for i in range(count):
            width, before = expansion * c, size
            size = size // stride if i == 0 else size
            if expansion > 1:
                words += kernels(width, c) + (c + width) * before**2
            words += kernels(width, 1, 3) + width * (before**2 + size**2)
            words += kernels(k, width) + (width + k) * size**2
            words += k * size**2 if i else 0  # the sum's other operand
            c = k
    words += kernels(1280, c) + c * size**2 + pooled_output(pooled, 1280 * size**2, 1280)
    return words + kernels(1000, 1280) + 1280 + 1000


def linear(_: bool) -> int:
    """M + M^2 words for a vector, and M for the result."""
    return 4096 + 4096**2 + 4096


def conv13x13(_: bool) -> int:
    """192 to 384 maps of 13x13, without biases: 32,448 words read, 663,552 of kernels, 64,896 stored."""
    return 192 * 13**2 + 384 * 192 * 9 + 384 * 13**2


WORDS: dict[str, Callable[[bool], int]] = {
    "alexnet": alexnet,
    "googlenet": googlenet,
    "resnet18": residual((2, 2, 2, 2), bottleneck=False),
    "resnet34": residual((3, 4, 6, 3), bottleneck=False),
    "resnet50": residual((3, 4, 6, 3), bottleneck=True),
    "vgg16": vgg16,
    "squeezenet": squeezenet,
    "mobilenetv2": mobilenetv2,
    "linear": linear,
    "conv13x13": conv13x13,
}
