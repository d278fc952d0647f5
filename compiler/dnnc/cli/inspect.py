"""``dnnc inspect``: what an artifact decided, layer by layer, down to loops and instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnnc.cli.compile import compilation_data, show
from dnnc.cli.options import Artifact
from dnnc.cli.terminal import Color, Json, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from dnnc.pipeline import Compilation
    from dnnc.plan import LayerPlan

LayerName = Annotated[
    str | None, typer.Argument(metavar="LAYER", help="One layer: its loop nest, memory, proof.", show_default=False)
]
Program = Annotated[bool, typer.Option("--program", help="List the instructions instead.")]


def inspect(
    artifact: Artifact,
    layer: LayerName = None,
    program: Program = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Show an artifact's layers and what stays on chip between them, or one layer's loop nest.

    Without LAYER: the layers, the groups that run by strips, who fills each memory, and why the rest goes to DRAM.

    With LAYER: its loops and what is loaded and stored at each, memory use, bytes, proof and runner-up dataflows; of a
    layer in a group its strips, and what it reads from chip and from DRAM.
    """
    with terminal(verbose, quiet, color) as screen:
        from dnnc.inspect_text import program_lines
        from dnnc.pipeline import load

        compilation = load(artifact)
        name = _known(compilation, layer)
        if program:
            lines = program_lines(compilation.program, name)
            screen.data({"program": lines}) if json else screen.lines(lines)
        elif name is not None:
            _layer(screen, compilation, name, json)
        elif json:
            screen.data(_data(compilation))
        else:
            show(screen, compilation)
            _network(screen, compilation)


def _network(screen: Terminal, compilation: Compilation) -> None:
    """How layers run together, if any do."""
    from dnnc.network_text import network_lines
    from dnnc.residency import Residency

    if compilation.realized:
        screen.lines(["", *network_lines(Residency(compilation.plan, compilation.realized))])


def _data(compilation: Compilation) -> dict[str, Any]:
    """Everything that `compile --json` prints, and what is on chip when."""
    from dnnc.network_text import together_data
    from dnnc.residency import Residency
    from dnnc.summary import network_data

    data = compilation_data(compilation)
    if compilation.realized:
        network = network_data(compilation.plan, compilation.realized) or {}
        data["network"] = {**network, **together_data(Residency(compilation.plan, compilation.realized))}
    return data


def _known(compilation: Compilation, name: str | None) -> str | None:
    """The name of a layer, given that or the name of a node that it covers."""
    from difflib import get_close_matches

    from dnnc_runtime.errors import UsageFault

    names = [layer.name for layer in compilation.layers]
    if name is None or name in names:
        return name
    covering = [layer.name for layer in compilation.plan.on_array if name in layer.layer.nodes]
    if covering:
        return covering[0]
    near = "".join(f"did you mean {guess!r}? " for guess in get_close_matches(name, names, n=1))
    raise UsageFault(f"no layer {name!r} among {len(names)}; {near}inspect without LAYER lists them")


def _layer(screen: Terminal, compilation: Compilation, name: str, json: bool) -> None:
    from dnnc.report import host_grid
    from dnnc.summary import host_data

    plan = next((plan for plan in compilation.plan.on_array if plan.name == name), None)
    if plan and plan.strips:
        _layer_of_group(screen, compilation, plan, json)
        return
    if plan:
        _array_layer(screen, compilation, plan, json)
        return
    host = next(layer for layer in compilation.plan.on_host if layer.name == name)
    screen.data(host_data(host)) if json else screen.grid(host_grid([host]))


def _layer_of_group(screen: Terminal, compilation: Compilation, plan: LayerPlan, json: bool) -> None:
    from dnnc.inspect_text import StripInspection, strips_inspection, strips_text
    from dnnc.performance import layer_performance, layer_times
    from dnnc.residency import Residency

    assert compilation.realized
    times = layer_times(compilation.plan, compilation.timing)[plan.name]
    time = layer_performance(plan, compilation.machine, times)
    seen = StripInspection(plan, Residency(compilation.plan, compilation.realized), time)
    screen.data(strips_inspection(seen)) if json else screen.lines(strips_text(seen))


def _array_layer(screen: Terminal, compilation: Compilation, plan: LayerPlan, json: bool) -> None:
    from dnnc.front import front
    from dnnc.inspect_text import Inspection, layer_inspection, layer_text
    from dnnc.nest_text import transfers
    from dnnc.performance import layer_performance, layer_times
    from dnnc.search import runner_ups
    from dnnc.space import Limits, Space

    machine, shape, rules = compilation.machine, plan.layer.shape, compilation.constraints
    section = next(section for section in compilation.program.sections if section.name == plan.name)
    limits = rules.for_layer(plan.name, machine, shape) if rules else Limits()
    seen = Inspection(
        plan,
        machine,
        transfers(plan, section, machine),
        layer_performance(plan, machine, layer_times(compilation.plan, compilation.timing)[plan.name]),
        runner_ups(shape, machine, plan.schedule, limits),
        front(Space(shape, machine, limits)),
    )
    if json:
        screen.data(layer_inspection(seen))
    else:
        screen.lines(layer_text(seen))
