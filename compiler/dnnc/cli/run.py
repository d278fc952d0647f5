"""``dnnc run``: an artifact's program executed, its numbers and its bytes held against independent ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dnnc.cli.options import Artifact
from dnnc.cli.terminal import Color, Json, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dnnc.graph import Graph
    from dnnc.pipeline import Verification
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
        systems = ("float32", "fixed") if numbers == "both" else (numbers,)
        found = {system: pipeline.verify(compilation, fed, system) for system in systems}
        if json:
            screen.data({"seed": None if inputs else seed, **{system: asdict(v) for system, v in found.items()}})
        else:
            for system, verification in found.items():
                _show(screen, system, verification)
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


def _show(screen: Terminal, system: str, verification: Verification) -> None:
    screen.grid(_grid(system, verification))
    layers = verification.layers
    if system == "float32":
        worst = max((layer.error for layer in layers), default=0.0)
        outcome = f"float32  max relative error {worst:.2g} against onnxruntime"
    else:
        saturations, overflows = (sum(getattr(layer, of) for layer in layers) for of in ("saturations", "overflows"))
        outcome = f"fixed    bit-equal to the untiled reference; {saturations:,} saturations, {overflows:,} overflows"
    if verification.agree:
        screen.line(f"{outcome}, {len(layers)} layers", style="green")


def _grid(system: str, verification: Verification) -> Grid:
    """A line for each layer that was compared."""
    from dnnc.report import Grid

    if system == "float32":
        rows = tuple((layer.name, f"{layer.error:.2e}") for layer in verification.layers)
        return Grid(("layer", "max relative error"), rows, frozenset({"layer"}))
    headings = ("layer", "bit-equal", "saturations", "overflows")
    fixed = tuple(
        (layer.name, "no" if layer.error else "yes", f"{layer.saturations:,}", f"{layer.overflows:,}")
        for layer in verification.layers
    )
    return Grid(headings, fixed, frozenset({"layer", "bit-equal"}))


def _judge(found: Mapping[str, Verification]) -> None:
    """Raise DisagreementFault for the first number system whose numbers are not the reference's."""
    from dnnc_runtime.errors import DisagreementFault

    for system, verification in found.items():
        if not verification.agree:
            raise DisagreementFault(
                f"{system}: the numbers of layer {verification.first_divergence!r} are the first that are not the "
                "reference's; this is a defect of dnnc, please report the model"
            )
