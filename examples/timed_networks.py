"""Networks compiled for Snowflake and timed: what every layer does, moves and takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

import dnnc
from dnnc.plan import LayerPlan
from dnnc.search import Goal
from dnnc_runtime.machine import Machine
from dnnc_runtime.time_shares import Shares
from dnnc_runtime.timeline import Timing, timeline

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "models"))

from googlenet import googlenet  # noqa: E402  (models/ is no package)
from published_schedule import convolutions  # noqa: E402
from resnet import resnet50  # noqa: E402
from single import linear  # noqa: E402

PUBLISHED_SCHEDULE = ROOT / "examples" / "alexnet-published-timing.toml"

CYCLES_PER_MS = 250e3
"""Of Snowflake."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A layer, or several one after the other.

    Attributes:
        operator: of its main node.
        ops: on valid taps, two for each multiply-accumulate; comparisons of pools are none.
        dram_bytes: payload.
        ms, cycles: by the timeline.
        shares: what the cycles are spent on.
        first_weights: cycles in which weights are loaded before the layer's first computation.
    """

    name: str
    operator: str
    ops: int
    dram_bytes: int
    ms: float
    cycles: float
    shares: Shares
    first_weights: float = 0.0

    @property
    def theoretical_ms(self) -> float:
        """Its operations at the peak of 128 G-ops/s."""
        return self.ops / 128e6

    @property
    def efficiency_percent(self) -> float:
        """Theoretical time per time."""
        return 100 * self.theoretical_ms / self.ms

    @property
    def gops(self) -> float:
        """G-ops/s."""
        return self.ops / self.ms / 1e6

    @property
    def gigabytes_per_second(self) -> float:
        """DRAM bandwidth in 1e9 bytes of payload a second."""
        return self.dram_bytes / self.ms / 1e6

    @property
    def ops_per_byte(self) -> float:
        """Arithmetic intensity."""
        return self.ops / self.dram_bytes


Network = Mapping[str, Timed]
"""The layers of a network on the array by name, in order. What runs on the host takes no time here."""


def together(layers: Iterable[Timed], name: str = "total") -> Timed:
    """Layers as one."""
    each = tuple(layers)
    shares = sum((layer.shares for layer in each), Shares())
    ops, moved = sum(layer.ops for layer in each), sum(layer.dram_bytes for layer in each)
    return Timed(name, "", ops, moved, sum(layer.ms for layer in each), sum(layer.cycles for layer in each), shares)


def but(network: Network, left_out: Callable[[Timed], bool]) -> Timed:
    """A network without some of its layers, as one."""
    return together(layer for layer in network.values() if not left_out(layer))


def timed(compilation: dnnc.Compilation, ahead: bool = False) -> Network:
    """Every layer of a compiled network; ``ahead``: constants may be loaded while the layer before runs."""
    timing = timeline(compilation.program, ahead)
    layers = {layer.name: layer for layer in compilation.plan.on_array}
    return {
        name: _timed(layers[name], number, timing, compilation.machine)
        for number, name in enumerate(timing.sections)
        if name in layers
    }


def _timed(layer: LayerPlan, number: int, timing: Timing, machine: Machine) -> Timed:
    time = timing.times[number]
    jobs = [(job, span) for job, span in zip(timing.jobs, timing.spans, strict=True) if job.section == number]
    begun = min((span[0] for job, span in jobs if job.computes), default=0)
    weights = sum(job.ticks for job, span in jobs if job.name == "load weights" and span[1] <= begun)
    return Timed(
        layer.name,
        layer.layer.operator,
        layer.valid_ops,
        layer.figures.dram_bytes,
        1000 * time.cycles / machine.clock_hz,
        time.cycles,
        time.shares,
        weights / timing.ticks_per_cycle,
    )


def original_resnet50() -> onnx.ModelProto:
    """ResNet-50 as arXiv 1512.03385 has it and as it was published here: a stage's stride in its first 1x1.

    The builder in models/ has it in the 3x3 behind.
    """
    model = resnet50()
    nodes = {node.name: node for node in model.graph.node}
    for stage in (2, 3, 4):
        for name, stride in ((f"layer{stage}.0.conv1", 2), (f"layer{stage}.0.conv2", 1)):
            (old,) = [attribute for attribute in nodes[name].attribute if attribute.name == "strides"]
            nodes[name].attribute.remove(old)
            nodes[name].attribute.append(helper.make_attribute("strides", [stride, stride]))
    return model


def linear_layer(size: int, vectors: int, cache: Path | None = None) -> Timed:
    """A linear layer with the fewest bytes."""
    return timed(dnnc.compile(linear(size=size, batch=vectors), plan="layerwise", cache=cache))["linear"]


@dataclass(frozen=True, slots=True)
class Runs:
    """What is timed once, and read by every comparison.

    Attributes:
        replayed: AlexNetOWT's convolutions under the published schedule; ahead: with constants loaded ahead.
        alexnet, googlenet, resnet50: with what the search chooses for the least time.
    """

    replayed: Network
    ahead: Network
    alexnet: Network
    googlenet: Network
    resnet50: Network


def replay(cache: Path | None = None) -> dnnc.Compilation:
    """AlexNetOWT's convolutions under the published schedule."""
    return dnnc.compile(convolutions(), constraints=PUBLISHED_SCHEDULE, plan="layerwise", cache=cache)


def fastest(model: onnx.ModelProto, cache: Path | None = None, objective: Goal = "latency") -> Network:
    """A network with what the search chooses for the least time."""
    return timed(dnnc.compile(model, plan="layerwise", objective=objective, cache=cache))


def runs(cache: Path | None = None) -> Runs:
    """Compiles and times all of it."""
    published = replay(cache)
    return Runs(
        timed(published),
        timed(published, ahead=True),
        fastest(convolutions(), cache),
        fastest(googlenet(), cache),
        fastest(original_resnet50(), cache),
    )
