"""``dnnc run``: an artifact's program executed, its numbers and its bytes held against independent ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dnnc.cli.compile import agreement_data, show_agreement
from dnnc.cli.options import Artifact
from dnnc.cli.terminal import Color, Json, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dnnc.graph import Graph
    from dnnc.grid import Grid
    from dnnc.numeric import LayerNumbers, System, Verification

Inputs = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npz", help="Inputs by name.  [default: seeded random ones]", show_default=False),
]
Numbers = Annotated[Literal["float32", "fixed", "both"], typer.Option(help="The number systems to run in.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the random inputs.")]

_SYSTEMS: Mapping[str, tuple[System, ...]] = {
    "float32": ("float32",),
    "fixed": ("fixed",),
    "both": ("float32", "fixed"),
}
_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "float32": ("float32 error",),
    "fixed": ("fixed point", "saturations", "overflows"),
}


def run(
    artifact: Artifact,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ONNX file, if it is not where it was.", show_default=False)
    ] = None,
    inputs: Inputs = None,
    numbers: Numbers = "both",
    seed: Seed = 0,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Execute an artifact's program and check its numbers.

    It runs in memories of the machine's size. float32 is compared with onnxruntime, the machine's fixed point with
    an untiled reference, bit by bit.
    """
    with terminal(verbose, quiet, color) as screen:
        from dnnc import pipeline
        from dnnc.artifact import attach, load
        from dnnc_runtime.walk import checked

        # Executing the program walks it, in step with the numbers.
        compilation = attach(load(artifact, walk=False), model)
        screen.stage("load", compilation)
        fed = _read(inputs, compilation.graph) if inputs else _drawn(compilation.graph, seed)
        found: dict[System, Verification] = {}
        if len(_SYSTEMS[numbers]) > 1:
            # Once is enough.
            compilation = replace(compilation, program=checked(compilation.program))
        for system in _SYSTEMS[numbers]:
            found[system] = pipeline.verify(compilation, fed, system)
            screen.stage(system, found[system])
        counted = found[_SYSTEMS[numbers][0]].counted
        if json:
            data: dict[str, object] = {"seed": None if inputs else seed}
            data["agreement"] = agreement_data(counted)
            data.update((system, _data(verification)) for system, verification in found.items())
            screen.data(data)
        else:
            screen.grid(_grid(found))
            for system, verification in found.items():
                _show(screen, system, verification)
            show_agreement(screen, counted)
        _judge(found)


def _drawn(graph: Graph, seed: int) -> dict[str, NDArray[Any]]:
    """Random inputs of unit variance, as normalised images have; whole numbers are drawn as 0 or 1."""
    import numpy as np

    random = np.random.default_rng(seed)
    drawn: dict[str, NDArray[Any]] = {}
    for name in graph.inputs:
        value = graph.value(name)
        real = value.dtype.startswith("float")
        values = random.standard_normal(value.shape) if real else random.integers(0, 2, value.shape)
        drawn[name] = values.astype(value.dtype)
    return drawn


def _read(path: Path, graph: Graph) -> dict[str, NDArray[Any]]:
    """The inputs of a graph from an .npz file.

    Raises:
        UsageFault: the file cannot be read, or an input is absent, unknown or of another shape.
    """
    from zipfile import BadZipFile

    import numpy as np

    from dnnc_runtime.errors import UsageFault

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageFault(f"inputs {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, AttributeError, BadZipFile):
        raise UsageFault(f"inputs {str(path)!r}: not an .npz file of numbers; numpy.savez writes one") from None
    wanted = {name: graph.value(name).shape for name in graph.inputs}
    if set(arrays) != set(wanted):
        raise UsageFault(f"inputs {str(path)!r}: found {', '.join(arrays) or 'none'}; expected {', '.join(wanted)}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise UsageFault(f"inputs {str(path)!r}: {name!r} has shape {arrays[name].shape}, expected {shape}")
    return arrays


def _data(verification: Verification) -> dict[str, object]:
    """A verification as plain data; an error that is no number is null."""
    layers = [asdict(layer) for layer in verification.layers]
    for layer in layers:
        layer["error"] = layer["error"] if isfinite(layer["error"]) else None
    return {"agree": verification.agree, "first_divergence": verification.first_divergence, "layers": layers}


def _show(screen: Terminal, system: System, verification: Verification) -> None:
    from dnnc.report import plural

    layers = verification.layers
    if not verification.agree:
        return
    compared = plural(len(layers), "layer")
    if system == "float32":
        worst = max((layer.error for layer in layers), default=0.0)
        screen.line(f"float32    {compared} within {worst:.1e} of onnxruntime, relative to the largest value", "green")
    else:
        saturations, overflows = (sum(getattr(layer, of) for layer in layers) for of in ("saturations", "overflows"))
        counts = f"{plural(saturations, 'saturation')}, {plural(overflows, 'overflow')}"
        screen.line(f"fixed      {compared} bit-equal to the untiled reference; {counts}", "green")


def _grid(found: Mapping[System, Verification]) -> Grid:
    """A line for each layer that was compared; a dash where one number system has nothing to compare it with."""
    from dnnc.grid import Grid

    names = dict.fromkeys(layer.name for verification in found.values() for layer in verification.layers)
    cells: dict[str, list[str]] = {name: [] for name in names}
    for system, verification in found.items():
        layers = {layer.name: layer for layer in verification.layers}
        for name, row in cells.items():
            row.extend(_cells(system, layers.get(name)))
    headings = ("layer", *(heading for system in found for heading in _HEADINGS[system]))
    return Grid(headings, tuple((name, *row) for name, row in cells.items()), frozenset({"layer"}))


def _cells(system: System, layer: LayerNumbers | None) -> tuple[str, ...]:
    if layer is None:
        return ("-",) * len(_HEADINGS[system])
    if system == "float32":
        return (f"{layer.error:.1e}",)
    equal = f"off by {layer.error:.1e}" if layer.error else "bit-equal"
    return equal, f"{layer.saturations:,}", f"{layer.overflows:,}"


def _judge(found: Mapping[System, Verification]) -> None:
    """Raise DisagreementFault for the first number system whose numbers are not the reference's."""
    from dnnc_runtime.errors import DisagreementFault

    for system, verification in found.items():
        if not verification.agree:
            first = next(layer for layer in verification.layers if layer.name == verification.first_divergence)
            reference = "onnxruntime" if system == "float32" else "the untiled reference"
            raise DisagreementFault(
                f"{system}: layer {first.name!r} is the first that differs from {reference}, by {first.error:.2g} of "
                "its largest value; this is a defect of dnnc, please report the model"
            )
