"""DRAM bytes of whole networks, held as found: a change here is a change of the result.

What can be worked out by hand is: its derivation stands beside it, or in by_hand.py.
"""

from __future__ import annotations

GOLDEN = {
    #               snowflake                 two-buffer               host
    "alexnet":     (123_323_424,              124_830_752,             0),
    "googlenet":   ( 35_255_872,               38_467_136,             3_211_264),
    "resnet18":    ( 32_430_240,               35_741_856,             0),
    "resnet34":    ( 58_911_136,               62_222_752,             0),
    "resnet50":    (102_501_536,              105_764_000,             0),
    "vgg16":       (350_296_864,              347_565_152,             0),
    "squeezenet":  ( 11_218_982,               14_812_102,             0),
    "mobilenetv2": ( 34_178_144,               34_429_024,             0),
    "linear":      ( 33_570_816,               33_570_816,             0),
    "conv13x13":   (  1_521_792,                1_521_792,             0),
}  # fmt: skip
"""Bytes of the array's layers on each target, and of the host's.

The host normalises two maps of GoogLeNet, 64 x 56 x 56 and 192 x 56 x 56 words, each read and written: 3,211,264 B.
"""

TOGETHER = {
    #               snowflake                   two-buffer
    "alexnet":     ((123_090_560, 123_090_560), (122_541_600, 122_541_600)),
    "resnet50":    (( 99_421_088,  86_887_328), ( 79_221_408,  63_286_176)),
    "vgg16":       ((337_591_072, 324_746_016), (342_325_856, 309_210_720)),
    "squeezenet":  ((  8_008_358,   3_573_606), (  5_930_406,   2_771_366)),
    "mobilenetv2": (( 28_338_016,   9_022_264), ( 17_346_144,   7_278_688)),
}  # fmt: skip
"""Bytes of all layers together, with tensors that stay (resident) and with groups by strips (fused), proven the fewest.

On two-buffer two networks move kernels, image and result once, and nothing else. SqueezeNet: 1,235,496 words of kernels
and biases, 3 x 223 x 223 of the image that a 3x3 window of stride 2 touches, 1,000 results: 1,385,683 words.
MobileNetV2: 3,469,760 of kernels, 17,056 + 1,000 of biases (norms are folded), 3 x 224 x 224, 1,000: 3,639,344 words.
"""

MEMORIES = {
    (768, 256, 32): (105_764_000,  71_290_016,  57_992_352),
    (512, 256, 32): (105_764_000,  79_221_408,  63_286_176),
    (256, 128, 32): (106_816_584,  97_396_040,  79_881_288),
    (128,  64, 32): (114_258_592, 112_210_464, 100_061_344),
    (128,  64, 16): (109_450_616, 106_201_336,  94_052_216),
}  # fmt: skip
"""Bytes of ResNet-50 on two-buffer layer by layer, resident and fused, proven the fewest: by KiB for feature maps, KiB
for kernels, and bits of a partial sum.

The onnx package's ResNet-50 has the same shapes, with a norm behind every convolution to be folded.
"""

BIASES = 2 * (26_560 + 1_000)
"""Bytes of ResNet-50's biases: of 53 convolutions with folded norms, and of the linear layer."""
