"""A program that is going to be long is told of before it is made, and only then."""

from __future__ import annotations

import re

import pytest

import dnnc
from dnnc import length
from dnnc.length import tiles
from dnnc_runtime.program import Compute
from model_builder import ModelBuilder


def test_tiles_are_counted_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every tile of a program is one instruction, and the warning says how many there are."""
    net = ModelBuilder("small", 0)
    model = net.model(net.conv(net.conv(net.input(2, 16, 12, 12), "one", 16, 3, pad=1), "two", 8, 1))
    machine = dnnc.load_machine("two-buffer").with_memory("maps", 1024).with_memory("weights", 256)
    compilation = dnnc.compile(model, machine, plan="layerwise")
    assert caplog.messages == []
    counted = {s.name: sum(isinstance(i, Compute) for i in s.instructions) for s in compilation.program.sections}
    assert tiles(compilation.plan) == counted
    total = sum(counted.values())
    monkeypatch.setattr(length, "LONG", total)
    assert dnnc.compile(model, machine, plan="layerwise").plan == compilation.plan
    (warning,) = caplog.messages
    assert re.search(rf"the program has {total:,} tiles, {counted['one']:,} of them in layer 'one'", warning)
    assert "--no-emit (in Python, dnnc.plan_network) plans and proves without" in warning
    planned = dnnc.plan_network(model, machine, plan="layerwise")
    assert (planned.plan, len(caplog.messages)) == (compilation.plan, 1)
    monkeypatch.setattr(length, "LONG", total + 1)
    dnnc.compile(model, machine, plan="layerwise")
    assert len(caplog.messages) == 1


def test_tiles_of_strips_are_counted_section_by_section() -> None:
    net = ModelBuilder("strips", 0)
    x = net.max_pool(net.relu(net.conv(net.input(1, 16, 32, 32), "first", 32, 3, pad=1), "relu"), "pool", 2, stride=2)
    model = net.model(net.conv(x, "last", 48, 3, pad=1))
    machine = dnnc.load_machine("snowflake").with_memory("maps", 16384).with_memory("weights", 4096)
    compilation = dnnc.compile(model, machine)
    plan = compilation.plan
    counted = dict.fromkeys((layer.name for layer in plan.on_array), 0)
    for section in compilation.program.sections:
        counted[plan.layer_of(section.name)] += sum(isinstance(i, Compute) for i in section.instructions)
    assert any(layer.strips for layer in plan.on_array)
    assert tiles(plan, compilation.realized) == counted
    # Before there is more to know, a strip counts as one.
    assert all(count <= counted[name] for name, count in tiles(plan).items())
