"""Measures dnnc on ResNet-50, beside its goals: python bench/bench.py [--target NAME] [--growth] [--runs N].

Times are CPU-seconds of one process and its threads, which are held to one; that of ``--help`` is wall time. Memory is
the process's peak resident set. Each figure is the least of several runs (``--runs``): what else a shared machine does
only adds to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "models"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LAYERS = (10, 30, 100, 300, 1000)
"""Of the residual networks that show how compiling grows."""

DNNC = (sys.executable, "-m", "dnnc")

SEARCH = """
import sys, time
from dnnc.onnx_import import load
from dnnc.pipeline import lower_with
from dnnc.planning import Planner
from dnnc.search import Objective
from dnnc.simplify import simplify
from dnnc_runtime.machine import load as machine
target = machine(sys.argv[2])
lowered = lower_with(simplify(load(sys.argv[1])), target, None, frozenset())
planner, start = Planner(target, Objective()), time.process_time()
planner.plan(lowered)
print(time.process_time() - start)
"""
"""Plans a model's layers, and nothing else; prints the CPU-seconds which that takes."""

TIMELINE = """
import sys, time
from dnnc.pipeline import load
from dnnc_runtime.timeline import timeline
program, start = load(sys.argv[1]).program, time.process_time()
timeline(program).times
print(time.process_time() - start)
"""
"""Times an artifact's program; prints the CPU-seconds which that takes."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a finished process used: CPU-seconds, wall seconds, peak bytes resident; and what it printed."""

    cpu: float
    wall: float
    peak: int
    printed: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure and, where there is one, its goal: what it should stay under."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    def __str__(self) -> str:
        goal = f"{self.value / self.goal:8.2f} of {self.goal:g} {self.unit}" if self.goal else ""
        return f"{self.name:44}{self.value:9.2f} {self.unit:6}{goal}"


def measure(command: Sequence[str]) -> Run:
    """Run a command, with one thread to each library.

    Raises:
        SystemExit: it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env=os.environ | ONE_THREAD)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}")
        output.seek(0)
        # ru_maxrss is in KiB, but in bytes on macOS.
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Run(used.ru_utime + used.ru_stime, wall, peak, output.read())


def least(figures: Iterable[Sequence[Figure]]) -> list[Figure]:
    """The least of each of the figures that were measured several times."""
    return [min(some, key=lambda figure: figure.value) for some in zip(*figures, strict=True)]


def figures(target: str, folder: Path) -> list[Figure]:
    """Every figure, measured once in a folder for scratch files."""
    model, artifact = str(folder / "resnet50.onnx"), str(folder / "resnet50.dnnc")
    measure((sys.executable, str(MODELS / "build.py"), "resnet50", "-o", model))
    compiled = measure((*DNNC, "compile", model, "--target", target, "--no-cache", "--quiet", "-o", artifact))
    layerwise = measure((*DNNC, "compile", model, "--target", target, "--no-cache", "--quiet", "--plan", "layerwise"))
    search = float(measure((sys.executable, "-c", SEARCH, model, target)).printed)
    out = [
        Figure("compile ResNet-50 to the proven optimum", compiled.cpu, "CPU-s", 30),
        Figure("  of this, every layer by itself, with proofs", search, "CPU-s"),
        Figure("  peak memory", compiled.peak / 1e9, "GB", 2),
        Figure("  its timeline", float(measure((sys.executable, "-c", TIMELINE, artifact)).printed), "CPU-s"),
        Figure("compile it layer by layer", layerwise.cpu, "CPU-s", 10),
    ]
    for numbers, name in (("float32", "in float32"), ("fixed", "in fixed point")):
        ran = measure((*DNNC, "run", artifact, "--quiet", "--numbers", numbers))
        out.append(Figure(f"run ResNet-50 {name}, and compare", ran.cpu, "CPU-s", 15))
    help_walls = [measure((*DNNC, "--help")).wall for _ in range(10)]
    return [*out, Figure("dnnc --help", min(help_walls), "s", 0.3)]


def growth(target: str, folder: Path) -> list[Figure]:
    """How compiling grows with the layers of a residual network, without its weights."""
    out: list[Figure] = []
    for layers in LAYERS:
        model = str(folder / f"{layers}.onnx")
        build = (sys.executable, str(MODELS / "build.py"), "residual_chain", "--shapes-only", "--layers", str(layers))
        measure((*build, "-o", model))
        compiled = measure((*DNNC, "compile", model, "--target", target, "--no-cache", "--quiet"))
        out.append(Figure(f"compile a residual network of {layers} layers", compiled.cpu, "CPU-s"))
        out.append(Figure("  for each layer", compiled.cpu / layers, "CPU-s"))
        out.append(Figure("  peak memory", compiled.peak / 1e9, "GB"))
    return out


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="snowflake", metavar="NAME|FILE", help="the machine (default snowflake)")
    parser.add_argument("--growth", action="store_true", help="how compiling grows from 10 layers to 1,000, instead")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="measure so many times (default 3)")
    given = parser.parse_args()
    measured = growth if given.growth else figures
    with tempfile.TemporaryDirectory() as folder:
        for figure in least(measured(given.target, Path(folder)) for _ in range(given.runs)):
            print(figure)


if __name__ == "__main__":
    main()
