"""The command line. It starts with nothing but the standard library; commands import what they need when they run.

Exit status: 0 done, 1 internal fault, 2 usage, 3 model not supported or malformed, 4 does not fit,
5 numbers or bytes disagree, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["is_interruption", "main"]


def main() -> NoReturn:
    """The program ``dnnc``."""
    _open_what_is_closed()
    if hasattr(signal, "SIGPIPE"):
        # Where nobody reads the output, the program ends as the system has it: quietly, with 141 in a shell.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A layer's name may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Tiles are too small to be multiplied by several threads, which would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What a command makes lives until it ends, and hardly any of it in cycles: to look for those a fifth of the time is
    # too much.
    gc.set_threshold(1_000_000, 20, 100)
    try:
        from dnnc.cli.program import status

        ended = status(sys.argv[1:])
        sys.stdout.flush()
    except (KeyboardInterrupt, RuntimeError) as error:  # before a command has begun
        if not is_interruption(error):
            raise
        sys.stderr.write("error: interrupted\n")
        ended = 130
    except OSError as error:  # stdout's: a command makes a fault of every other
        ended = _unwritable(error)
    sys.exit(ended)


def is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C ended something; Python before 3.12 wraps it, where it comes while a class is made."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)


def _open_what_is_closed() -> None:
    """Gives a closed stdin, stdout or stderr the null device, lest a file that is opened later takes its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))


def _interrupted(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt; but where Python would lose it with a traceback, as a lock of an import goes, end at once."""
    if frame and frame.f_code.co_qualname == "_get_module_lock.<locals>.cb":
        os.write(2, b"error: interrupted\n")
        os._exit(128 + number)
    raise KeyboardInterrupt


def _unwritable(error: OSError) -> int:
    """Says that stdout cannot be written, and has Python not try again; the exit status of that."""
    from dnnc.cli.terminal import USAGE, complain

    complain(f"stdout cannot be written: {error.strerror or error}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return USAGE
