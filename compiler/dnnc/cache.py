"""Results of earlier searches, kept on disk: one sealed JSON file for each layer shape, machine, limits and objective.

A file's name is the digest of the question. Its versions, of the format, the cost model and the solver, stand inside:
what is of another version is passed over, and replaced. A file is believed in nothing: its seal, its question, the
schedule's legality and its bytes are checked before it is used. What is damaged is passed over as well. Warnings come
when the cache is closed, one for each kind; a cache never fails a compile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dnnc import documents
from dnnc.documents import Damaged
from dnnc.layer import Shape
from dnnc.records import check_proof
from dnnc.schedule_records import ScheduleRecord, record, restore
from dnnc.search import COST_MODEL, Objective, Proof, Result, figures
from dnnc.space import Limits, Space
from dnnc_runtime.machine import Machine

FORMAT = 2
"""Version of the files' format."""

_log = logging.getLogger("dnnc")


@dataclass(frozen=True, slots=True)
class Versions:
    """What a result was found by: one of another version is none."""

    format: int
    cost_model: str
    solver: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything in a cache file but its seal."""

    versions: Versions
    key: str
    schedule: ScheduleRecord
    proof: Proof
    dram_bytes: int
    cycles: int


class Stale(Exception):
    """A result is of another version; the message says which, and ours."""


def default_directory() -> Path:
    """``dnnc`` in the user's cache directory."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says its specification.
    return (Path(stated) if os.path.isabs(stated) else Path.home() / ".cache") / "dnnc"


def question(shape: Shape, machine: Machine, limits: Limits, objective: Objective) -> str:
    """Digest of all that is asked. Machines count by what they can do, not by name."""
    asked: dict[str, Any] = {
        "shape": shape,
        "machine": machine.digest,
        "limits": limits,
        "objective": objective if objective.goal == "balanced" else objective.goal,
    }
    return documents.digest(asked)


def versions() -> Versions:
    """The versions of what finds results now."""
    return Versions(FORMAT, COST_MODEL, version("ortools"))


@dataclass
class Cache:
    """A directory of results; it is made when the first one is kept."""

    directory: Path
    _read_only: bool = field(default=False, init=False)
    _passed_over: dict[str, list[str]] = field(default_factory=dict[str, list[str]], init=False)

    def get(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective) -> Result | None:
        """A known result, checked; None if there is none, or none that can be trusted."""
        key = question(shape, machine, limits, objective)
        path = self._path(key)
        try:
            return _checked(path.read_bytes(), key, Space(shape, machine, limits))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._note("unreadable", f"{path.name}: {error.strerror}")
        except Damaged as wrong:
            self._note("damaged", f"{path.name}: {wrong}")
        except Stale as other:
            self._note(f"of another version ({other})", path.name)
        return None

    def put(self, shape: Shape, machine: Machine, limits: Limits, objective: Objective, result: Result) -> None:
        """Keep a result; where the directory cannot be written, one warning says so."""
        if self._read_only:
            return
        key = question(shape, machine, limits, objective)
        of = figures(shape, machine, result.schedule)
        entry = Entry(versions(), key, record(result.schedule), result.proof, of.dram_bytes, of.cycles)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            documents.write(self._path(key), documents.seal(entry))
        except OSError as error:
            self._read_only = True
            _log.warning(
                "cache directory %s cannot be written: %s; results are not kept", self.directory, error.strerror
            )

    def close(self) -> None:
        """Warn of the results that were passed over: once for each kind, with their number and the first of them."""
        for kind, names in self._passed_over.items():
            count = "1 result that is" if len(names) == 1 else f"{len(names)} results that are"
            _log.warning("cache %s: ignored %s %s, %s", self.directory, count, kind, names[0])
        self._passed_over.clear()

    def _note(self, kind: str, name: str) -> None:
        self._passed_over.setdefault(kind, []).append(name)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def _checked(text: bytes, key: str, space: Space) -> Result:
    members = documents.unseal(text)
    _check_versions(members)
    entry = documents.parse(Entry, members)
    if entry.key != key:
        raise Damaged("it answers another question")
    schedule = restore(entry.schedule, space)
    of = figures(space.shape, space.machine, schedule)
    if (entry.dram_bytes, entry.cycles) != (of.dram_bytes, of.cycles):
        raise Damaged(f"it states {entry.dram_bytes:,} bytes, its schedule moves {of.dram_bytes:,}")
    check_proof(entry.proof, of, space)
    return Result(schedule, entry.proof)


def _check_versions(members: Mapping[str, Any]) -> None:
    """Hold the versions against ours, before anything else is understood."""
    found = members.get("versions")
    if not isinstance(found, dict):
        raise Damaged("it states no versions")
    for name, ours in asdict(versions()).items():
        if found.get(name) != ours:
            raise Stale(f"{name.replace('_', ' ')} {found.get(name)!r}, this one has {ours!r}")
