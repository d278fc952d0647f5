"""The program among its streams: full, closed and broken ones, and Ctrl-C while it starts."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("compiler", "runtime"))}
DNNC = f"{shlex.quote(sys.executable)} -m dnnc"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell's redirections, and signals")


def shell(command: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a line of bash, in which a pipe ends as its first part does."""
    line = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    found = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize("command", ["targets", "targets --json", "--help", "targets --color always"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_a_full_stdout_is_one_line_on_stderr(command: str) -> None:
    assert shell(f"{DNNC} {command} >/dev/full") == (
        2,
        "",
        "error: stdout cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_borne(closed: str) -> None:
    status, out, err = shell(f"{DNNC} targets snowflake -q {closed}")
    assert (status, err) == (0, "")
    assert out == ("" if ">&- " in f"{closed} ".replace("2>&-", "") else "snowflake\n")


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_a_fault_that_cannot_be_told_keeps_its_status(stream: str) -> None:
    assert shell(f"{DNNC} check absent.onnx {stream}") == (2, "", "")
    assert shell(f"{DNNC} check {stream}") == (2, "", "")


@pytest.mark.parametrize("command", ["targets", "targets --json", "--help"])
def test_a_broken_pipe_ends_quietly_with_the_status_of_its_signal(command: str) -> None:
    assert shell(f"{DNNC} {command} | true") == (128 + signal.SIGPIPE, "", "")


# Waits until a module that starts the libraries is under way, and interrupts it there.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["check", "absent.onnx"]
from dnnc.cli import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "dnnc.cli.program", "numpy", "onnx"])
def test_ctrl_c_while_libraries_load_is_one_line(name: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(name=name)]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "error: interrupted\n")
