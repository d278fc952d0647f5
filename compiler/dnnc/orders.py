"""In which orders layers may be executed: the moments that an execution can come to, and what may run next.

A *moment* is a set of layers that are done: with every layer, all that it needs. Layers come in *stages*: all of one
are needed by all of the next, directly or not. Only inside a stage there is anything to choose, such as which branch of
an inception module goes first. A stage with too many moments keeps the model's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from dnnc.axis import rows as layers_of

MANY = 128
"""Moments of a stage at most, for any order in it."""


@dataclass(frozen=True)
class Orders:
    """The orders in which layers may be executed.

    Attributes:
        needs: for every layer a mask of those that have to be done before: all earlier in the model.
    """

    needs: tuple[int, ...]

    @cached_property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """The (first, stop) layers of every stage."""
        count = len(self.needs)
        before: list[int] = []
        for needs in self.needs:
            # Whatever a layer needs, it needs what that needs.
            for layer in layers_of(needs):
                needs |= before[layer]
            before.append(needs)
        common, ends = (1 << count) - 1, [count]
        for layer in reversed(range(1, count)):
            common &= before[layer]
            if common & (first := prefix(layer)) == first:
                ends.append(layer)
        ends.reverse()
        return tuple(zip([0, *ends], ends, strict=False))

    @cached_property
    def moments(self) -> tuple[int, ...]:
        """The moments as masks of what is done: those of fewer layers first."""
        found = {prefix(layers) for layers in range(len(self.needs) + 1)}
        for inside in self._inside.values():
            found.update(inside)
        return tuple(sorted(found, key=lambda done: (done.bit_count(), done)))

    @cached_property
    def _inside(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """For every stage with a choice its moments, from its beginning to its end."""
        found = ((stage, self._of_stage(*stage)) for stage in self.stages)
        return {stage: moments for stage, moments in found if len(moments) > stage[1] - stage[0] + 1}

    def _of_stage(self, first: int, stop: int) -> tuple[int, ...]:
        """The moments of a stage; none if there are too many."""
        found = {prefix(first)}
        waiting = [*found]
        for done in waiting:
            for layer in range(first, stop):
                after = done | 1 << layer
                if after not in found and not self.needs[layer] & ~done:
                    found.add(after)
                    waiting.append(after)
            if len(found) > MANY:
                return ()
        return tuple(sorted(waiting, key=int.bit_count))

    @cached_property
    def _stage_of(self) -> dict[int, tuple[int, int]]:
        """For every moment that has one behind it in a stage with a choice, that stage."""
        return {done: stage for stage, inside in self._inside.items() for done in inside[:-1]}

    def next(self, moment: int) -> tuple[tuple[int, int], ...]:
        """(layer, moment behind it) of what may be executed at a moment; both moments by number."""
        return tuple((layers[0], after) for layers, after in self.groups(moment, 1))

    def groups(self, moment: int, longest: int) -> tuple[tuple[tuple[int, ...], int], ...]:
        """(layers, moment behind them) of what may be executed together from a moment on, the fewest layers first.

        They are consecutive in the model's order, or all in one stage.

        Args:
            moment: by number; ``longest``: so many layers at most.
        """
        key = moment, longest
        if key not in self._known:
            self._known[key] = tuple(self._groups(self.moments[moment], longest))
        return self._known[key]

    def _groups(self, done: int, longest: int) -> Iterator[tuple[tuple[int, ...], int]]:
        found: set[int] = set()
        count = done.bit_count()
        if done == prefix(count):
            last = min(len(self.needs), count + longest)
            found.update(prefix(layers) for layers in range(count + 1, last + 1))
        if done in self._stage_of:
            inside = self._inside[self._stage_of[done]]
            found.update(after for after in inside if not done & ~after and 0 < (after & ~done).bit_count() <= longest)
        for after in sorted(found, key=lambda after: (after.bit_count(), after)):
            yield tuple(layers_of(after & ~done)), self._number[after]

    @cached_property
    def _known(self) -> dict[tuple[int, int], tuple[tuple[tuple[int, ...], int], ...]]:
        return {}

    @cached_property
    def _number(self) -> dict[int, int]:
        return {done: number for number, done in enumerate(self.moments)}


def prefix(layers: int) -> int:
    """The mask of the first layers."""
    return (1 << layers) - 1


def mask_of(layers: Sequence[int]) -> int:
    """The mask of layers."""
    return sum(1 << layer for layer in layers)
