"""The commands, their options, and what a mistake in those says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import dnnc
from dnnc.cli.check import check
from dnnc.cli.compile import compile
from dnnc.cli.inspect import inspect
from dnnc.cli.report import report
from dnnc.cli.run import run
from dnnc.cli.targets import targets
from dnnc.cli.terminal import USAGE, complain

app = typer.Typer(
    name="dnnc",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 internal fault, 2 usage, 3 model not supported or malformed, 4 does not fit, "
    "5 numbers or bytes disagree, 130 interrupted, 141 nobody reads the output.",
)

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # click's, which newer versions of typer bring along


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


for command in (compile, check, run, inspect, report, targets):
    app.command()(command)


def status(arguments: Sequence[str]) -> int:
    """The exit status of ``dnnc`` with these arguments, after it has run; without any, it shows its help."""
    try:
        ended: object = app(arguments or ["--help"], prog_name="dnnc", standalone_mode=False)
    except _UsageError as error:
        complain(_sentence(error))
        return USAGE
    return ended if isinstance(ended, int) else 0


def _sentence(error: Exception) -> str:
    """What typer says of a mistake, as our own faults say it: one line, and where to look."""
    said = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    said = said.replace("Value error, ", "").rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "dnnc")
    return f"{said[:1].lower()}{said[1:]}{' ' if said.endswith('?') else '; '}see {command} --help"
