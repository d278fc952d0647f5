"""What more memory buys: python examples/memory_sizes.py [MODEL.onnx | NAME].

DRAM bytes of a network on machines of one unit (two-buffer) with more and less memory for feature maps and for weights:
layer by layer, with tensors that stay on chip, and with groups of layers that run by strips; each proven minimal in its
space, or with the gap to what is proven. The small machine twice: with partial sums of 32 bits, which take twice the
words of a result, and with such of one word.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

import dnnc
from dnnc.pipeline import Compilation
from dnnc.segments import SCOPES, Best
from dnnc_runtime import machine
from dnnc_runtime.machine import Machine
from zoo import NETWORKS

SIZES = ((768, 256), (512, 256), (256, 128), (128, 64))
"""KiB for feature maps, and for weights."""

SUMS = (32, 16)
"""Bits of a partial sum, where there is little memory."""


def machines() -> Iterator[tuple[str, Machine]]:
    """All of them, with what tells them apart."""
    plain = machine.load("two-buffer")
    for maps, weights in SIZES:
        made = plain.with_memory("maps", maps << 10).with_memory("weights", weights << 10)
        for bits in SUMS if (maps, weights) == SIZES[-1] else SUMS[:1]:
            yield f"{maps} + {weights} KiB, {bits}-bit sums", replace(made, accumulator_bits=bits)


def biases(compiled: Compilation) -> int:
    """Bytes of all parameters; they are no part of the table."""
    return sum(layer.traffic["bias"][0] for layer in compiled.plan.on_array if "bias" in layer.traffic)


def shown(best: Best, apart: int) -> str:
    """Megabytes, and the gap to what is proven."""
    gap = (best.bytes - best.bound) / best.bytes
    return f"{(best.bytes - apart) / 1e6:8.3f}" + ("  proven" if not gap else f" <{gap:6.2%}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50", help=f"a file, or one of {', '.join(NETWORKS)}")
    given = parser.parse_args()
    model = NETWORKS[given.model]() if given.model in NETWORKS else given.model
    print(f"{'MB, biases apart':26}  {'layerwise':>16}  {'resident':>16}  {'fused':>16}")
    for name, target in machines():
        compiled = dnnc.compile(model, target)
        network = compiled.plan.network
        assert network is not None
        columns = (shown(network.best[scope], biases(compiled)) for scope in SCOPES)
        print("  ".join([f"{name:26}", *columns]), flush=True)


if __name__ == "__main__":
    main()
