"""What makes a machine contradictory: one small rule each, whose docstring is the rule.

A rule raises MachineFault with the path of the key at fault, as it stands in a machine's TOML file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.toml_table import nearest, spelled

if TYPE_CHECKING:
    from dnnc_runtime.machine import Machine


class MachineFault(UsageFault):
    """What is wrong with a machine, before a file and a line are known: a sentence and the key's path."""

    def __init__(self, sentence: str, *key: str | int) -> None:
        super().__init__(f"{spelled(key)}: {sentence}")
        self.sentence = sentence
        self.key = key


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name."""
        ...


def positive(value: float, *key: str | int) -> None:
    """Sizes, counts and rates are finite and greater than zero."""
    if not 0 < value < float("inf"):
        raise MachineFault(f"found {value}, expected more than 0", *key)


def one_of(value: str | int, allowed: Collection[str | int], *key: str | int) -> None:
    """The value is one of those modelled."""
    if value not in allowed:
        raise MachineFault(f"found {value!r}; {nearest(str(value), [str(a) for a in allowed])}", *key)


def _names_differ(machine: Machine) -> None:
    """Levels, memories and modes have distinct names; there is at least one of each."""
    groups: dict[str, Sequence[Named]] = {
        "levels": machine.levels,
        "memories": machine.memories,
        "modes": machine.modes,
    }
    for group, items in groups.items():
        names = [item.name for item in items]
        if not names:
            raise MachineFault("found none, expected at least one", group)
        for i, name in enumerate(names):
            if name in names[:i]:
                raise MachineFault(f"found {name!r} twice, expected distinct names", group, i, "name")


def _widths_agree(machine: Machine) -> None:
    """A word has more bits than its fraction, an accumulator is a whole number of words."""
    word, fraction, accumulator = machine.word_bits, machine.fraction_bits, machine.accumulator_bits
    if not 0 <= fraction < word:
        sentence = f"found {fraction}, expected 0 to {word - 1}: fewer than the {word} bits of a word"
        raise MachineFault(sentence, "numbers", "fraction_bits")
    if accumulator < word:
        sentence = f"found {accumulator}, expected at least the {word} bits of a word"
        raise MachineFault(sentence, "numbers", "accumulator_bits")


def _memories_hold_words(machine: Machine) -> None:
    """A memory stands at a level of the array and holds a whole number of words."""
    for i, memory in enumerate(machine.memories):
        if not 0 <= memory.level < len(machine.levels):
            names = ", ".join(level.name for level in machine.levels)
            raise MachineFault(f"memory {memory.name!r} is at no level; allowed: {names}", "memories", i, "level")
        if memory.bytes % machine.word_bytes:
            sentence = f"found {memory.bytes}, expected a multiple of the {machine.word_bytes} bytes of a word"
            raise MachineFault(sentence, "memories", i, "bytes")


def _roles_have_memories(machine: Machine) -> None:
    """Every role names a memory; sums become results in place, so both lie in one memory."""
    known = [memory.name for memory in machine.memories]
    roles = dict(machine.roles)
    for role, memory in machine.roles:
        if memory not in known:
            raise MachineFault(f"no memory {memory!r}; {nearest(memory, known)}", "roles", role)
    if roles["partial_sums"] != roles["output"]:
        sentence = (
            f"found {roles['partial_sums']!r}, expected {roles['output']!r} as for output: "
            "a finished result overwrites its accumulators in place"
        )
        raise MachineFault(sentence, "roles", "partial_sums")


def _modes_spread_what_levels_may(machine: Machine) -> None:
    """A mode gives every level one dimension that this level may spread."""
    for i, mode in enumerate(machine.modes):
        if len(mode.spread) != len(machine.levels):
            sentence = f"found {len(mode.spread)} dimensions, expected one for each of {len(machine.levels)} levels"
            raise MachineFault(sentence, "modes", i, "spread")
        for level, dimension in zip(machine.levels, mode.spread, strict=True):
            if dimension not in level.spreads:
                allowed = ", ".join(level.spreads) or "none"
                sentence = f"level {level.name!r} may not spread {dimension!r}; allowed: {allowed}"
                raise MachineFault(sentence, "modes", i, "spread", level.name)


def _rows_spread_outermost(machine: Machine) -> None:
    """Only the outermost level may spread y: its units hold blocks of rows, and nothing cuts a block again."""
    for i, mode in enumerate(machine.modes):
        for level, dimension in list(zip(machine.levels, mode.spread, strict=True))[1:]:
            if dimension == "y":
                sentence = (
                    f"found 'y' at level {level.name!r}, allowed only at the outermost, {machine.levels[0].name!r}: "
                    "units hold blocks of rows, and a block is not cut again"
                )
                raise MachineFault(sentence, "modes", i, "spread", level.name)


def _sums_stay_inside_a_memory(machine: Machine) -> None:
    """A level of several units that spreads c has no memory at it or inside it."""
    innermost = max(memory.level for memory in machine.memories)
    for i, mode in enumerate(machine.modes):
        for at, (level, dimension) in enumerate(zip(machine.levels, mode.spread, strict=True)):
            if dimension == "c" and level.count > 1 and at <= innermost:
                name = next(m.name for m in machine.memories if m.level >= at)
                sentence = (
                    f"found 'c' at level {level.name!r}, which has the memory {name!r} at it or inside it: adding up "
                    "partial sums of different units is not modelled; allowed: c at levels inside every memory"
                )
                raise MachineFault(sentence, "modes", i, "spread", level.name)


RULES: tuple[Callable[[Machine], None], ...] = (
    _names_differ,
    _widths_agree,
    _memories_hold_words,
    _roles_have_memories,
    _modes_spread_what_levels_may,
    _rows_spread_outermost,
    _sums_stay_inside_a_memory,
)
"""Every rule, in the order in which a later one may rely on the earlier ones."""
