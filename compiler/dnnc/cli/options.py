"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What `dnnc compile -o` wrote.", show_default=False)]
Target = Annotated[str, typer.Option(metavar="NAME|FILE", help="The machine: see `dnnc targets`, or a TOML file.")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:1x3x224x224", help="Shape of an input that the model leaves open; may be repeated."),
]
NoHost = Annotated[bool, typer.Option("--no-host", help="Refuse nodes that the array does not run.")]

_EXTENTS = re.compile(r"[0-9]+(?:[x,][0-9]+)*")


def input_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs by name, of NAME:1x3x224x224 each. Raises UsageFault for anything else."""
    from dnnc_runtime.errors import UsageFault

    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, colon, extents = text.rpartition(":")
        if not (name and colon and _EXTENTS.fullmatch(extents)):
            raise UsageFault(f"--input-shape {text!r}: expected NAME:EXTENTS, as in input:1x3x224x224")
        if name in shapes:
            raise UsageFault(f"--input-shape {text!r}: input {name!r} is given twice")
        shapes[name] = tuple(map(int, re.split("[x,]", extents)))
    return shapes


def finite(number: float | None) -> float | None:
    """A number that is one: a callback of options. Raises BadParameter for infinity and what is no number."""
    if number is None or isfinite(number):
        return number
    raise typer.BadParameter(f"{number} is not a finite number")


def cache_directory() -> Path:
    """Where results of earlier runs are kept unless the user says otherwise: the platform's place for caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dnnc"
