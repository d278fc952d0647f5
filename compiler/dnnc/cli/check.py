"""``dnnc check``: what of a model runs on the array and what on the host, without compiling it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dnnc.cli.options import InputShape, Model, NoHost, Target, input_shapes
from dnnc.cli.terminal import Color, Json, Quiet, Terminal, Verbose, terminal

if TYPE_CHECKING:
    from dnnc.graph import Graph
    from dnnc.layer import HostLayer, Layer


def check(
    model: Model,
    target: Target = "snowflake",
    input_shape: InputShape = None,
    no_host: NoHost = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    color: Color = "auto",
) -> None:
    """Show what runs on the array and what on the host, and why."""
    with terminal(verbose, quiet, color) as screen:
        from dnnc import onnx_import
        from dnnc.layer import HostLayer, Layer
        from dnnc.pipeline import lower_with, refuse_host
        from dnnc.simplify import simplify
        from dnnc_runtime.machine import load

        machine = load(target)
        graph = simplify(onnx_import.load(model, input_shapes(input_shape)))
        lowered = lower_with(graph, machine, None, frozenset())
        array = [layer for layer in lowered.layers if isinstance(layer, Layer)]
        host = [layer for layer in lowered.layers if isinstance(layer, HostLayer)]
        if json:
            screen.data(_data(graph, machine.name, array, host))
        else:
            _show(screen, graph, machine.name, array, host)
        if no_host:
            refuse_host(lowered)


def _unfolded(layers: list[Layer]) -> list[str]:
    return [layer.name for layer in layers if layer.operator == "BatchNormalization"]


def _data(graph: Graph, machine: str, array: list[Layer], host: list[HostLayer]) -> dict[str, object]:
    from dnnc.summary import dims, host_data

    return {
        "model": graph.name,
        "target": machine,
        "array": [
            {"name": layer.name, "operator": layer.operator, "nodes": layer.nodes, "dims": dims(layer.shape)}
            for layer in array
        ],
        "host": [host_data(layer) for layer in host],
        "unfolded_batch_norms": _unfolded(array),
    }


def _show(screen: Terminal, graph: Graph, machine: str, array: list[Layer], host: list[HostLayer]) -> None:
    from dnnc import report

    screen.grid(report.work_grid(array))
    screen.grid(report.host_grid(host))
    inputs = ", ".join(f"{name} {'x'.join(map(str, graph.value(name).shape))}" for name in graph.inputs)
    kinds = Counter("copy" if ":copy" in layer.name else layer.operator for layer in array)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    screen.line(f"{graph.name} on {machine}", style="bold")
    screen.line(f"input      {inputs}")
    screen.line(f"array      {report.plural(len(array), 'layer')}" + (f": {listed}" if listed else ""))
    screen.line(f"host       {report.plural(len(host), 'node')}")
    if unfolded := _unfolded(array):
        count = report.plural(len(unfolded), "batch norm")
        screen.line(f"not folded {count}, layers of their own: {', '.join(unfolded)}")
