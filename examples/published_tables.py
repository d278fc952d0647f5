"""The published figures of Snowflake, 256 MACs at 250 MHz."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).parent / "published"
"""Tables with their sources; [P] and [B] are those of runtime/dnnc_runtime/targets/snowflake.toml."""

PEAK_GOPS = 128.0
"""G-ops/s: 256 MACs, two operations each, at 250 MHz."""

FRAMES = {"AlexNet": 100.3, "GoogLeNet": 36.3, "ResNet-50": 17.7}
"""Frames per second, published in [B] (see snowflake.toml); the abstract of [P] has 100, 36 and 17."""

GOOGLENET_MS = 25.41, 27.75
"""Theoretical and measured time of GoogLeNet, published with [P] and in [B]."""


@dataclass(frozen=True, slots=True)
class Row:
    """A layer, a stage or the total in a table of times."""

    name: str
    ops_million: float
    theoretical_ms: float
    measured_ms: float
    efficiency_percent: float

    @property
    def by_efficiency_ms(self) -> float:
        """The time that the printed efficiency gives."""
        return self.theoretical_ms / (self.efficiency_percent / 100)


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the roofline chart."""

    ops_per_byte: float
    gops: float


def _read(name: str) -> list[dict[str, str]]:
    lines = (PUBLISHED / name).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _times(name: str, key: str, prefix: str) -> Mapping[str, Row]:
    columns = ("ops_million", "theoretical_ms", "measured_ms", "efficiency_percent")
    rows = _read(name)
    names = [row[key] if row[key] == "total" else prefix + row[key] for row in rows]
    return {name: Row(name, *(float(row[c]) for c in columns)) for name, row in zip(names, rows, strict=True)}


ALEXNET = _times("alexnet.csv", "layer", "conv")
"""The layers of AlexNetOWT, ``conv1`` to ``conv5``, and ``total``."""

ALEXNET_KIB = {
    f"conv{row['layer']}": float(row["maps_kib"]) + float(row["weights_kib"])
    for row in _read("alexnet.csv")
    if row["maps_kib"]
}
"""DRAM traffic of each of them."""

RESNET50 = _times("resnet50.csv", "stage", "")
"""The stages of ResNet-50, ``conv_1`` to ``conv_5``, and ``total``."""

ROOFLINE = {
    row["network"]: Point(float(row["ops_per_byte"]), float(row["gops_per_s"]))
    for row in _read("roofline.csv")
    if row["ops_per_byte"]
}
"""Points by network; ``Linear layer`` and ``knee`` among them."""
