"""Prints the lowest versions that pyproject.toml admits, as pip requirements: one `name==version` a line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
    if match := re.match(r"([\w.-]+)>=([\w.]+)", requirement):
        print(f"{match[1]}=={match[2]}")
    else:
        raise SystemExit(f"pyproject.toml: {requirement!r} states no lowest version")
