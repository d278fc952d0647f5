"""The text form of a program: a line for each instruction, and one for each unit's part of it.

    run       start+count or start+count/step        0+3/2 is 0, 2, 4
    region    the axes' runs, parted by colons       0+1:0+6,9+1:0+13:0+1:0+192   (an axis without any: -)
    piece     units@base^pitch=region                0,1,2,3@128^6144,416,32,32,1=0+1:0+6:0+13:0+1:0+32
    view      tensor @offset shape strides           conv1.out @0 1,6,13,1,32 2496,416,32,32,1
    window    size>out:kernel/stride*dilation+pad+pad_after
    kept      memory unit, then words first..end         maps 2 0..512 1024..1536

A name stands bare where it can, else as a JSON string. The machine is there as the TOML that describes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from dnnc_runtime.program import (
    Compute,
    Host,
    Instruction,
    Kernel,
    Load,
    Move,
    Part,
    PoolTile,
    Program,
    Release,
    Store,
    Window,
)
from dnnc_runtime.tensor import Piece, Region, View

HEAD = "dnnc program 1"
"""The first line; the number changes with the meaning."""
_BARE = re.compile(r"[A-Za-z_][\w./:-]*", re.ASCII)


def write(program: Program) -> str:
    """The text form of a program, its machine included."""
    lines = [HEAD, "machine", *(f"  | {line}" for line in program.machine.text.splitlines())]
    lines += [f"tensor {_name(t.name)} {t.words}{' constant' if t.constant else ''}" for t in program.tensors]
    lines += [f"value {_name(v.name)} {_integers(v.shape)} {_view(v.view)}" for v in program.values]
    lines += [f"input {_name(name)}" for name in program.inputs]
    lines += [f"output {_name(name)}" for name in program.outputs]
    for section in program.sections:
        lines.append(f"section {_name(section.name)}")
        if section.kernel is not None:
            lines.append(f"  kernel {_kernel(section.kernel)}")
        if section.mode:
            lines.append(f"  mode {_name(section.mode)}")
        lines += [f"  view {role} {_view(view)}" for role, view in section.views]
        for instruction in section.instructions:
            lines += [f"  {line}" for line in _WRITE[type(instruction)](instruction)]
        for kept in section.kept:
            ranges = " ".join(f"{first}..{end}" for first, end in kept.ranges)
            lines.append(f"  kept {_name(kept.memory)} {kept.unit} {ranges}")
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) and name != "because" else json.dumps(name)


def _integers(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "-"


def _region(region: Region) -> str:
    return ":".join(",".join(map(str, axis)) or "-" for axis in region) or "."


def _pieces(pieces: Iterable[Piece]) -> str:
    return " ".join(f"{_integers(p.instances)}@{p.base}^{_integers(p.pitch)}={_region(p.region)}" for p in pieces)


def _view(view: View) -> str:
    return f"{_name(view.tensor)} @{view.offset} {_integers(view.shape)} {_integers(view.strides)}"


def _window(w: Window) -> str:
    return f"{w.size}>{w.out}:{w.kernel}/{w.stride}*{w.dilation}{w.pad:+}{w.pad_after:+}"


def _kernel(kernel: Kernel) -> str:
    words = [kernel.operation, "y", _window(kernel.y), "x", _window(kernel.x)]
    if kernel.activation is not None:
        words += ["activation", _name(kernel.activation.name), *map(repr, kernel.activation.parameters)]
    if (pool := kernel.pool) is not None:
        words += ["pool", pool.kind, _window(pool.y), _window(pool.x), *["count_include_pad"] * pool.count_include_pad]
    if kernel.fill:
        words += ["fill", repr(kernel.fill)]
    return " ".join(words)


def _load(load: Load) -> list[str]:
    packed = " packed" if load.packed else ""
    regions = " ".join(map(_region, load.transfers))
    return [f"load {load.role} {_name(load.memory)} {load.width}{packed} {regions} -> {_pieces(load.pieces)}"]


def _store(store: Store) -> list[str]:
    regions = " ".join(map(_region, store.transfers))
    return [f"store {store.role} {_name(store.memory)} {store.width} {_pieces(store.pieces)} -> {regions}"]


def _move(move: Move) -> list[str]:
    ends = f"{_pieces(move.source)} -> {_pieces(move.target)}"
    return [f"move {move.role} {_name(move.memory)} {move.width} {ends}"]


def _release(release: Release) -> list[str]:
    return [f"release {_name(release.memory)} {release.width} {_pieces(release.pieces)}"]


def _compute(compute: Compute) -> list[str]:
    flags = " first" * compute.first + " last" * compute.last
    start, stop = compute.reduce
    return [f"compute {start}..{stop}{flags}", *(f"  part {_part(part)}" for part in compute.parts)]


def _pool(pool: PoolTile) -> list[str]:
    lines = ["pool"]
    for part, before, after in zip(pool.parts, pool.before, pool.after, strict=True):
        lines.append(f"  part {_part(part)} before {_pieces(before)} after {_pieces(after)}".rstrip())
    return lines


def _part(part: Part) -> str:
    return " ".join([_region(part.region), *(f"{role} {_pieces(pieces)}" for role, pieces in part.operands)])


def _host(host: Host) -> list[str]:
    inputs, outputs = (" ".join(map(_name, names)) for names in (host.inputs, host.outputs))
    return [f"host {_name(host.node)} {_name(host.operator)} {inputs} -> {outputs} because {json.dumps(host.reason)}"]


_WRITE: dict[type[Instruction], Callable[[Any], list[str]]] = {
    Load: _load,
    Store: _store,
    Move: _move,
    Release: _release,
    Compute: _compute,
    PoolTile: _pool,
    Host: _host,
}
