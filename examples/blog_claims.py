"""What "Computation and memory bandwidth in deep neural networks" claims, beside the exact bytes.

E. Culurciello, A. Zaidy, V. Gokhale, blog post, May 2017 ([B] in runtime/dnnc_runtime/targets/snowflake.toml). A linear
layer of M inputs and M outputs moves b (M + M^2) bits for one vector, about b M^2, so that T operations a second need a
bandwidth of T, and T / B for B vectors against the same matrix. A 3x3 convolution on 13x13 maps needs 3.2 GB/s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison import Section, paragraph
from published_tables import ALEXNET, PEAK_GOPS
from timed_networks import Network, Timed, linear_layer

SIZE = 1024
BATCHES = tuple(1 << power for power in range(11))
CHANNEL = 4.2
"""GB/s of the machine."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A linear layer of M inputs and M outputs on B vectors, with the fewest bytes."""

    size: int
    vectors: int
    layer: Timed

    @property
    def once(self) -> int:
        """Bytes of matrix, vectors and results, each once."""
        return 2 * (self.size * self.size + 2 * self.vectors * self.size)

    @property
    def rule(self) -> float:
        """GB/s that the simple rule asks for at full speed."""
        return PEAK_GOPS / self.vectors

    @property
    def needed(self) -> float:
        """GB/s that the exact bytes ask for at full speed."""
        return PEAK_GOPS / self.layer.ops_per_byte

    def __str__(self) -> str:
        return (
            f"{self.vectors:5}{self.layer.dram_bytes:13,}{self.layer.dram_bytes / self.once:9.3f}{self.rule:10.3f}"
            f"{self.needed:10.3f}{self.needed / self.rule:9.3f}{self.layer.ms:9.3f}{self.layer.gops:9.1f}"
            f"{self.layer.gigabytes_per_second:9.2f}  {self.layer.shares.bound}"
        )


def batches(cache: Path | None = None, vectors: Sequence[int] = BATCHES) -> tuple[Batch, ...]:
    """The linear layer on so many vectors each."""
    return tuple(Batch(SIZE, count, linear_layer(SIZE, count, cache)) for count in vectors)


def linear_claim(found: Sequence[Batch]) -> Section:
    """A bandwidth of T, then of T / B."""
    table = [
        "vectors    DRAM bytes   x once   GB/s for 128 G-ops/s    exact       ms  G-ops/s     GB/s  bound by",
        "    B                              T / B     exact    x rule      by the timeline",
        *map(str, found),
    ]
    return Section(f"5. The blog's linear layer, M = {SIZE}", tuple(table), tuple(_linear_remarks(found)))


def _linear_remarks(found: Sequence[Batch]) -> Iterator[str]:
    off = next(batch for batch in found if batch.needed > 1.1 * batch.rule)
    again = next(batch for batch in found if batch.layer.dram_bytes > batch.once)
    enough = next(vectors for vectors in range(1, SIZE) if PEAK_GOPS * (1 / vectors + 2 / SIZE) <= CHANNEL)
    yield paragraph(
        "The rule counts the matrix, M^2 words. Vectors and results are 2 B M words more, so that even with "
        "everything moved once ('x once' is 1) the need is T (1 / B + 2 / M): it never falls below 2 T / M = "
        f"{2 * PEAK_GOPS / SIZE:.2f} GB/s, and is more than 10 % above the rule from B = {off.vectors} on (B > M / "
        "20). The text's own sum, M + M^2, leaves out the results."
    )
    more, most = (batch.layer.dram_bytes / batch.once for batch in (again, found[-1]))
    yield paragraph(
        f"From B = {again.vectors} on, vectors, sums and matrix have no room beside each other: "
        f"{again.layer.dram_bytes:,} bytes are the fewest there are, {more:.3f} times as many as once each, and at B = "
        f"{found[-1].vectors} {most:.3f} times."
    )
    yield paragraph(
        f"Below B = {enough} the machine's {CHANNEL} GB/s are less than the need, and speed is what the channel gives: "
        f"{found[0].layer.gops:.2f} of 128 G-ops/s for one vector. From there on the array is the limit. These are the "
        f"schedules of fewest bytes, which from B = {again.vectors} on hold what they can and wait for it; the least "
        "time is another question."
    )


def convolution_claim(replayed: Network, fewest: Network) -> Section:
    """3x3 on 13x13 maps, 192 to 192 by its text, 192 to 384 by its data: layer 3 of AlexNetOWT."""
    halo = 17 * 13 * 192 * 2
    ops = {k: 2 * 37 * 37 * 192 * k for k in (192, 384)}
    rows = [f"{'maps':>12}{'weights MB':>13}{'x 3 tiles':>11}{'input MB':>10}{'ms at 99 %':>12}{'GB/s':>7}"]
    for k, each in ops.items():
        weights, ms = 9 * 192 * k * 2, each / PEAK_GOPS / 1e6 / 0.99
        moved = (3 * weights + halo) / ms / 1e6
        sizes = f"{weights / 1e6:13.3f}{3 * weights / 1e6:11.3f}{halo / 1e6:10.3f}"
        rows.append(f"{f'192 to {k}':>12}{sizes}{ms:12.3f}{moved:7.2f}")
    remarks = tuple(_convolution_remarks(replayed, fewest))
    return Section("6. The blog's convolution, 3x3 on 13x13", tuple(rows), remarks)


def _convolution_remarks(replayed: Network, fewest: Network) -> Iterator[str]:
    layer, free, measured = replayed["conv3"], fewest["conv3"], ALEXNET["conv3"].measured_ms
    yield paragraph(
        "Valid taps are 37 x 37, as 13 rows or columns of 3 taps lose one at either end. The text says 192 to 192 "
        "maps, about 4 MB of weights, 0.1 MB of input, 3.2 GB/s at about 99 %. Only 192 to 384, three times streamed "
        "past three tiles of maps, is about 4 MB: layer 3 of AlexNetOWT. Its 3.2 GB/s follows from neither: 4.1 MB in "
        f"the 1.59 ms of layer 3 are 2.6 GB/s, and 3.2 GB/s in that time would be {3.2 * measured:.1f} MB."
    )
    yield paragraph(
        f"Replayed, layer 3 moves {layer.dram_bytes / 1e6:.3f} MB, its results included, in {layer.ms:.3f} ms: "
        f"{layer.gigabytes_per_second:.2f} GB/s. Without the published schedule, for the least time, it is "
        f"{free.dram_bytes / 1e6:.3f} MB in {free.ms:.3f} ms, {free.gigabytes_per_second:.2f} GB/s."
    )
