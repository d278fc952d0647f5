"""``dnnc report``: artifacts as a page of pictures, as pictures alone, or as a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnc.cli.terminal import Color, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from dnnc.pipeline import Compilation
    from dnnc.plan import LayerPlan
    from dnnc.report_page.figures import Network
    from dnnc.report_page.fronts import LayerFront
    from dnnc.space import Limits

Artifacts = Annotated[
    list[Path], typer.Argument(metavar="ARTIFACT", help="What `dnnc compile -o` wrote.", show_default=False)
]
Page = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the page here.", show_default=False)
]
Pictures = Annotated[
    Path | None, typer.Option("--svg", metavar="DIR", help="Write every picture here, as a file of its own.")
]
Trace = Annotated[
    Path | None, typer.Option("--timeline", metavar="FILE", help="Write a trace for Perfetto here (of one artifact).")
]
Fronts = Annotated[
    bool, typer.Option("--fronts", help="Search for each layer's trades of bytes against cycles; takes a while.")
]


def report(
    artifacts: Artifacts,
    output: Page = None,
    svg: Pictures = None,
    timeline: Trace = None,
    fronts: Fronts = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Draw artifacts: roofline, traffic, time, buffers, bandwidth and schedules in one page, or as a trace.

    The page is one file that needs no network. At least one of -o, --svg and --timeline says what to write.
    """
    with terminal(verbose, quiet, color) as screen:
        _check(artifacts, output, svg, timeline)
        networks = _networks(screen, artifacts, fronts)
        for path, content in _files(networks, output, svg, timeline):
            _write(screen, path, content)


def _check(artifacts: list[Path], output: Path | None, svg: Path | None, timeline: Path | None) -> None:
    """Find out what cannot be done before anything is loaded."""
    from dnnc.artifact import check_writable
    from dnnc_runtime.errors import UsageFault

    if not (output or svg or timeline):
        raise UsageFault("nothing to write: give -o FILE for the page, --svg DIR for pictures or --timeline FILE")
    if timeline and len(artifacts) > 1:
        raise UsageFault(f"--timeline is of one artifact, found {len(artifacts)}; give one, or leave --timeline out")
    if output and timeline and output.resolve() == timeline.resolve():
        raise UsageFault(f"-o and --timeline are one file, {str(output)!r}; choose another path for one of them")
    for path in (output, timeline):
        if path:
            check_writable(path, *artifacts)
    if svg:
        try:
            svg.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageFault(f"--svg {str(svg)!r}: {error.strerror or error}; choose another directory") from None
        check_writable(svg / "roofline.svg")


def _files(
    networks: Sequence[Network], output: Path | None, svg: Path | None, timeline: Path | None
) -> list[tuple[Path, str]]:
    """What to write where, all of it made before anything is written."""
    from dnnc.report_page.page import page, standalone
    from dnnc.report_page.trace import trace

    files = [(output, page(networks))] if output else []
    if svg:
        files += [(svg / name, content) for name, content in standalone(networks).items()]
    return [*files, (timeline, trace(networks[0]))] if timeline else files


def _networks(screen: Terminal, artifacts: list[Path], fronts: bool) -> tuple[Network, ...]:
    from dnnc.pipeline import load
    from dnnc.report_page.figures import Network, named

    found: list[Network] = []
    for path in artifacts:
        compilation = load(path)
        screen.stage(f"load {path}", compilation)
        screen.stage(f"timeline of {path}", compilation.timing)
        searched = _fronts(screen, compilation) if fronts else None
        name = compilation.graph.name or path.stem
        found.append(Network(name, compilation.plan, compilation.timing, searched, made=compilation.realized))
    return named(found)


def _fronts(screen: Terminal, compilation: Compilation) -> tuple[LayerFront, ...]:
    from dnnc.report_page.fronts import layer_fronts
    from dnnc.space import ANYTHING

    rules, machine = compilation.constraints, compilation.machine

    def limits(layer: LayerPlan) -> Limits:
        return rules.for_layer(layer.name, machine, layer.layer.shape) if rules else ANYTHING

    with screen.progress("fronts") as progress:
        return layer_fronts(compilation.plan, limits, progress)


def _write(screen: Terminal, path: Path, content: str) -> None:
    """Write a file all or nothing, and say so."""
    from dnnc.artifact import writing
    from dnnc.documents import write

    writing(path, lambda: write(path, content))
    screen.line(f"written    {path}")
