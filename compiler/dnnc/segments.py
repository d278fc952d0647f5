"""How a network's layers run together: segments in execution order, and what is known of the best of such plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dnnc.schedule import Schedule

Scope = Literal["layerwise", "resident", "fused"]
"""What a plan may do: nothing beyond single layers; tensors that stay on chip; groups that run by strips, too."""

SCOPES: tuple[Scope, ...] = ("layerwise", "resident", "fused")


class Alone(NamedTuple):
    """A segment of one layer under its own loop nest (or of one node of the host).

    Attributes:
        schedule: of a layer with operands on chip; None for the layer's own, from DRAM to DRAM.
        entering: with such a schedule, (map, lines of every unit's block on chip when it starts) of maps that it reads
            there, or that stay.
        leaving: likewise when it ends.
    """

    position: int
    schedule: Schedule | None = None
    entering: tuple[tuple[int, int], ...] = ()
    leaving: tuple[tuple[int, int], ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """The same as of Strips."""
        return (self.position,)


class Strips(NamedTuple):
    """A segment of layers that run strip by strip.

    Attributes:
        positions: of its layers.
        bounds: rows of the last step's output computed by the end of every strip.
        entering: (map, lines of every unit's block on chip when it starts) of maps that it reads or that stay.
        leaving: likewise when it ends.
        columns: of the last step's output computed by the end of every block of columns; none if there is one block.
            With more than one no map that its layers read or compute enters or leaves.
        spilled: maps that they compute of which no line waits for the next strip, but is written and loaded again.
        handed: maps that go tile by tile from the layer that computes them to the one that adds them.
    """

    positions: tuple[int, ...]
    bounds: tuple[int, ...]
    entering: tuple[tuple[int, int], ...]
    leaving: tuple[tuple[int, int], ...]
    columns: tuple[int, ...] = ()
    spilled: tuple[int, ...] = ()
    handed: tuple[int, ...] = ()


Segment = Alone | Strips


def staying(segments: Sequence[Segment]) -> list[Mapping[int, int]]:
    """For every segment, and for the end, the lines of every unit's block, by map, that are on chip when it starts.

    It is what the next segment says that has rows on chip: a layer from DRAM to DRAM leaves alone what is there.
    """
    out: list[Mapping[int, int]] = [{}]
    for segment in reversed(segments):
        plain = isinstance(segment, Alone) and segment.schedule is None
        out.append(out[-1] if plain else dict(segment.entering))
    return out[::-1]


class Best(NamedTuple):
    """DRAM bytes of the best plan of a scope that was found, and bytes that none of its space goes below."""

    bytes: int
    bound: int


@dataclass(frozen=True, slots=True)
class Network:
    """A plan for all layers together.

    Attributes:
        scope: what it may do.
        segments: in execution order.
        best: of every scope up to this one.
    """

    scope: Scope
    segments: tuple[Segment, ...]
    best: Mapping[Scope, Best] = field(default_factory=dict[Scope, Best])

    @property
    def bytes(self) -> int:
        """DRAM bytes of the plan."""
        return self.best[self.scope].bytes

    @property
    def bound(self) -> int:
        """Bytes that no plan of its space goes below."""
        return self.best[self.scope].bound
