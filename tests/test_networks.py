"""Whole networks: bytes counted are bytes predicted, and numbers are the reference's, layer by layer.

Every network of models/ and of the onnx package, on both targets: compiled for fewest bytes layer by layer, counted and
run in both number systems; planned under random constraints, and counted. Some with all layers together, held to
figures, counted and run; some for latency and balanced too, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest

import dnnc
from dnnc import onnx_import
from dnnc.agreement import agree
from dnnc.constraints import PINS, Constraints, loads
from dnnc.emit import emit
from dnnc.enumerate import quickest_legal
from dnnc.layer import Layer
from dnnc.numeric import System
from dnnc.pipeline import Compilation, lower_with
from dnnc.planning import Planner
from dnnc.schedule import DIMS
from dnnc.search import DATAFLOWS, NEAR, Objective
from dnnc.segments import SCOPES, Best
from dnnc.simplify import simplify
from dnnc.space import Space
from dnnc_runtime.machine import Machine, load
from dnnc_runtime.walk import checked
from figures import GOLDEN, MEMORIES, TOGETHER
from networks import SHAPE_ONLY, shape_only
from zoo import NETWORKS

TARGETS = ("snowflake", "two-buffer")
QUICK = {"conv13x13", "linear", "squeezenet", "resnet18"}
"""Those that are over soon; all others are marked as slow."""

COUNTED_ONLY = {
    *((name, "two-buffer") for name in ("vgg16", "resnet34")),
    *((f"onnx:{name}", "two-buffer") for name in ("vgg19", "densenet121", "inception_v2", "zfnet512", "resnet50")),
    ("onnx:vgg19", "snowflake"),
    *product(("alexnet", "resnet50", "mobilenetv2"), ("snowflake", "two-buffer")),
    ("vgg16", "snowflake"),
}
"""Not run in numbers layer by layer: other networks have the same kinds of layers, or all layers are run together."""

SYSTEMS: tuple[tuple[System, float], ...] = (("float32", 1e-4), ("fixed", 0.0))
"""Number systems, and the error that each may have."""

NAMES = (*NETWORKS, *(f"onnx:{name}" for name in SHAPE_ONLY))
OTHERS = (
    *product(("conv13x13", "linear"), TARGETS),
    ("squeezenet", "two-buffer"),
    *(
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in (
            *product(("alexnet",), TARGETS),
            ("squeezenet", "snowflake"),
            ("mobilenetv2", "two-buffer"),
            ("onnx:shufflenet", "two-buffer"),
        )
    ),
)
"""Compiled for latency and balanced too: all kinds of layers, groups and depthwise ones among them. The front of a
large network takes minutes."""

ALL = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NAMES]


def build(name: str) -> onnx.ModelProto:
    return shape_only(name.removeprefix("onnx:")) if name.startswith("onnx:") else NETWORKS[name]()


def check_counts(compiled: Compilation) -> None:
    """Holds what the walk counted against what was predicted, for every layer, tensor and direction."""
    for layer in compiled.plan.on_array:
        for counted, predicted in (
            (compiled.counted.payload, layer.figures.traffic),
            (compiled.counted.bus, layer.figures.bus),
        ):
            found = {(role, way): n for (name, role, way), n in counted.items() if name == layer.name and n}
            reads = {(role, "read"): read for role, (read, _) in predicted.items() if read}
            writes = {(role, "write"): written for role, (_, written) in predicted.items() if written}
            assert found == reads | writes, layer.name
    assert sum(compiled.counted.payload.values()) == compiled.plan.totals.dram_bytes


def check_numbers(compiled: Compilation) -> None:
    """Runs a network on a random image: float32 within 1e-4 of onnxruntime, fixed point bit-equal, in every layer."""
    random = np.random.default_rng(0)
    inputs = {v: random.standard_normal(compiled.graph.value(v).shape, np.float32) for v in compiled.graph.inputs}
    # A copy has no value of the model to be compared with; the layer that reads it has.
    layers = {layer.name for layer in compiled.plan.on_array if ":copy" not in layer.name}
    compiled = replace(compiled, program=checked(compiled.program))
    for system, most in SYSTEMS:
        found = dnnc.verify(compiled, inputs, system)
        assert {layer.name for layer in found.layers} >= layers
        assert not [layer for layer in found.layers if not layer.error <= most]
        assert (found.agree, found.first_divergence) == (True, None)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ALL)
def test_fewest_bytes(name: str, target: str, results: Path) -> None:
    compiled = dnnc.compile(build(name), target, plan="layerwise", cache=results)
    assert compiled.plan.status == "optimal"
    check_counts(compiled)
    if (name, target) not in COUNTED_ONLY:
        check_numbers(compiled)


# -- all layers together ----------------------------------------------------------------------------------------------


PLANNED = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TOGETHER]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PLANNED)
def test_all_layers_together(name: str, target: str, results: Path) -> None:
    compiled = dnnc.compile(build(name), target, cache=results)
    moved = GOLDEN[name][TARGETS.index(target)], *TOGETHER[name][TARGETS.index(target)]
    assert compiled.plan.network is not None
    assert compiled.plan.network.best == {scope: Best(n, n) for scope, n in zip(SCOPES, moved, strict=True)}
    check_counts(compiled)
    if (name, target) != ("vgg16", "two-buffer"):
        check_numbers(compiled)


@pytest.mark.slow
@pytest.mark.parametrize("memories", [size for size in MEMORIES if size != (512, 256, 32)])
def test_what_memory_buys(memories: tuple[int, int, int], results: Path) -> None:
    """With the memory that two-buffer has, it is one of the networks above."""
    maps, weights, bits = memories
    target = load("two-buffer").with_memory("maps", maps << 10).with_memory("weights", weights << 10)
    planned = dnnc.plan_network(build("resnet50"), replace(target, accumulator_bits=bits), cache=results)
    assert planned.plan.network is not None
    proven = {scope: Best(n, n) for scope, n in zip(SCOPES, MEMORIES[memories], strict=True)}
    assert planned.plan.network.best == proven
    assert planned.plan.totals.dram_bytes == proven["fused"].bytes


# -- other objectives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "target"), OTHERS)
def test_other_objectives(name: str, target: str, results: Path) -> None:
    model = build(name)
    traffic = dnnc.compile(model, target, plan="layerwise", cache=results)
    latency = dnnc.compile(model, target, plan="layerwise", objective="latency", cache=results)
    balanced = dnnc.compile(model, target, plan="layerwise", objective=Objective("balanced", 10), cache=results)
    check_counts(latency)
    check_counts(balanced)
    fewest = {layer.name: layer.proof.value for layer in latency.plan.on_array}
    for other, most in ((latency, NEAR), (balanced, 1.1), (traffic, float("inf"))):
        for layer in other.plan.on_array:
            # Other fusions may have been undone.
            least = fewest.get(layer.name, 0)
            assert least <= layer.figures.cycles <= max(most * least, least) or not least
    assert latency.plan.totals.dram_bytes >= balanced.plan.totals.dram_bytes >= traffic.plan.totals.dram_bytes
    assert latency.timing.cycles <= traffic.timing.cycles * 1.01


# -- random constraints -----------------------------------------------------------------------------------------------

Setting = Callable[[Random, Machine], str]


def pin(random: Random, _: Machine) -> str:
    operand = random.choice([*PINS])
    loop, dim = (random.choice(letters) for letters in PINS[operand])
    return f'pin = {{ operand = "{operand}", loop = "{loop}", dim = "{dim}" }}'


def some(key: str, **most: int) -> Setting:
    """A table of one or two of these names, each with a number up to its most."""

    def setting(random: Random, _: Machine) -> str:
        names = random.sample([*most], min(len(most), random.randint(1, 2)))
        return f"{key} = {{ {', '.join(f'{name} = {random.randint(1, most[name])}' for name in names)} }}"

    return setting


TILES, SIZES = some("tiles", y=4, x=3, k=4, c=3, g=3), some("sizes", y=20, x=40, k=96, c=96, g=24)

SETTINGS: tuple[Setting, ...] = (
    lambda random, machine: f'mode = "{random.choice(machine.modes).name}"',
    lambda random, _: f'dataflow = "{random.choice(DATAFLOWS)}"',
    lambda random, _: f"order = {json.dumps(random.sample(DIMS, len(DIMS)))}",
    lambda random, _: f'cuts = "{random.choice(("footprint", "uniform"))}"',
    lambda random, _: f'halo.tiles = "{random.choice(("keep", "reload"))}"',
    lambda random, machine: (
        f'halo.units = "{random.choice(("move", "reload") if machine.units_can_send else ("reload",))}"'
    ),
    lambda random, machine: random.choice((TILES, SIZES))(random, machine),
    some("buffers", input=2, weights=2, output=2),
    pin,
)
"""Each writes one setting of a layer."""


def rules_for(layer: Layer, machine: Machine, random: Random) -> str:
    """A table of one to four settings that leave the layer a schedule; "" where none was found."""
    for _ in range(8):
        settings = [setting(random, machine) for setting in random.sample(SETTINGS, random.randint(1, 4))]
        table = "\n".join(["[[layer]]", f"match = {json.dumps(layer.name)}", *settings, ""])
        limits = loads(table, "random").for_layer(layer.name, machine, layer.shape)
        if quickest_legal(Space(layer.shape, machine, limits)):
            return table
    return ""


def random_constraints(layers: list[Layer], fuse: str, machine: Machine, seed: int) -> Constraints:
    random = Random(seed)
    return loads(fuse + "".join(rules_for(layer, machine, random) for layer in layers), "random")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ALL)
def test_random_constraints(name: str, target: str) -> None:
    graph, machine, seed = simplify(onnx_import.load(build(name))), load(target), NAMES.index(name)
    kinds = ("activation", "residual", "max_pool", "average_pool")
    fuse = f"[all]\nfuse = {{ {Random(seed).choice(kinds)} = false }}\n"
    lowered = lower_with(graph, machine, loads(fuse, "random"), frozenset())
    layers = [layer for layer in lowered.layers if isinstance(layer, Layer)]
    rules = random_constraints(layers, fuse, machine, seed)
    assert len(rules.rules) > len(layers) // 2
    # What was interrupted takes the first legal schedule, whatever it moves.
    plan = Planner(machine, Objective(), rules, interrupted=True).plan(lowered)
    counted = agree(plan, emit(lowered, dict(plan.schedules), machine))
    assert sum(counted.payload.values()) == plan.totals.dram_bytes


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(2))
def test_numbers_under_random_constraints(target: str, seed: int) -> None:
    model, machine = build("squeezenet"), load(target)
    layers = lower_with(simplify(onnx_import.load(model)), machine, None, frozenset()).layers
    rules = random_constraints([layer for layer in layers if isinstance(layer, Layer)], "", machine, seed)
    compiled = dnnc.compile(model, machine, constraints=rules, time_limit=0.1)
    check_counts(compiled)
    check_numbers(compiled)
