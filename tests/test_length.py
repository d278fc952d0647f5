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
    compilation = dnnc.compile(model, machine)
    assert caplog.messages == []
    counted = {s.name: sum(isinstance(i, Compute) for i in s.instructions) for s in compilation.program.sections}
    assert tiles(compilation.plan) == counted
    total = sum(counted.values())
    monkeypatch.setattr(length, "LONG", total)
    assert dnnc.compile(model, machine).plan == compilation.plan
    (warning,) = caplog.messages
    assert re.search(rf"the program has {total:,} tiles, {counted['one']:,} of them in layer 'one'", warning)
    monkeypatch.setattr(length, "LONG", total + 1)
    dnnc.compile(model, machine)
    assert len(caplog.messages) == 1
