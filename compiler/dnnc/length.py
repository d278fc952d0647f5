"""How long a program is going to be, told before it is made."""

from __future__ import annotations

import logging
from math import prod

from dnnc.plan import Plan

LONG = 100_000
"""Tiles from which on a user is warned. On a machine of 16 units a thousand tiles were 1.4 s and 13 MB (measured)."""

_log = logging.getLogger("dnnc")


def tiles(plan: Plan) -> dict[str, int]:
    """Tiles by layer: each is computed by one instruction, and loaded and stored by some more."""
    return {layer.name: prod(layer.schedule.trips(layer.layer.shape).values()) for layer in plan.on_array}


def warn_if_long(plan: Plan) -> None:
    """Warn of a program that takes minutes and gigabytes, and name the layer that has most of it."""
    counts = tiles(plan)
    total = sum(counts.values())
    if total < LONG:
        return
    most = max(counts, key=lambda name: counts[name])
    _log.warning(
        "the memories of %s are small for these layers: the program has %s tiles, %s of them in layer %r; "
        "to emit and to walk it takes minutes and gigabytes",
        plan.machine.name,
        f"{total:,}",
        f"{counts[most]:,}",
        most,
    )
