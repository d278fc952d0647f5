"""DRAM bytes of every network of models/ on both targets, proven the fewest: a change here is a change of the result.

Compulsory bytes are worked out by hand, from the networks' published tables, in by_hand.py; totals that exceed them
are held as found, in figures.py.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from by_hand import WORDS
from dnnc import onnx_import
from dnnc.cache import Cache
from dnnc.enumerate import best
from dnnc.graph import Graph
from dnnc.layer import Layer, Lowered, Shape
from dnnc.lower import lower
from dnnc.pipeline import lower_with
from dnnc.plan import Plan
from dnnc.planning import Planner, worth_splitting
from dnnc.search import Objective
from dnnc.simplify import simplify
from dnnc.space import Space
from dnnc.traffic import compulsory
from dnnc_runtime import machine
from figures import GOLDEN
from zoo import NETWORKS


@cache
def graph(name: str) -> Graph:
    return simplify(onnx_import.load(NETWORKS[name]()))


def planned(name: str, target: str, results: Path) -> Plan:
    """A network's plan with every fusion that the machine has, which is the best of them."""
    planner, nothing = Planner(machine.load(target), Objective(), None, Cache(results)), frozenset[tuple[str, str]]()
    plan = planner.plan(lower_with(graph(name), planner.machine, None, nothing))
    for pair in worth_splitting(plan):
        split = planner.plan(lower_with(graph(name), planner.machine, None, nothing | {pair}))
        assert split.totals.dram_bytes >= plan.totals.dram_bytes, pair
    return plan


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "vgg16")) for n in NETWORKS])
def test_totals(name: str, results: Path) -> None:
    plans = {target: planned(name, target, results) for target in ("snowflake", "two-buffer")}
    snowflake, two_buffer = (plan.totals for plan in plans.values())
    assert (snowflake.compulsory_bytes, two_buffer.compulsory_bytes) == tuple(2 * WORDS[name](p) for p in (True, False))
    found = snowflake.dram_bytes, two_buffer.dram_bytes, snowflake.host_bytes
    assert found == GOLDEN[name]
    assert {plan.status for plan in plans.values()} == {"optimal"}


def test_the_tables_cover_every_network() -> None:
    assert GOLDEN.keys() == WORDS.keys() == NETWORKS.keys()


# -- what multiplies, alone -------------------------------------------------------------------------------------------


def bare(lowered: Lowered) -> list[tuple[str, Shape]]:
    """The convolutions and linear layers, without biases, residual operands and pools."""
    layers = [layer for layer in lowered.layers if isinstance(layer, Layer) and layer.shape.kind == "array"]
    return [(layer.name, replace(layer.shape, parameters=0, residual=False)) for layer in layers]


def without_pools(_: str, kind: str) -> bool:
    return kind not in ("max_pool", "average_pool", "residual")


@cache
def fewest(shape: Shape) -> int:
    found = best(Space(shape, machine.load("snowflake")))
    assert found
    return found.bytes


@pytest.mark.parametrize(
    ("name", "layers", "expected", "least"),
    [
        # Compulsory: weights 58,621,952 + 2,468,544 = 61,090,496 words; convolutions' maps 150,528 + 193,600 +
        # 46,656 + 139,968 + 32,448 + 2 x 64,896 + 3 x 43,264, linear layers' 9,216 + 4 x 4,096 + 1,000: 849,384.
        ("alexnet", "", 123_879_760, 123_879_760),
        # Compulsory: 11,678,912 words of weights, 4,404,456 of maps.
        ("resnet18", "", 32_166_736, 32_166_736),
        ("resnet50", "", 92_797_264, 92_457_296),
        pytest.param("vgg16", "conv", 95_355_520, 74_679_680, marks=pytest.mark.slow),
    ],
)
def test_totals_of_what_multiplies_on_snowflake(name: str, layers: str, expected: int, least: int) -> None:
    target = machine.load("snowflake")
    shapes = [shape for layer, shape in bare(lower(graph(name), target, without_pools)) if layer.startswith(layers)]
    assert sum(compulsory(shape, target) for shape in shapes) == least
    assert sum(fewest(shape) for shape in shapes) <= expected
