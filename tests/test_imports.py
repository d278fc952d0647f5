"""Imports run one way: pipeline -> stages -> values -> dnnc_runtime -> numpy and the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILER = ROOT / "compiler" / "dnnc"
RUNTIME = ROOT / "runtime" / "dnnc_runtime"

ENTRY = {"__init__", "__main__", "artifact", "cli", "pipeline"}
"""What puts stages together; no stage knows of it."""

VALUES = {"axis", "bus", "cycles", "graph", "layer", "layout", "schedule", "segments", "structure", "tables", "traffic"}
"""What stages hand to each other, and the pure functions of it; they know of no stage."""


def imports(path: Path, *, deferred: bool = True) -> Iterator[str]:
    """Dotted names of the modules that a file imports; without ``deferred``, only those at its top level."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if deferred else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from dnnc import search` names a module of the package, or something that the package exports.
            inner = [f"dnnc.{alias.name}" for alias in node.names] if node.module == "dnnc" else []
            yield from inner or [node.module or ""]


def parts(*, deferred: bool = True) -> dict[str, set[str]]:
    """For each module or subpackage directly in dnnc, those that it imports."""
    found: dict[str, set[str]] = {}
    for path in COMPILER.rglob("*.py"):
        part = path.relative_to(COMPILER).parts[0].removesuffix(".py")
        inner = {name.split(".")[1] for name in imports(path, deferred=deferred) if name.startswith("dnnc.")}
        found.setdefault(part, set()).update(inner - {part})
    return found


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda path: path.name)
def test_the_runtime_needs_numpy_alone(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "dnnc_runtime"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed


def test_values_know_of_no_stage() -> None:
    for part in sorted(VALUES):
        assert parts(deferred=False)[part] <= VALUES, part


def test_stages_know_nothing_of_what_puts_them_together() -> None:
    for part, inner in parts().items():
        assert part in ENTRY or not inner & ENTRY, part


def test_no_part_needs_itself() -> None:
    assert len(tuple(TopologicalSorter(parts(deferred=False)).static_order())) == len(parts())


def test_one_part_reads_models() -> None:
    """Other libraries' message types stop where a model becomes a Graph."""
    readers = {path.relative_to(COMPILER).parts[0] for path in COMPILER.rglob("*.py") if "onnx" in set(imports(path))}
    assert readers == {"onnx_import"}


def test_the_command_line_starts_without_the_libraries_of_later_stages() -> None:
    slow = {"networkx", "onnx", "onnxruntime", "ortools", "pandas"}
    code = f"import sys, dnnc.cli.program; print(*({slow} & set(sys.modules)))"
    path = f"{COMPILER.parent}:{RUNTIME.parent}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
