"""Bytes against cycles: for every distinct layer, the schedules that nothing else beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dnnc.plan import LayerPlan, Plan
from dnnc.space import Limits, Space

Pair = tuple[int, int]
"""(DRAM payload bytes, cycles of the closed form)."""


@dataclass(frozen=True, slots=True)
class LayerFront:
    """The front of equal layers.

    Attributes:
        layers: their names.
        chosen: bytes and cycles of the schedule that the plan has.
        points: of the front, fewest bytes first.
    """

    layers: tuple[str, ...]
    chosen: Pair
    points: tuple[Pair, ...]

    @property
    def trades(self) -> bool:
        """Whether more bytes would buy fewer cycles."""
        return len(self.points) > 1


def layer_fronts(
    plan: Plan, limits: Callable[[LayerPlan], Limits], progress: Callable[[int, int, str], None]
) -> tuple[LayerFront, ...]:
    """The fronts of a plan's distinct layers, in execution order.

    Args:
        limits: what the constraints leave of a layer's space.
        progress: told every layer before it is searched.
    """
    from dnnc.enumerate import Stopped
    from dnnc.front import front

    alike: dict[Space, list[LayerPlan]] = {}
    for layer in plan.on_array:
        alike.setdefault(Space(layer.layer.shape, plan.machine, limits(layer)), []).append(layer)
    out: list[LayerFront] = []
    for done, (space, layers) in enumerate(alike.items()):
        progress(done, len(alike), layers[0].name)
        try:
            found = front(space)
        except Stopped:
            raise KeyboardInterrupt from None
        assert found is not None, "a layer with a schedule has one in its space"
        out.append(_layer_front(layers, [(point.bytes, point.cycles) for point in found.points]))
    return tuple(out)


def _layer_front(layers: Sequence[LayerPlan], points: Sequence[Pair]) -> LayerFront:
    figures = layers[0].figures
    return LayerFront(tuple(layer.name for layer in layers), (figures.dram_bytes, figures.cycles), tuple(points))
