"""``dnnc run``: an artifact's program executed, its numbers and its bytes held against independent ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
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
    from dnnc.numeric import System, Verification
    from dnnc.report import Grid

Inputs = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npz", help="Inputs by name.  [default: seeded random ones]", show_default=False),
]
Numbers = Annotated[Literal["float32", "fixed", "both"], typer.Option(help="The number systems to run in.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the random inputs.")]


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

        compilation = attach(load(artifact), model)
        fed = _read(inputs, compilation.graph) if inputs else _drawn(compilation.graph, seed)
        systems: tuple[System, ...] = ("float32", "fixed") if numbers == "both" else (numbers,)
        found: dict[System, Verification] = {system: pipeline.verify(compilation, fed, system) for system in systems}
        if json:
            drawn = None if inputs else seed
            data: dict[str, object] = {"seed": drawn, "agreement": agreement_data(compilation.counted)}
            data.update((system, _data(verification)) for system, verification in found.items())
            screen.data(data)
        else:
            for system, verification in found.items():
                _show(screen, system, verification)
            show_agreement(screen, compilation.counted)
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
    import numpy as np

    from dnnc_runtime.errors import UsageFault

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageFault(f"inputs {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, AttributeError):
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

    screen.grid(_grid(system, verification))
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


def _grid(system: System, verification: Verification) -> Grid:
    """A line for each layer that was compared."""
    from dnnc.report import Grid

    layers = verification.layers
    if system == "float32":
        rows = tuple((layer.name, f"{layer.error:.2e}") for layer in layers)
        return Grid(("float32 layer", "largest error"), rows, frozenset({"float32 layer"}))
    counted = ((layer, f"{layer.saturations:,}", f"{layer.overflows:,}") for layer in layers)
    fixed = tuple((layer.name, "no" if layer.error else "yes", *counts) for layer, *counts in counted)
    headings = ("fixed layer", "bit-equal", "saturations", "overflows")
    return Grid(headings, fixed, frozenset(headings[:2]))


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
