"""``dnnc targets``: the machines and their figures."""

from __future__ import annotations

from typing import Annotated

import typer

from dnnc.cli.terminal import Color, Json, Quiet, Verbose, terminal


def targets(
    target: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE", help="Names or TOML files: show these only.", show_default=False),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Show machines with all their figures, or check a TOML file."""
    with terminal(verbose, quiet, color) as screen:
        from dnnc.report import machine_lines
        from dnnc.summary import machine_data
        from dnnc_runtime.machine import load, shipped

        machines = [load(name) for name in target or shipped()]
        if json:
            screen.data([machine_data(machine) for machine in machines])
            return
        for i, machine in enumerate(machines):
            head, *facts = machine_lines(machine)
            if quiet:
                screen.line(machine.name)
                continue
            if i:
                screen.line()
            screen.line(head, style="bold")
            screen.lines(facts)
