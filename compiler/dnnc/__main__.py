"""The command line: ``python -m dnnc``."""

from __future__ import annotations

from dnnc.cli import main

main()
