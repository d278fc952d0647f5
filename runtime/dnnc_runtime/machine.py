"""The machine: an array of levels, memories attached to them, modes, DRAM; read from TOML and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine_rules import RULES, MachineFault, one_of, positive
from dnnc_runtime.toml_table import Table, nearest, toml

DIMENSIONS = ("k", "y", "c", "g")
"""Loop dimensions that a level may spread."""

ROLES = ("input", "second", "weights", "parameters", "residual", "output", "partial_sums")
"""What a memory can hold for a layer. ``second``: second operand of an elementwise layer;
``parameters``: bias, scale, slope. The second operand of a matrix product is its weights."""

FUSIBLE = ("bias", "scale", "activation", "residual", "max_pool", "average_pool")
"""Store-side operations that a machine may fuse."""

LAYOUTS = ("NHWC",)
"""Orders of a feature map's axes in DRAM that are modelled."""

_T = TypeVar("_T")

WORD_BITS = (8, 16)
"""Word widths that are modelled: products of such words are exact in every kernel of the runtime."""

ACCUMULATOR_BITS = (16, 32, 64)
"""Accumulator widths that are modelled."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the array: ``count`` units in each unit of the level outside it."""

    name: str
    count: int
    spreads: tuple[str, ...]

    def __post_init__(self) -> None:
        positive(self.count, "count")
        for dimension in self.spreads:
            one_of(dimension, DIMENSIONS, "spreads")


@dataclass(frozen=True, slots=True)
class Memory:
    """An on-chip memory: one instance of ``bytes`` bytes in every unit of ``level`` (an index into levels)."""

    name: str
    level: int
    bytes: int

    def __post_init__(self) -> None:
        positive(self.bytes, "bytes")


@dataclass(frozen=True, slots=True)
class Mode:
    """What each level spreads: one loop dimension per level, outermost level first."""

    name: str
    spread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dram:
    """Off-chip memory. ``layout`` is the order of a feature map's axes, innermost last ("NHWC")."""

    bytes_per_second: float
    burst_bytes: int
    longest_transfer_bytes: int
    layout: str

    def __post_init__(self) -> None:
        positive(self.bytes_per_second, "bytes_per_second")
        positive(self.burst_bytes, "burst_bytes")
        if self.longest_transfer_bytes < self.burst_bytes:
            sentence = f"found {self.longest_transfer_bytes}, expected at least one burst of {self.burst_bytes} bytes"
            raise MachineFault(sentence, "longest_transfer_bytes")
        one_of(self.layout, LAYOUTS, "layout")


@dataclass(frozen=True, slots=True)
class Machine:
    """A described accelerator, checked at construction; usually made with :func:`load`.

    ``text`` is TOML that :func:`loads` reads back to an equal machine; ``digest`` identifies what it can do.
    """

    name: str
    description: str
    clock_hz: float
    word_bits: int
    fraction_bits: int
    accumulator_bits: int
    channel_granularity: int
    levels: tuple[Level, ...]
    memories: tuple[Memory, ...]
    roles: tuple[tuple[str, str], ...]
    modes: tuple[Mode, ...]
    dram: Dram
    fuses: frozenset[str]
    units_can_send: bool
    pool_comparisons_per_cycle: int
    words_sent_per_cycle: int

    def __post_init__(self) -> None:
        positive(self.clock_hz, "clock", "hz")
        one_of(self.word_bits, WORD_BITS, "numbers", "word_bits")
        one_of(self.accumulator_bits, ACCUMULATOR_BITS, "numbers", "accumulator_bits")
        positive(self.channel_granularity, "array", "channel_granularity")
        positive(self.pool_comparisons_per_cycle, "array", "pool_comparisons_per_cycle")
        positive(self.words_sent_per_cycle, "array", "words_sent_per_cycle")
        for operation in sorted(self.fuses):
            one_of(operation, FUSIBLE, "array", "fuses")
        for rule in RULES:
            rule(self)

    @property
    def word_bytes(self) -> int:
        """Bytes of one machine word."""
        return self.word_bits // 8

    @property
    def accumulator_bytes(self) -> int:
        """Bytes of one accumulator."""
        return self.accumulator_bits // 8

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulate units: the product of the levels' counts."""
        return prod(level.count for level in self.levels)

    @property
    def text(self) -> str:
        """The machine as TOML."""
        return toml(_tables(self))

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that decides a schedule or a number: not of name, description and comments."""
        return hashlib.sha256(replace(self, name="", description="").text.encode()).hexdigest()

    def memory(self, name: str) -> Memory:
        """The memory of that name."""
        return next(m for m in self.memories if m.name == name)

    def memory_of(self, role: str) -> Memory:
        """The memory that holds a role."""
        return self.memory(dict(self.roles)[role])

    def instances(self, memory: Memory) -> int:
        """How many instances of a memory the machine has: the units of its level."""
        return prod(level.count for level in self.levels[: memory.level + 1])

    def with_memory(self, name: str, size: int) -> Machine:
        """The same machine with ``size`` bytes in each instance of a memory. Raises UsageFault if it has none such."""
        if name not in (known := [m.name for m in self.memories]):
            raise UsageFault(f"machine {self.name!r} has no memory {name!r}; {nearest(name, known)}")
        memories = tuple(replace(m, bytes=size) if m.name == name else m for m in self.memories)
        return replace(self, memories=memories)


def _tables(machine: Machine) -> dict[str, Any]:
    """The content of a machine's file."""
    names = [level.name for level in machine.levels]
    return {
        "name": machine.name,
        "description": machine.description,
        "clock": {"hz": machine.clock_hz},
        "numbers": {
            "word_bits": machine.word_bits,
            "fraction_bits": machine.fraction_bits,
            "accumulator_bits": machine.accumulator_bits,
        },
        "array": {
            "channel_granularity": machine.channel_granularity,
            "pool_comparisons_per_cycle": machine.pool_comparisons_per_cycle,
            "units_can_send": machine.units_can_send,
            "words_sent_per_cycle": machine.words_sent_per_cycle,
            "fuses": sorted(machine.fuses),
        },
        "levels": [asdict(level) for level in machine.levels],
        "memories": [{"name": m.name, "level": names[m.level], "bytes": m.bytes} for m in machine.memories],
        "roles": dict(machine.roles),
        "modes": [{"name": m.name, "spread": dict(zip(names, m.spread, strict=True))} for m in machine.modes],
        "dram": asdict(machine.dram),
    }


