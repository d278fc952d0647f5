"""``dnnc compile``: a model's schedule, its proof, and the program that counted the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dnnc.cli.options import InputShape, Model, NoHost, Target, cache_directory, finite, input_shapes
from dnnc.cli.terminal import INTERRUPTED, Color, Json, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from dnnc.agreement import Agreement
    from dnnc.pipeline import Planned
    from dnnc.search import Objective

Together = Annotated[
    Literal["layerwise", "resident", "fused"],
    typer.Option(
        help="Every layer from DRAM to DRAM; or tensors stay on chip between layers; or groups of layers run by strips "
        "of rows, too."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the artifact here.", show_default=False)
]
NoEmit = Annotated[
    bool,
    typer.Option("--no-emit", help="Plan and prove alone: no program is emitted, so nothing is counted or timed."),
]
Goal = Annotated[
    Literal["traffic", "latency", "balanced"],
    typer.Option(help="Fewest DRAM bytes; fewest cycles; or fewest bytes within --within of the fewest cycles."),
]
Within = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="PERCENT",
        callback=finite,
        help="For --objective balanced: cycles over the fewest.  [default: 5]",
    ),
]
ConstraintsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML file that narrows the schedules.", show_default=False)
]
CacheDirectory = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep results here.  [default: the user's cache directory]")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep results of other runs.")]
TimeLimit = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="S",
        callback=finite,
        help="Deterministic seconds of the solver for one layer, and of the search for all layers together.",
    ),
]


def compile(
    model: Model,
    target: Target = "snowflake",
    output: Output = None,
    input_shape: InputShape = None,
    objective: Goal = "traffic",
    within: Within = None,
    plan: Together = "fused",
    constraints: ConstraintsFile = None,
    cache: CacheDirectory = None,
    no_cache: NoCache = False,
    no_host: NoHost = False,
    time_limit: TimeLimit = 60.0,
    no_emit: NoEmit = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Find every layer's schedule and how layers run together, prove it, and count the bytes.

    The program is emitted and walked: what it moves is held against what was predicted, tensor by tensor.
    For networks whose program would be too long for that, --no-emit ends with the plan and its proof.

    Ctrl-C ends the search: what is found so far is printed and written, marked as not proven.
    """
    with terminal(verbose, quiet, color) as screen:
        from dnnc import pipeline

        if no_emit:
            _check_no_emit(objective, output)
        asked: dict[str, Any] = {
            "objective": _objective(objective, within),
            "constraints": constraints,
            "input_shapes": input_shapes(input_shape),
            "cache": _cache(cache, no_cache),
            "host": not no_host,
            "plan": plan,
            "time_limit": time_limit,
        }
        if output:
            from dnnc import artifact

            artifact.check_output(output, model, target, constraints)
        with screen.progress("searching") as progress:
            act = pipeline.plan_network if no_emit else pipeline.compile
            planned = act(model, target, **asked, hook=screen.stage, progress=progress)
        if output and isinstance(planned, pipeline.Compilation):
            planned.save(output)
        if json:
            screen.data(compilation_data(planned))
        else:
            show(screen, planned, output)
        if planned.interrupted:
            screen.warn("interrupted: layers marked with a gap are the best found so far, not proven")
            raise typer.Exit(INTERRUPTED)


def _check_no_emit(goal: str, output: Path | None) -> None:
    from dnnc_runtime.errors import UsageFault

    if output:
        raise UsageFault("an artifact holds a program; leave out --no-emit or -o")
    if goal != "traffic":
        raise UsageFault(
            f"--no-emit is for --objective traffic: under {goal} the search itself emits programs, to time them; "
            "leave out --no-emit or --objective"
        )


def _objective(goal: Literal["traffic", "latency", "balanced"], within: float | None) -> Objective:
    from dnnc.search import Objective
    from dnnc_runtime.errors import UsageFault

    if within is None:
        return Objective(goal)
    if goal != "balanced":
        raise UsageFault(f"--within is for --objective balanced, not for {goal}")
    return Objective(goal, within)


def _cache(directory: Path | None, off: bool) -> Path | None:
    from dnnc_runtime.errors import UsageFault

    if off and directory:
        raise UsageFault("--cache and --no-cache exclude each other; give one of them")
    return None if off else directory or cache_directory()


def compilation_data(planned: Planned) -> dict[str, Any]:
    """A compilation as plain data: its plan's, and where it comes from; what takes a program is None without one."""
    from dnnc.pipeline import Compilation
    from dnnc.summary import compiled_data

    source, compiled = planned.graph.source, planned if isinstance(planned, Compilation) else None
    return {
        "model": {
            "name": planned.graph.name,
            "path": str(source.path) if source and source.path else None,
            "sha256": source.sha256 if source else None,
            "input_shapes": {name: planned.graph.value(name).shape for name in planned.graph.inputs},
        },
        **compiled_data(planned.plan, compiled.timing if compiled else None, planned.realized),
        "interrupted": planned.interrupted,
        "agreement": agreement_data(compiled.counted) if compiled else None,
    }


def agreement_data(counted: Agreement) -> dict[str, int]:
    """What walking the program counted, as plain data."""
    return {
        "tensors": counted.tensors,
        "instructions": counted.instructions,
        "counted_bytes": sum(counted.payload.values()),
    }


def show_agreement(screen: Terminal, counted: Agreement) -> None:
    """Print what was counted to be as predicted."""
    from dnnc.report import plural

    compared = f"{plural(counted.tensors, 'tensor')}, {plural(counted.instructions, 'instruction')}"
    screen.line(f"agreement  counted = predicted: {compared}", style="green")


def _show_no_program(screen: Terminal, planned: Planned) -> None:
    """Print that nothing was counted, and how long the program would be."""
    from dnnc.length import tiles
    from dnnc.report import plural

    count = plural(sum(tiles(planned.plan, planned.realized).values()), "tile")
    shown = "predicted and proven" if planned.plan.status == "optimal" else "predicted"
    screen.line(f"program    none was emitted (--no-emit), so that times are in closed form; it would have {count}")
    screen.line(f"agreement  none: without a program, the bytes are {shown}, not counted", style="yellow")


def show(screen: Terminal, planned: Planned, output: Path | None = None) -> None:
    """Print a compilation: layers, traffic by role, host nodes, totals, and the agreement of counts, if any."""
    from dnnc import report
    from dnnc.pipeline import Compilation

    plan, compiled = planned.plan, planned if isinstance(planned, Compilation) else None
    timing = compiled.timing if compiled else None
    screen.grid(report.layers_grid(plan, timing, planned.realized))
    screen.grid(report.traffic_grid(plan))
    screen.grid(report.host_grid(plan.on_host))
    screen.line(f"{planned.graph.name} on {report.verdict(plan)}", style="bold")
    screen.lines(report.totals_lines(plan, timing))
    if compiled:
        show_agreement(screen, compiled.counted)
    else:
        _show_no_program(screen, planned)
    if output:
        screen.line(f"written    {output}")
    for line in report.LEGEND:
        screen.note(line)
