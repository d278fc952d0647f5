"""The command line. Commands import what they need when they run, so that --help answers at once.

Exit status: 0 done, 1 internal fault, 2 usage, 3 model not supported or malformed, 4 does not fit,
5 numbers or bytes disagree, 130 interrupted.
"""

from __future__ import annotations

import gc
import io
import sys
from typing import Annotated

import typer

import dnnc
from dnnc.cli.check import check
from dnnc.cli.compile import compile
from dnnc.cli.inspect import inspect
from dnnc.cli.run import run
from dnnc.cli.targets import targets

__all__ = ["app", "main"]

app = typer.Typer(
    name="dnnc",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 internal fault, 2 usage, 3 model not supported or malformed, 4 does not fit, "
    "5 numbers or bytes disagree, 130 interrupted.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dnnc {dnnc.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compile ONNX models to accelerator schedules that provably move the fewest DRAM bytes, and run the proof."""


for command in (compile, check, run, inspect, targets):
    app.command()(command)


def main() -> None:
    """The program ``dnnc``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A layer's name may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What a command makes lives until it ends, and hardly any of it in cycles: to look for those a fifth of the time is
    # too much.
    gc.set_threshold(200_000, 20, 100)
    app(prog_name="dnnc")
