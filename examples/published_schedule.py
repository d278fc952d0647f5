"""Replays the published schedule of AlexNetOWT on Snowflake, and shows what a free search saves.

    python examples/published_schedule.py

The published table gives DRAM traffic for each convolution, in KiB, for weights and for maps (inputs and outputs).
``alexnet-published.toml`` states the schedule behind it as constraints. Biases, a few hundred bytes, are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx.utils import Extractor

import dnnc

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "models"))

from alexnet import alexnet  # noqa: E402  (models/ is no package)

CONSTRAINTS = ROOT / "examples" / "alexnet-published.toml"

PUBLISHED = {
    "conv1": (181.5, 699.7),
    "conv2": (1800.0, 181.5),
    "conv3": (3888.0, 209.6),
    "conv4": (5184.0, 250.3),
    "conv5": (3456.0, 128.5),
}
"""KiB of (weights, maps) by layer, as A. X. M. Chang, A. Zaidy, E. Culurciello: "Efficient Compiler Code Generation for
Deep Learning Snowflake Co-Processor", EMC2 workshop, 2018, print them."""

LOADS_OF_CONV1 = 4
"""Layer 1 gives every compute unit its own rows and the same kernels. The published figure is that of one load of the
kernels for each of the four units; here one broadcast serves all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """DRAM traffic of a layer in KiB, biases apart."""

    weights: float
    maps: float

    @property
    def total(self) -> float:
        """Weights and maps."""
        return self.weights + self.maps


def convolutions() -> onnx.ModelProto:
    """AlexNetOWT without its linear layers, which the published table leaves out."""
    model = alexnet()
    model.graph.value_info.append(helper.make_tensor_value_info("pool5", TensorProto.FLOAT, (1, 256, 6, 6)))
    return Extractor(model).extract_model(["input"], ["pool5"])


def traffic(model: onnx.ModelProto, constraints: Path | None = None) -> dict[str, Traffic]:
    """What every convolution moves on Snowflake, with the fewest bytes that the constraints allow."""
    compilation = dnnc.compile(model, "snowflake", plan="layerwise", constraints=constraints)
    moved = {layer: compilation.traffic[layer] for layer in PUBLISHED}
    return {name: Traffic(_kib(of["weights"]), _kib(of["input"] + of["output"])) for name, of in moved.items()}


def _kib(byte_counts: Iterable[int]) -> float:
    return sum(byte_counts) / 1024


def agrees(layer: str, found: Traffic) -> bool:
    """Whether a layer moves what was published: weights exactly, maps to the one decimal that is printed."""
    weights, maps = PUBLISHED[layer]
    loads = LOADS_OF_CONV1 if layer == "conv1" else 1
    return found.weights * loads == weights and floor(found.maps * 10 + 0.5) / 10 == maps


def report(replayed: Mapping[str, Traffic], free: Mapping[str, Traffic]) -> list[str]:
    """The published table beside the replayed one and the free search's, and what that saves."""
    lines = [
        f"{'KiB':7}{'published':>11}{'replayed':>20}{'free search':>24}",
        f"{'layer':7}" + "   weights      maps" * 3,
    ]
    for name, published in PUBLISHED.items():
        figures = (*published, replayed[name].weights, replayed[name].maps, free[name].weights, free[name].maps)
        verdict = "agrees" if agrees(name, replayed[name]) else "DIFFERS"
        lines.append(f"{name:7}" + "".join(f"{kib:10,.3f}" for kib in figures) + f"  {verdict}")
    kernels = replayed["conv1"].weights
    published_kib = sum(map(sum, PUBLISHED.values()))
    replayed_kib, free_kib = (sum(layer.total for layer in each.values()) for each in (replayed, free))
    return [
        *lines,
        "",
        f"conv1's published weights are {LOADS_OF_CONV1} x {kernels} KiB: a load of the same kernels for each unit.",
        f"A broadcast, which the machine has, needs {kernels} KiB.",
        "",
        f"published {published_kib:10,.3f} KiB, and pool1 apart, whose input is stored and read again",
        f"replayed  {replayed_kib:10,.3f} KiB, pool1 apart",
        f"free      {free_kib:10,.3f} KiB, pool1 fused: {published_kib / free_kib:.2f} times fewer than published",
    ]


def main() -> int:
    """Prints the tables; the exit status is 1 if a layer does not agree."""
    model = convolutions()
    replayed, free = traffic(model, CONSTRAINTS), traffic(model)
    print("\n".join(report(replayed, free)))
    return 0 if all(agrees(layer, found) for layer, found in replayed.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
