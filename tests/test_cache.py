"""The cache: results come back equal, for exactly the question they answer; what cannot be trusted is passed over."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc import cache as caches
from dnnc import documents
from dnnc.cache import Cache, default_directory, question
from dnnc.layer import Shape
from dnnc.planning import Planner
from dnnc.search import COST_MODEL, NoSchedule, Objective, Proof, Result, hurried, optimize
from dnnc.space import Limits
from dnnc_runtime import machine as targets
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Pool, Window
from strategies import layers, machines

SQUARE = Window(13, 13, 3, pad=1, pad_after=1)
CONV = Shape("array", 1, 1, 64, 32, SQUARE, SQUARE, parameters=1)
SNOWFLAKE = targets.load("snowflake")
TRAFFIC = Objective()
BALANCED = Objective("balanced", 5.0)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Cache, Result, Path]:
    """A cache with one result, and its file."""
    cache, result = Cache(tmp_path / "deep" / "cache"), optimize(CONV, SNOWFLAKE)
    cache.put(CONV, SNOWFLAKE, Limits(), TRAFFIC, result)
    (path,) = cache.directory.iterdir()
    return cache, result, path


def test_a_result_comes_back(kept: tuple[Cache, Result, Path]) -> None:
    cache, result, path = kept
    assert path.name == f"{question(CONV, SNOWFLAKE, Limits(), TRAFFIC)}.json"
    assert Cache(cache.directory).get(CONV, SNOWFLAKE, Limits(), TRAFFIC) == result


@given(st.data())
@settings(max_examples=20)
def test_any_result_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shape, machine = data.draw(layers(6, 5)).shape, data.draw(machines(sizes=(64, 256, 4096)))
    cache = Cache(tmp_path_factory.mktemp("cache"))
    try:
        result = hurried(shape, machine)
    except NoSchedule:
        return
    cache.put(shape, machine, Limits(), BALANCED, result)
    assert cache.get(shape, machine, Limits(), BALANCED) == result


def test_the_machine_counts_by_what_it_can_do(kept: tuple[Cache, Result, Path]) -> None:
    cache, result, _ = kept
    renamed = replace(SNOWFLAKE, name="snowball", description="the same")
    assert cache.get(CONV, renamed, Limits(), TRAFFIC) == result


@pytest.mark.parametrize(
    ("shape", "machine", "limits", "objective"),
    [
        (replace(CONV, k=65), SNOWFLAKE, Limits(), TRAFFIC),
        (replace(CONV, y=replace(SQUARE, pad_after=0)), SNOWFLAKE, Limits(), TRAFFIC),
        (replace(CONV, pool=Pool("max", Window(13, 6, 3, 2), Window(13, 6, 3, 2))), SNOWFLAKE, Limits(), TRAFFIC),
        (CONV, SNOWFLAKE.with_memory("maps", 32768), Limits(), TRAFFIC),
        (CONV, targets.load("two-buffer"), Limits(), TRAFFIC),
        (CONV, SNOWFLAKE, Limits(keep=False), TRAFFIC),
        (CONV, SNOWFLAKE, Limits(pin=False), TRAFFIC),
        (CONV, SNOWFLAKE, Limits(buffers=(1, None, None)), TRAFFIC),
        (CONV, SNOWFLAKE, Limits(), Objective("latency")),
        (CONV, SNOWFLAKE, Limits(), BALANCED),
    ],
)
def test_another_question_has_another_answer(
    kept: tuple[Cache, Result, Path], shape: Shape, machine: Machine, limits: Limits, objective: Objective
) -> None:
    assert kept[0].get(shape, machine, limits, objective) is None


def test_percentages_tell_balanced_objectives_apart_and_no_others() -> None:
    def key(objective: Objective) -> str:
        return question(CONV, SNOWFLAKE, Limits(), objective)

    assert key(Objective("balanced", 5.0)) != key(Objective("balanced", 5.0000001))
    assert key(Objective("traffic", 5.0)) == key(Objective("traffic", 6.0))


def older(_: str) -> str:
    return "1.0"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COST_MODEL", "0", f"cost model {COST_MODEL!r}, this one has '0'"),
        ("FORMAT", 0, f"format {caches.FORMAT}, this one has 0"),
        ("version", older, "this one has '1.0'"),
    ],
)
def test_a_result_of_another_version_is_ignored_with_a_warning_and_replaced(
    kept: tuple[Cache, Result, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: Any,
    said: str,
) -> None:
    cache, result, path = kept
    monkeypatch.setattr(caches, name, value)
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) is None
    cache.put(CONV, SNOWFLAKE, Limits(), TRAFFIC, result)
    assert list(cache.directory.iterdir()) == [path]
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) == result
    cache.close()
    (warning,) = caplog.messages
    assert "ignored 1 result that is of another version (" in warning
    assert said in warning


def test_warnings_are_one_for_each_kind(
    kept: tuple[Cache, Result, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, _, path = kept
    shapes = [replace(CONV, k=k) for k in range(1, 7)]
    for shape in shapes:
        cache.put(shape, SNOWFLAKE, Limits(), TRAFFIC, hurried(shape, SNOWFLAKE))
    path.write_bytes(b"")
    monkeypatch.setattr(caches, "COST_MODEL", "0")
    for shape in (*shapes, CONV):
        assert cache.get(shape, SNOWFLAKE, Limits(), TRAFFIC) is None
    assert caplog.messages == []
    cache.close()
    stale, damaged = caplog.messages
    assert stale.startswith(f"cache {cache.directory}: ignored 6 results that are of another version (cost model ")
    assert damaged.startswith(f"cache {cache.directory}: ignored 1 result that is damaged, {path.name}: not a JSON")
    cache.close()
    assert len(caplog.messages) == 2


# -- what cannot be trusted -------------------------------------------------------------------------------------------


def _resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def damage(text: bytes) -> bytes:
        content = json.loads(text)
        del content[documents.SEAL]
        change(content)
        return json.dumps({**content, documents.SEAL: documents.digest(content)}).encode()

    return damage


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda text: b"", "not a JSON document"),
    (lambda text: text[:-30], "not a JSON document"),
    (lambda text: b"\x00\xff", "not a JSON document"),
    (lambda text: text.replace(b"optimal", b"feasible"), "damaged or changed"),
    (_resealed(lambda c: c.update(key="0" * 64)), "it answers another question"),
    (_resealed(lambda c: c.update(extra=1)), "unknown: extra"),
    (_resealed(lambda c: c.pop("versions")), "it states no versions"),
    (_resealed(lambda c: c["schedule"].update(k="64")), "schedule.k: found '64', expected int"),
    (_resealed(lambda c: c["schedule"].update(k=7)), "tiles of k are not legal"),
    (_resealed(lambda c: c["schedule"].update(mode="none")), "mode 'none' cannot run the layer"),
    (_resealed(lambda c: c.update(dram_bytes=1)), "it states 1 bytes"),
    (_resealed(lambda c: c["proof"].update(value=1)), "the proof is about 1 bytes"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_what_is_damaged_is_ignored_with_a_warning(
    kept: tuple[Cache, Result, Path], caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes], reason: str
) -> None:
    cache, result, path = kept
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) is None
    cache.close()
    (warning,) = caplog.records
    assert (warning.name, warning.levelno) == ("dnnc", logging.WARNING)
    assert path.name in warning.getMessage()
    assert reason in warning.getMessage()
    cache.put(CONV, SNOWFLAKE, Limits(), TRAFFIC, result)
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) == result


def test_a_file_that_cannot_be_read(kept: tuple[Cache, Result, Path], caplog: pytest.LogCaptureFixture) -> None:
    cache, _, path = kept
    path.unlink()
    path.mkdir()
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) is None
    cache.close()
    assert f"unreadable, {path.name}: Is a directory" in caplog.text


def test_a_directory_that_cannot_be_written_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache, result = Cache(tmp_path / "file" / "cache"), hurried(CONV, SNOWFLAKE)
    for _ in range(3):
        cache.put(CONV, SNOWFLAKE, Limits(), TRAFFIC, result)
        assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) is None
    assert [record.getMessage().rpartition(";")[2] for record in caplog.records] == [" results are not kept"]


# -- in use -----------------------------------------------------------------------------------------------------------


def test_the_planner_asks_the_cache_first(kept: tuple[Cache, Result, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cache, result, _ = kept
    planner = Planner(SNOWFLAKE, TRAFFIC, store=cache)
    monkeypatch.delattr("dnnc.planning.optimize")
    assert planner._found(CONV, Limits()) == result  # pyright: ignore[reportPrivateUsage]


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for stated, expected in (("/cache", "/cache/dnnc"), ("relative", "/home/someone/.cache/dnnc")):
        monkeypatch.setenv("XDG_CACHE_HOME", stated)
        assert default_directory() == Path(expected)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_directory() == Path("/home/someone/.cache/dnnc")


def test_proofs_are_kept_whole(tmp_path: Path) -> None:
    found = optimize(CONV, SNOWFLAKE)
    proof = Proof("optimal", "cp-sat", "bytes", found.proof.value, found.proof.value, "ortools 9", 7, 0.1 + 0.2)
    cache = Cache(tmp_path)
    cache.put(CONV, SNOWFLAKE, Limits(), TRAFFIC, Result(found.schedule, proof))
    assert cache.get(CONV, SNOWFLAKE, Limits(), TRAFFIC) == Result(found.schedule, proof)
