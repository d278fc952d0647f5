"""Constraints: what a user allows of the schedules, for all layers or by layer name, read from a TOML file.

    [all]                             # every layer
    cuts = "footprint"                # "footprint" | "uniform": how rows and columns are cut
    halo = { tiles = "keep" }         # tiles = "keep" | "reload", units = "move" | "reload"

    [[layer]]                         # layers by name; later tables override earlier ones, setting by setting
    match = "conv[2-5]"               # a name or a pattern (* ? [..]), or a list of them
    mode = "cooperative"              # a mode of the machine, or a list of them
    dataflow = "weight-stationary"    # what the loop order must earn
    order = ["y", "k"]                # loops, outermost first; loops left out may not be active
    tiles = { y = 3 }                 # numbers of tiles, by loop
    sizes = { k = 64 }                # tile sizes, by loop; y and x in output rows and columns (uniform cuts)
    buffers = { input = 1 }           # 1 | 2 tiles held of input, weights, output
    pin = { operand = "weights", loop = "y", dim = "k", tiles = 2 } # false: pin nothing; no tiles: as many as fit
    fuse = { max_pool = false }       # activation, residual, max_pool, average_pool

Layers are named after their main ONNX node. What speaks of weights or of pinning says nothing of layers without
weights, and a size beyond an axis means the whole axis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from dnnc.axis import Style
from dnnc.layer import Shape
from dnnc.schedule import DIMS, Dim, Pin
from dnnc.search import DATAFLOWS
from dnnc.space import Limits
from dnnc_runtime.errors import UsageFault
from dnnc_runtime.machine import Machine
from dnnc_runtime.toml_table import Table, nearest

FUSIONS = ("activation", "residual", "max_pool", "average_pool")
"""Fusions that can be refused; biases and scales are part of the layers that have them."""

PINS: Mapping[str, tuple[str, str]] = {"input": ("k", "yxcg"), "weights": ("yx", "kcg")}
"""For each operand that can be pinned: the loops that read it again, and the dimensions along which it is."""

HALO: Mapping[str, Mapping[str, bool]] = {
    "tiles": {"keep": True, "reload": False},
    "units": {"move": True, "reload": False},
}
"""What can be asked of rows that two tiles, or two units, need."""

_CUT_TWICE = {
    **{f"tiles.{d}": f"sizes.{d}" for d in DIMS},
    **{f"sizes.{d}": f"tiles.{d}" for d in DIMS},
}
"""A number of tiles and a tile size of one loop replace each other."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One table of the file: settings ("tiles.y": 3, ...) as written, for layers that match a pattern, or for all."""

    patterns: tuple[str, ...] | None
    settings: Mapping[str, Any]
    table: Table = field(compare=False, repr=False)

    def applies(self, layer: str) -> bool:
        """Whether a layer is meant."""
        return self.patterns is None or any(_matches(pattern, layer) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a user allows. ``text`` is the file's; ``source`` names it in faults."""

    text: str
    source: str = field(compare=False)
    rules: tuple[Rule, ...] = field(compare=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def for_layer(self, name: str, machine: Machine, shape: Shape) -> Limits:
        """The limits of a layer's schedules on a machine."""
        asked = self._settings(name)
        array, modes = shape.kind == "array", asked.get("mode")
        weights = asked.get("buffers.weights") if array else None
        return Limits(
            modes=None if modes is None else tuple(m.name for m in machine.modes if m.name in modes),
            style=asked.get("cuts"),
            dataflow=asked.get("dataflow"),
            order=asked.get("order"),
            counts=tuple((d, asked[f"tiles.{d}"]) for d in DIMS if f"tiles.{d}" in asked),
            sizes=tuple((d, min(asked[f"sizes.{d}"], n)) for d, n in _extents(shape) if f"sizes.{d}" in asked),
            keep=HALO["tiles"].get(asked.get("halo.tiles", "")),
            move=HALO["units"].get(asked.get("halo.units", "")),
            buffers=(asked.get("buffers.input"), weights, asked.get("buffers.output")),
            pin=_asked_pin(asked.get("pin")) if array else None,
        )

    def allows_fusion(self, layer_name: str, kind: str) -> bool:
        """Whether a kind of store-side operation may be fused into a layer."""
        return bool(self._settings(layer_name).get(f"fuse.{kind}", True))

    def check(self, layer_names: Iterable[str], machine: Machine) -> None:
        """Hold the constraints against a model's layers and a machine.

        Raises:
            UsageFault: a pattern names no layer, or the machine lacks a mode or cannot move rows between units.
        """
        names, modes = list(layer_names), [mode.name for mode in machine.modes]
        for rule in self.rules:
            for pattern in rule.patterns or ():
                if not any(_matches(pattern, name) for name in names):
                    near = ", ".join(map(repr, get_close_matches(pattern, names, n=3, cutoff=0.0))) or "none"
                    raise rule.table.fault(f"{pattern!r} names no layer; nearest layer names: {near}", "match")
            for mode in rule.settings.get("mode", ()):
                if mode not in modes:
                    sentence = f"machine {machine.name!r} has no mode {mode!r}; {nearest(mode, modes)}"
                    raise rule.table.fault(sentence, "mode")
            if rule.settings.get("halo.units") == "move" and not machine.units_can_send:
                sentence = f"found 'move', but the units of machine {machine.name!r} cannot send; allowed: reload"
                raise rule.table.fault(sentence, "halo", "units")

    def describe(self, layer_name: str) -> str:
        """The settings that apply to a layer and the file they are from; "" where none does."""
        settings = [f"{key} = {json.dumps(value)}" for key, value in self._settings(layer_name).items()]
        return f"{', '.join(settings)} (constraints of {self.source})" if settings else ""

    def _settings(self, layer: str) -> Mapping[str, Any]:
        """What applies to a layer, the later rule's word where two speak of the same."""
        merged: dict[str, Any] = {}
        for rule in self.rules:
            if rule.applies(layer):
                for key, value in rule.settings.items():
                    merged.pop(_CUT_TWICE.get(key, key), None)
                    merged[key] = value
        return merged


def load(path: str | Path) -> Constraints:
    """The constraints in a TOML file. Raises UsageFault for a file that cannot be read, and for what is wrong in it."""
    try:
        return loads(Path(path).read_text("utf-8"), str(path))
    except OSError as error:
        raise UsageFault(f"{path}: cannot read the constraints file: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageFault(f"{path}: not TOML: the constraints file is not UTF-8 text") from None


def loads(text: str, source: str) -> Constraints:
    """The constraints that a TOML text describes; ``source`` names the text in faults. Raises UsageFault."""
    file = Table.parse(text, source).expect((), ("all", "layer"))
    rules = [_rule(file.table("all"), ())] if "all" in file.content else []
    rules += [_rule(table, ("match",)) for table in file.tables("layer")] if "layer" in file.content else []
    return Constraints(text, source, tuple(rules))


def _rule(table: Table, required: tuple[str, ...]) -> Rule:
    table.expect(required, tuple(_READERS))
    settings = {key: value for name in table.content if name in _READERS for key, value in _READERS[name](table, name)}
    for loop in DIMS:
        if f"tiles.{loop}" in settings and f"sizes.{loop}" in settings:
            raise table.fault(f"{loop} has a number of tiles and a tile size; give one of them", "sizes", loop)
    return Rule(_some(table, "match") if required else None, settings, table)


def _matches(pattern: str, layer: str) -> bool:
    # A name may hold brackets, which patterns give a meaning.
    return pattern == layer or fnmatchcase(layer, pattern)


def _asked_pin(asked: Any) -> Literal[False] | Pin | None:
    if not asked:
        return False if asked is False else None
    return Pin(asked["operand"], asked["loop"], asked["dim"], asked.get("tiles", 0))


def _extents(shape: Shape) -> tuple[tuple[Dim, int], ...]:
    return ("y", shape.y.out), ("x", shape.x.out), ("k", shape.k), ("c", shape.c), ("g", shape.g)


# -- readers of values: each yields settings, or raises a fault that names file, key, what was found and what is allowed

Settings = Iterator[tuple[str, Any]]


def _one_of(allowed: Iterable[str]) -> Callable[[Table, str], Settings]:
    def read(table: Table, key: str) -> Settings:
        yield key, _known(table, key, table.string(key), tuple(allowed))

    return read


def _mode(table: Table, key: str) -> Settings:
    yield key, _some(table, key)


def _order(table: Table, key: str) -> Settings:
    loops = table.strings(key)
    for loop in loops:
        _known(table, key, loop, DIMS)
    if len(set(loops)) < len(loops):
        raise table.fault(f"found {list(loops)}, expected every loop at most once, outermost first", key)
    yield key, loops


def _counts(names: Iterable[str], most: int | None = None) -> Callable[[Table, str], Settings]:
    """Reads a table of integers that are at least 1."""

    def read(table: Table, key: str) -> Settings:
        inner = table.table(key).expect((), tuple(names))
        for name in inner.content:
            yield f"{key}.{name}", _count(inner, name, most)

    return read


def _halo(table: Table, key: str) -> Settings:
    inner = table.table(key).expect((), tuple(HALO))
    for name in inner.content:
        yield f"{key}.{name}", _known(inner, name, inner.string(name), tuple(HALO[name]))


def _pin(table: Table, key: str) -> Settings:
    found = table.content[key]
    if found is False:
        yield key, False
        return
    if not isinstance(found, dict):
        raise table.fault(f"found {found!r}, expected false or a table {{ operand, loop, dim, tiles }}", key)
    inner = table.table(key).expect(("operand", "loop", "dim"), ("tiles",))
    operand = _known(inner, "operand", inner.string("operand"), tuple(PINS))
    loops, dims = PINS[operand]
    pin: dict[str, Any] = {
        "operand": operand,
        "loop": _known(inner, "loop", inner.string("loop"), tuple(loops)),
        "dim": _known(inner, "dim", inner.string("dim"), tuple(dims)),
    }
    if "tiles" in inner.content:
        pin["tiles"] = _count(inner, "tiles", None)
    yield key, pin


def _fuse(table: Table, key: str) -> Settings:
    inner = table.table(key).expect((), FUSIONS)
    for name in inner.content:
        yield f"{key}.{name}", inner.flag(name)


def _known(table: Table, key: str, word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise table.fault(f"found {word!r}; {nearest(word, allowed)}", key)
    return word


def _count(table: Table, key: str, most: int | None) -> int:
    count = table.integer(key)
    if count < 1 or (most is not None and count > most):
        raise table.fault(f"found {count}, expected {'at least 1' if most is None else f'1 to {most}'}", key)
    return count


def _some(table: Table, key: str) -> tuple[str, ...]:
    """A string, or an array of at least one."""
    found = table.content[key]
    if not isinstance(found, str | list) or not found:
        raise table.fault(f"found {found!r}, expected a string or an array of strings", key)
    return (found,) if isinstance(found, str) else table.strings(key)


_READERS: Mapping[str, Callable[[Table, str], Settings]] = {
    "mode": _mode,
    "dataflow": _one_of(DATAFLOWS),
    "order": _order,
    "cuts": _one_of(get_args(Style)),
    "tiles": _counts(DIMS),
    "sizes": _counts(DIMS),
    "halo": _halo,
    "buffers": _counts(("input", "weights", "output"), 2),
    "pin": _pin,
    "fuse": _fuse,
}
"""For each key of a table, what reads its settings."""
