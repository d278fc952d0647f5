"""What it gains to plan all layers together: python examples/whole_networks.py [--target NAME] [MODEL.onnx | NAME ...].

For every network the DRAM bytes of the best plan that runs layer by layer, of the best with tensors that stay on chip
from layer to layer, and of the best with groups of layers that run by strips of rows; each proven minimal in its space,
or with the gap to what is proven; and how long the last one takes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

import dnnc
from dnnc.segments import Best
from zoo import NETWORKS

DEFAULT = ("alexnet", "googlenet", "resnet50", "vgg16", "squeezenet", "mobilenetv2")


def shown(best: Best) -> str:
    """Megabytes, and the gap to what is proven."""
    gap = (best.bytes - best.bound) / best.bytes if best.bytes else 0.0
    return f"{best.bytes / 1e6:8.3f}" + ("  proven" if not gap else f"  <{gap:6.1%}")


def line(name: str, target: str) -> str:
    """A network's line of the table."""
    begun = time.process_time()
    compiled = dnnc.compile(NETWORKS[name]() if name in NETWORKS else name, target)
    took = time.process_time() - begun
    network = compiled.plan.network
    if network is None:
        return f"{Path(name).stem:12} {compiled.plan.totals.dram_bytes / 1e6:8.3f}"
    layerwise = sum(layer.by_itself.cycles for layer in compiled.plan.on_array)
    times = (cycles / compiled.machine.clock_hz * 1e3 for cycles in (layerwise, compiled.timing.cycles))
    columns = [shown(network.best[scope]) for scope in ("layerwise", "resident", "fused")]
    return "  ".join([f"{Path(name).stem:12}", *columns, *(f"{ms:8.2f}" for ms in times), f"{took:6.1f}"])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=DEFAULT, help=f"files, or of {', '.join(NETWORKS)}")
    parser.add_argument("--target", default="snowflake", help="a shipped machine, or a machine file")
    given = parser.parse_args()
    head = f"{'MB':12}  {'layerwise':>16}  {'resident':>16}  {'fused':>16}"
    print(f"{head}  {'ms then':>8}  {'ms now':>8}  {'CPU s':>6}")
    for name in given.models:
        print(line(name, given.target), flush=True)


if __name__ == "__main__":
    main()
