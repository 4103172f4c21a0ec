"""The code of README and guide runs as it stands, and what they name is there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from torch import distributed

from benchmarks.sizes import readme

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/loss.md"])
@pytest.mark.usefixtures("process_group")
def test_every_python_example_runs(page: str) -> None:
    """One after the other: later ones go on from earlier ones."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, page, "exec"), names)
        assert names["loss"].isfinite()
        assert names["loss"] > 0
    assert names["images" if page == "docs/loss.md" else "features"].grad.abs().sum() > 0
    if page == "README.md":
        assert names["log_temperature"].grad.abs() > 0
        assert isinstance(names["z"], torch.Tensor)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_it_names_exists(page: Path) -> None:
    text = page.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    for name in linked:
        assert (page.parent / name).exists(), name
    named = re.findall(r"`((?:benchmarks|csrc|docs|examples|semicl|semicl_kernels|tests)/[\w./]*)`", text)
    for name in named:
        assert (ROOT / name).exists(), name


def _texts(picture: Path) -> list[str]:
    """What a picture says, and what it tells of itself."""
    elements = ElementTree.parse(picture).iter()
    return sorted(each.text or "" for each in elements if each.tag.endswith(("text", "description")))


def test_the_pictures_are_those_of_the_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn anew they hold the same words and numbers, and tell the same source."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import pictures

    pictures.main(tmp_path)
    for name in ("speed.svg", "pairs.svg"):
        drawn, kept = (_texts(folder / name) for folder in (tmp_path, ROOT / "docs" / "images"))
        assert drawn == kept != []


def test_its_times_are_those_of_the_committed_results() -> None:
    table = readme(json.loads((ROOT / "benchmarks" / "results" / "sizes" / "result.json").read_text()))
    for page in ("README.md", "docs/benchmarks.md"):
        assert f"\n{table}\n" in (ROOT / page).read_text()


def test_its_dice_is_that_of_the_study() -> None:
    rows = re.findall(r"^\| .* ± .*\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 5
    study = (ROOT / "docs" / "study.md").read_text()
    heading, *_ = re.findall(r"^\| mean test Dice, .*\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [each for each in (heading, *rows) if f"{each}\n" not in study] == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert str(citation["version"]) == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
