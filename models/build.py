"""Writes one of the networks as an ONNX file, with seeded random weights: python models/build.py NETWORK -o FILE."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import onnx

from zoo import NETWORKS


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds and writes a network; returns the exit status."""
    options = vars(_parser().parse_args(arguments))
    output, network = options.pop("output"), options.pop("network")
    model = NETWORKS[network](**options)
    try:
        onnx.save(model, output)
    except OSError as error:
        print(f"{output}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    networks = parser.add_subparsers(dest="network", required=True, metavar="NETWORK")
    for name, build in NETWORKS.items():
        text = build.__doc__ or ""
        formatter = argparse.RawDescriptionHelpFormatter
        command = networks.add_parser(name, help=text.splitlines()[0], description=text, formatter_class=formatter)
        command.add_argument("-o", "--output", required=True, metavar="FILE", help="the ONNX file to write")
        command.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
        if name == "linear":
            command.add_argument("--size", type=int, default=4096, metavar="M", help="inputs and outputs")
            command.add_argument("--batch", type=int, default=1, metavar="B", help="vectors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
