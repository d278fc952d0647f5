"""What the documents say is so: the published schedule is replayed, files and links exist, examples are accepted."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dnnc
import published_schedule as example
from dnnc import constraints
from dnnc_runtime import machine
from figures import BIASES, GOLDEN, MEMORIES, TOGETHER
from free_norms import without_norms
from graphs import Builder

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("compiler/dnnc", "runtime/dnnc_runtime", "models", "tests")


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a document that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.M | re.S)


# -- models -----------------------------------------------------------------------------------------------------------


def test_norms_that_nothing_folds_are_taken_out() -> None:
    """By hand: layer by layer a norm reads and writes its 4x6x6 words, and has a scale and a shift for each channel."""
    made = Builder(1, 4, 6, 0)
    model = made.model(made.conv(made.norm(made.input), 8, 3))
    moved = [
        dnnc.compile(some, "two-buffer", plan="layerwise").plan.totals.dram_bytes
        for some in (model, without_norms(model))
    ]
    assert moved[0] - moved[1] == 2 * (2 * 4 * 6 * 6 + 2 * 4)


# -- the published schedule -------------------------------------------------------------------------------------------


def test_the_published_schedule_is_replayed_and_beaten() -> None:
    """In KiB; maps are input, halo read again, and output. Weights of conv2 to conv5 come once for each tile of maps.

    conv1: 21 rows of 224x3 words that two units need. conv2: tiles of 12, 12 and 11 rows of 27x64 words: of 27, 8 come
    again. conv3 to conv5: 6, 6 and 5 of 13 rows, so that 4 come again.
    """
    model = example.convolutions()
    replayed, free = example.traffic(model, example.CONSTRAINTS), example.traffic(model)
    assert {name: (found.weights, found.maps) for name, found in replayed.items()} == {
        "conv1": (45.375, 294 + 27.5625 + 378.125),
        "conv2": (3 * 600, 91.125 + 27 + 63.375),
        "conv3": (3 * 1296, 63.375 + 19.5 + 126.75),
        "conv4": (3 * 1728, 126.75 + 39 + 84.5),
        "conv5": (3 * 1152, 84.5 + 26 + 18),
    }
    assert all(example.agrees(name, found) for name, found in replayed.items())
    assert sum(found.total for found in free.values()) == 5_864.875
    lines = example.report(replayed, free)
    assert sum(line.endswith("agrees") for line in lines) == 5


def test_without_moves_between_units_little_more_is_moved(tmp_path: Path) -> None:
    """Rows that two units need are then loaded by both. At most 6,002.875 KiB are wanted of such a machine.

    conv1, conv4 and conv5 find schedules in which no unit needs another's rows, as conv3 does for 21 KiB of maps that
    are read again. conv2 stays in rows: 5x5 kernels share 4 rows of 27x64 words at each of three edges, 40.5 KiB.
    """
    rules = tmp_path / "reload.toml"
    rules.write_text('[all]\nhalo = { units = "reload" }\n')
    model = example.convolutions()
    loaded, free = example.traffic(model, rules), example.traffic(model)
    more = {name: loaded[name].maps - free[name].maps for name in free}
    assert more == {"conv1": 0, "conv2": 12 * 27 * 64 * 2 / 1024, "conv3": 21, "conv4": 0, "conv5": 0}
    assert all(loaded[name].weights == free[name].weights for name in free)
    assert sum(found.total for found in loaded.values()) == 5_926.375 < 6_002.875


# -- documents --------------------------------------------------------------------------------------------------------


def mapped() -> Iterator[Path]:
    """The files that the code map lists."""
    sections = re.split(r"^### (\S+)$", text("CONTRIBUTING.md"), flags=re.M)
    for folder, section in zip(sections[1::2], sections[2::2], strict=True):
        listing = re.split(r"^## ", section, flags=re.M)[0]
        for names in re.findall(r"^- (`[^:]*`):", listing, re.M):
            yield from (ROOT / folder / name for name in re.findall(r"`([^`]+)`", names))


def test_the_code_map_has_every_file_once() -> None:
    listed = sorted(mapped())
    assert [path for path in listed if not path.is_file()] == []
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in listed if path.suffix == ".py"] == sorted(sources)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_resolves(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = document.parent / name if name else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_the_readme_has_two_commands() -> None:
    """The first uses dnnc, the second passes the tests; continuous integration runs both as they stand."""
    commands = re.findall(r"^ *(python3 -m venv .*)$", text("README.md"), re.M)
    assert [command.split()[-1] for command in commands] == ["resnet50.dnnc", "2"]
    assert all("&&" in command for command in commands)


def table(heading: str) -> list[list[str]]:
    """The cells of the README's table with this heading, row by row."""
    _, _, rest = text("README.md").partition(f"\n{heading}\n")
    lines = rest.splitlines()[1:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_readme_has_the_figures_that_are_held() -> None:
    names = {"AlexNetOWT": "alexnet", "GoogLeNet": "googlenet", "ResNet-50": "resnet50", "VGG-16": "vgg16"}
    names |= {"SqueezeNet 1.1": "squeezenet", "MobileNetV2": "mobilenetv2"}
    rows = table("| network | target | layerwise | resident | fused | ms before | ms now |")
    shown = {(names[name], target): found[:3] for name, target, *found in rows}
    assert {name for name, _ in shown} == {*names.values()}
    for number, target in enumerate(("snowflake", "two-buffer")):
        for name in names.values():
            moved = [GOLDEN[name][number], *TOGETHER.get(name, ((), ()))[number]]
            assert shown[name, target][: len(moved)] == [f"{n / 1e6:.3f}" for n in moved], (name, target)

    rows = table("| maps + weights | sums | layerwise | resident | fused |")
    assert {(size, bits): moved for size, bits, *moved in rows} == {
        (f"{maps} + {weights} KiB", f"{bits} bit"): [f"{(n - BIASES) / 1e6:.3f}" for n in moved]
        for (maps, weights, bits), moved in MEMORIES.items()
    }

    rows = table("| network | target | DRAM MB | x compulsory | layers | by lower bound | by CP-SAT | host MB |")
    for name, target, alone, *_ in rows:
        known = GOLDEN[names.get(name, name.lower().replace("-", ""))]
        assert alone == f"{known[target == 'two-buffer'] / 1e6:.3f}", (name, target)


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the smallest network, which is not the one that it names."""
    import onnx

    from zoo import NETWORKS

    monkeypatch.chdir(tmp_path)
    onnx.save(NETWORKS["conv13x13"](), "resnet50.onnx")
    for block in blocks("README.md", "python"):
        exec(block, {})
    assert (tmp_path / "resnet50.dnnc").is_file()


def test_the_documents_examples_are_accepted() -> None:
    (asked,) = blocks("docs/constraints.md", "toml")
    assert [rule.patterns for rule in constraints.loads(asked, "constraints.md").rules] == [
        None,
        ("conv2", "layer[34].*"),
        ("conv5",),
    ]
    (described,) = blocks("docs/machine-file.md", "toml")
    assert machine.loads(described, "machine-file.md").name == "one-buffer"


def test_the_machine_page_names_every_key() -> None:
    page = text("docs/machine-file.md")
    for name in machine.shipped():
        content = tomllib.loads(text(f"runtime/dnnc_runtime/targets/{name}.toml"))
        for table, keys in content.items():
            for key in keys if isinstance(keys, dict) else ():
                assert f"`{key}`" in page or f"`{table}.{key}`" in page, key
