"""How long a program is going to be, told before it is made."""

from __future__ import annotations

import logging
from math import prod

from dnnc.plan import LayerPlan, Plan
from dnnc.realize import Realized

LONG = 100_000
"""Tiles from which on a user is warned. On a machine of 16 units a thousand tiles were 1.4 s and 13 MB (measured)."""

_log = logging.getLogger("dnnc")


def tiles(plan: Plan, made: Realized | None = None) -> dict[str, int]:
    """Tiles by layer: each is computed by one instruction, and loaded and stored by some more.

    Args:
        made: the plan made concrete; without it, a layer that runs by strips counts one tile for each.
    """
    counts = {layer.name: layer.strips or _by_itself(layer) for layer in plan.on_array}
    return {**counts, **_by_nests(made), **_by_strips(made)} if made else counts


def _by_itself(layer: LayerPlan) -> int:
    return prod(layer.schedule.trips(layer.layer.shape).values())


def _by_nests(made: Realized) -> dict[str, int]:
    """Tiles of the layers that run with operands on chip."""
    nests = made.lives.nests.values()
    return {nest.layer.name: prod(nest.schedule.trips(nest.layer.shape).values()) for nest in nests}


def _by_strips(made: Realized) -> dict[str, int]:
    """Tiles of all sections of the layers that run by strips, both halves where a pool is fused."""
    found: dict[str, int] = {}
    for scene in made.lives.scenes:
        for number in scene.steps:
            step, kernels = made.steps.steps[number], made.kernels[scene.segment][number]
            at_once = len(tuple(kernels.channels())) if step.layer.shape.kind == "array" else 1
            name = made.steps.steps[made.steps.at[step.position][0]].layer.name
            found[name] = found.get(name, 0) + len(kernels.tiles) * at_once
    return found


def warn_if_long(plan: Plan, made: Realized | None = None) -> None:
    """Warn of a program that takes minutes and gigabytes, and name the layer that has most of it."""
    counts = tiles(plan, made)
    total = sum(counts.values())
    if total < LONG:
        return
    most = max(counts, key=lambda name: counts[name])
    _log.warning(
        "the memories of %s are small for these layers: the program has %s tiles, %s of them in layer %r; "
        "to emit and to walk it takes minutes and gigabytes; "
        "--no-emit (in Python, dnnc.plan_network) plans and proves without",
        plan.machine.name,
        f"{total:,}",
        f"{counts[most]:,}",
        most,
    )
