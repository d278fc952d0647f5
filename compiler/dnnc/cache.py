"""Results of earlier searches, kept on disk: one sealed JSON file for each layer shape, machine, limits and objective.

A file's name is the digest of the question, which names the versions of the cost model and of the solver too. A file
is believed in nothing: its seal, its question, the schedule's legality and its bytes are checked before it is used.
What is damaged is passed over with a warning; a cache never fails a compile.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dnnc import documents
from dnnc.documents import Damaged
from dnnc.layer import Shape
from dnnc.records import ScheduleRecord, check_proof, record, restore
from dnnc.search import COST_MODEL, Objective, Proof, Result, figures
from dnnc.space import Limits, Space
from dnnc_runtime.machine import Machine

FORMAT = 1
"""Version of the files' format; part of every question."""

_log = logging.getLogger("dnnc")


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything in a cache file but its seal."""

    key: str
    schedule: ScheduleRecord
    proof: Proof
    dram_bytes: int
    cycles: int


def default_directory() -> Path:
    """``dnnc`` in the user's cache directory."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says its specification.
    return (Path(stated) if os.path.isabs(stated) else Path.home() / ".cache") / "dnnc"


def question(shape: Shape, machine: Machine, limits: Limits, objective: Objective) -> str:
    """Digest of all that decides a result. Machines count by what they can do, not by name."""
    asked: dict[str, Any] = {
        "format": FORMAT,
        "cost_model": COST_MODEL,
        "solver": version("ortools"),
        "shape": shape,
        "machine": machine.digest,
        "limits": limits,
        "objective": objective if objective.goal == "balanced" else objective.goal,
    }
    return documents.digest(asked)


@dataclass
class Cache:
    """A directory of results; it is made when the first one is kept."""

    directory: Path
    _read_only: bool = field(default=False, init=False)

    def get(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective) -> Result | None:
        """A known result, checked; None if there is none, or none that can be trusted."""
        key = question(shape, machine, limits, objective)
        path = self._path(key)
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _log.warning("cache file %s cannot be read: %s; the layer is searched", path, error.strerror)
            return None
        try:
            return _checked(text, key, Space(shape, machine, limits))
        except Damaged as wrong:
            _log.warning("cache file %s is ignored: %s; the layer is searched", path, wrong)
            return None

    def put(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective, result: Result) -> None:
        """Keep a result; where the directory cannot be written, one warning says so."""
        if self._read_only:
            return
        key = question(shape, machine, limits, objective)
        of = figures(shape, machine, result.schedule)
        entry = Entry(key, record(result.schedule), result.proof, of.dram_bytes, of.cycles)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            documents.write(self._path(key), documents.seal(entry))
        except OSError as error:
            self._read_only = True
            _log.warning(
                "cache directory %s cannot be written: %s; results are not kept", self.directory, error.strerror
            )

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def _checked(text: bytes, key: str, space: Space) -> Result:
    entry = documents.parse(Entry, documents.unseal(text))
    if entry.key != key:
        raise Damaged("it answers another question")
    schedule = restore(entry.schedule, space)
    of = figures(space.shape, space.machine, schedule)
    if (entry.dram_bytes, entry.cycles) != (of.dram_bytes, of.cycles):
        raise Damaged(f"it states {entry.dram_bytes:,} bytes, its schedule moves {of.dram_bytes:,}")
    check_proof(entry.proof, of, space)
    return Result(schedule, entry.proof)
