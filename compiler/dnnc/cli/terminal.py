"""Where a command writes, and how it ends: results on stdout, all else on stderr, a fault as one line and a status."""

from __future__ import annotations

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from dnnc.cli import is_interruption

if TYPE_CHECKING:
    from rich.console import Console

    from dnnc.grid import Grid

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

INTERNAL = 1
"""Exit status of a defect of dnnc."""

USAGE = 2
"""Exit status of a mistake in an option."""

WIDE = 4096
"""Columns where there is no terminal: no line is broken."""

Color = Annotated[Literal["auto", "always", "never"], typer.Option(help="Colour the output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No tables, notes or progress: the outcome alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Name each stage; traceback of internal faults.")]


class StdoutError(OSError):
    """Stdout cannot be written: no fault of a file, and no defect."""


@contextmanager
def _stdout() -> Generator[IO[str], None, None]:
    """Stdout, to be written."""
    try:
        yield sys.stdout
    except OSError as error:
        raise StdoutError(error.errno, error.strerror) from None


def complain(text: str) -> None:
    """Print an error on stderr, without colour."""
    with suppress(OSError):
        sys.stderr.write(f"error: {text}\n")


class Terminal:
    """The two streams of a command, as the user wants them."""

    def __init__(self, verbose: bool, quiet: bool, color: str) -> None:
        self.verbose, self.quiet, self._color = verbose, quiet, color
        self._started = time.perf_counter()

    def _console(self, stream: IO[str]) -> Console:
        from rich.console import Console

        force = {"auto": None, "always": True, "never": None}[self._color]
        system: Literal["auto"] | None = None if self._color == "never" else "auto"
        width = None if stream.isatty() else WIDE
        return Console(
            file=stream, force_terminal=force, color_system=system, width=width, highlight=False, markup=False
        )

    def data(self, value: object) -> None:
        """Print JSON on stdout."""
        self.lines([json.dumps(value, indent=2)])

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print a line on stdout."""
        with _stdout() as stream:
            self._console(stream).print(text, style=style, soft_wrap=True)

    def lines(self, texts: Iterable[str]) -> None:
        """Print lines on stdout, as they are."""
        with _stdout() as stream:
            for text in texts:
                stream.write(f"{text}\n")

    def grid(self, grid: Grid) -> None:
        """Print a table on stdout, unless quiet or empty."""
        if not grid.rows or self.quiet:
            return
        with _stdout() as stream:
            console = self._console(stream)
            if console.is_terminal:
                console.print(grid.rich())
            else:
                self.lines(grid.lines())
        self.lines([""])

    def note(self, text: str) -> None:
        """Print a line on stderr, unless quiet."""
        if not self.quiet:
            self._tell(text, "dim")

    def warn(self, text: str) -> None:
        """Print a warning on stderr, unless quiet."""
        if not self.quiet:
            self._tell(f"warning: {text}", "yellow")

    def complain(self, text: str) -> None:
        """Print an error on stderr."""
        self._tell(f"error: {text}", "bold red")

    def _tell(self, text: str, style: str) -> None:
        """Print a line on stderr; where that cannot be written, nobody is told."""
        with suppress(OSError):
            self._console(sys.stderr).print(text, style=style, soft_wrap=True)

    def stage(self, name: str, _: object) -> None:
        """A hook of the pipeline: with -v, name each stage as it ends, with seconds since the start."""
        if self.verbose:
            self.note(f"{time.perf_counter() - self._started:8.2f} s  {name}")

    @contextmanager
    def progress(self, what: str) -> Generator[Callable[[int, int, str], None], None, None]:
        """A bar on stderr, if that is a terminal: the callable is told layers done, layers in all, and a name."""
        console = self._console(sys.stderr)
        if self.quiet or not console.is_terminal:
            yield lambda done, count, name: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[at]}")
        with Progress(TextColumn(what), *columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, at="")
            yield lambda done, count, name: bar.update(task, completed=done, total=count, at=name)


@contextmanager
def terminal(verbose: bool, quiet: bool, color: str) -> Generator[Terminal, None, None]:
    """The terminal of one command. A fault leaves as one line on stderr and its exit status, with no traceback.

    Raises:
        typer.Exit: with the status of the fault, 1 for a defect of dnnc, 130 after Ctrl-C.
        StdoutError: stdout cannot be written.
    """
    screen = Terminal(verbose, quiet, color)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _shown(screen)
            with _logged(screen):
                yield screen
            with _stdout() as stream:
                stream.flush()
    except (typer.Exit, StdoutError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(_status(screen, error)) from None


def _status(screen: Terminal, error: BaseException) -> int:
    """The exit status of a command that ended so, which is said in one line."""
    if is_interruption(error):
        screen.complain("interrupted")
        return INTERRUPTED
    from dnnc_runtime.errors import Fault

    if isinstance(error, Fault):
        screen.complain(str(error))
        return error.exit_status
    if screen.verbose:
        traceback.print_exception(error)
    hint = "the traceback is above" if screen.verbose else "run again with -v for the traceback"
    screen.complain(f"internal fault: {type(error).__name__}: {error}; this is a defect of dnnc, {hint}")
    return INTERNAL


def _shown(screen: Terminal) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, UserWarning):
            screen.warn(str(message))

    return show


@contextmanager
def _logged(screen: Terminal) -> Generator[None, None, None]:
    """Shows what the package logs as warnings."""
    import logging

    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: screen.warn(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("dnnc")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