def shipped() -> tuple[str, ...]:
    """Names of the machines that come with the package, sorted."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _targets().iterdir() if f.name.endswith(".toml")))


def _targets() -> Traversable:
    return resources.files("dnnc_runtime") / "targets"


def load(name_or_path: str | Path) -> Machine:
    """The machine of a shipped name, else of a TOML file. Raises UsageFault for no such target and for a wrong file."""
    target = str(name_or_path)
    if target in (names := shipped()):
        return loads((_targets() / f"{target}.toml").read_text("utf-8"), f"{target}.toml")
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        raise UsageFault(f"no target {target!r}: {nearest(target, names)}, or the path of a .toml file")
    try:
        return loads(path.read_text("utf-8"), target)
    except OSError as error:
        raise UsageFault(f"{target}: cannot read the target file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageFault(f"{target}: not TOML: the file is not UTF-8 text") from None


def loads(text: str, source: str) -> Machine:
    """The machine that a TOML text describes; ``source`` names the text in faults. Raises UsageFault."""
    required = ("name", "clock", "numbers", "array", "levels", "memories", "roles", "modes", "dram")
    file = Table.parse(text, source).expect(required, ("description",))
    clock = file.table("clock").expect(("hz",))
    numbers = file.table("numbers").expect(("word_bits", "fraction_bits", "accumulator_bits"))
    array = file.table("array").expect(
        ("channel_granularity", "pool_comparisons_per_cycle", "units_can_send", "words_sent_per_cycle", "fuses")
    )
    levels = tuple(_level(table) for table in file.tables("levels"))
    names = [level.name for level in levels]
    roles = file.table("roles").expect(ROLES)
    return _located(
        file,
        lambda: Machine(
            name=file.string("name"),
            description=file.string("description") if "description" in file.content else "",
            clock_hz=clock.number("hz"),
            word_bits=numbers.integer("word_bits"),
            fraction_bits=numbers.integer("fraction_bits"),
            accumulator_bits=numbers.integer("accumulator_bits"),
            channel_granularity=array.integer("channel_granularity"),
            levels=levels,
            memories=tuple(_memory(table, names) for table in file.tables("memories")),
            roles=tuple((role, roles.string(role)) for role in ROLES),
            modes=tuple(_mode(table, names) for table in file.tables("modes")),
            dram=_dram(file.table("dram")),
            fuses=frozenset(array.strings("fuses")),
            units_can_send=array.flag("units_can_send"),
            pool_comparisons_per_cycle=array.integer("pool_comparisons_per_cycle"),
            words_sent_per_cycle=array.integer("words_sent_per_cycle"),
        ),
    )


def _level(table: Table) -> Level:
    table.expect(("name", "count", "spreads"))
    return _located(table, lambda: Level(table.string("name"), table.integer("count"), table.strings("spreads")))


def _memory(table: Table, levels: list[str]) -> Memory:
    table.expect(("name", "level", "bytes"))
    if (level := table.string("level")) not in levels:
        raise table.fault(f"no level {level!r}; {nearest(level, levels)}", "level")
    return _located(table, lambda: Memory(table.string("name"), levels.index(level), table.integer("bytes")))


def _mode(table: Table, levels: list[str]) -> Mode:
    spread = table.expect(("name", "spread")).table("spread").expect(levels)
    return Mode(table.string("name"), tuple(spread.string(level) for level in levels))


def _dram(table: Table) -> Dram:
    table.expect(("bytes_per_second", "burst_bytes", "longest_transfer_bytes", "layout"))
    whole = (table.integer("burst_bytes"), table.integer("longest_transfer_bytes"))
    return _located(table, lambda: Dram(table.number("bytes_per_second"), *whole, table.string("layout")))


def _located(table: Table, make: Callable[[], _T]) -> _T:
    """What ``make`` makes; a MachineFault becomes a fault with the table's file and line."""
    try:
        return make()
    except MachineFault as wrong:
        raise table.fault(wrong.sentence, *wrong.key) from None
