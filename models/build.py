"""Writes one of the networks as an ONNX file, with seeded random weights: python models/build.py NETWORK -o FILE."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

import onnx

from zoo import NETWORKS, SCALE, Build

SIZES = {
    "batch": ("B", "vectors"),
    "heads": ("H", "attention heads"),
    "layers": ("L", "layers"),
    "size": ("M", "inputs and outputs"),
    "tokens": ("T", "tokens of the sequence"),
    "width": ("W", "words of a token"),
}
"""What stands for the parameters of builders, and what they are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds and writes a network; returns the exit status."""
    options = vars(_parser().parse_args(arguments))
    output, network = options.pop("output"), options.pop("network")
    try:
        model = {**NETWORKS, **SCALE}[network](**options)
    except ValueError as error:
        print(f"{network}: {error}", file=sys.stderr)
        return 2
    try:
        onnx.save(model, output)
    except OSError as error:
        print(f"{output}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    networks = parser.add_subparsers(dest="network", required=True, metavar="NETWORK")
    for name, build in {**NETWORKS, **SCALE}.items():
        text = build.__doc__ or ""
        formatter = argparse.RawDescriptionHelpFormatter
        command = networks.add_parser(name, help=text.splitlines()[0], description=text, formatter_class=formatter)
        command.add_argument("-o", "--output", required=True, metavar="FILE", help="the ONNX file to write")
        _add_parameters(command, build)
    return parser


def _add_parameters(command: argparse.ArgumentParser, build: Build) -> None:
    """An option for every parameter of a builder."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()}
    seed = defaults.pop("seed")
    weights = command.add_mutually_exclusive_group()
    shown = "no weights" if seed is None else seed
    weights.add_argument("--seed", type=int, default=seed, metavar="N", help=f"of the weights (default {shown})")
    weights.add_argument(
        "--shapes-only",
        action="store_const",
        const=None,
        dest="seed",
        help="no weights: they are said to lie in a file beside the model, which need not be there to compile it",
    )
    for name, default in defaults.items():
        letter, meaning = SIZES[name]
        help_text = f"{meaning} (default {default})"
        command.add_argument(f"--{name}", type=_positive, default=default, metavar=letter, help=help_text)


def _positive(text: str) -> int:
    """A positive number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
