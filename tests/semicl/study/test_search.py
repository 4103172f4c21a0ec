"""`semicl search` from the command line: every cell judged on validation volumes, no test volume opened."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semicl.data.file_states import file_states
from semicl.data.prepare import prepare
from semicl.options import PrepareOptions, SourceOptions
from tests.semicl.conftest import PATCH_SIZE, run_command
from tests.semicl.study.conftest import Words


@pytest.fixture(scope="session")
def places(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data folder, and what was prepared of it; since then, no test volume can be read."""
    folder = tmp_path_factory.mktemp("damaged")
    places = {"data": shutil.copytree(phantom, folder / "phantom"), "prepared": folder / "prepared"}
    source = SourceOptions(str(places["data"]), places["prepared"])
    prepared = prepare(source, PrepareOptions(patch_size=PATCH_SIZE, resize=True, repeats=2))
    for case in prepared.split(0).test:
        for file in folder.rglob(f"{case.name}.*"):
            file.write_bytes(b"damaged")
    # As if they had always been so: files that changed would be prepared again.
    files = file_states([prepared.source / place for place in prepared.states], prepared.source)
    replace(prepared, states=files).write_description()
    return places


@pytest.fixture(scope="session")
def found(places: dict[str, Path], words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search, not to be changed."""
    output = tmp_path_factory.mktemp("searches") / "whole"
    command = words(output, **places, learning_rates=[1e-4, 1e-3])
    assert run_command("search", *command[1:]) == 0
    return output


def test_every_cell_is_judged_on_validation_volumes(found: Path) -> None:
    content = json.loads((found / "search.json").read_text())
    assert [cell["method"] for cell in content["cells"]] == ["random", "global"]
    assert content["failed"] == {}
    for cell in content["cells"]:
        (split,) = cell["splits"]
        best = [tried["best validation Dice"] for tried in split["learning_rates"]]
        assert cell["validation_dice"] == {"mean": max(best), "deviation": None}
        for tried in split["learning_rates"]:
            (summary,) = found.glob(f"split-0/labels-0.34/*-{tried['config']}/summary.json")
            assert json.loads(summary.read_text())["best validation Dice"] == tried["best validation Dice"]
        assert [stage["command"] for stage in split["stages"]][-1] == "finetune"


def test_the_text_holds_the_same_numbers(found: Path) -> None:
    cells = json.loads((found / "search.json").read_text())["cells"]
    text = (found / "search.md").read_text()
    assert "| validation Dice | labels | split 0 | mean |" in text
    dice = {cell["method"]: f"{cell['validation_dice']['mean']:.3f}" for cell in cells}
    for method, value in dice.items():
        assert f"| {method} | 34 % | {value} | {value} |" in text
    best = max(cells, key=lambda cell: cell["validation_dice"]["mean"])["method"]
    assert f"- 34 %: best is {best} ({dice[best]})." in text
    for words in (
        "of split 0, at most 2 volumes each. Network 4-6-8",
        "learning rate of fine-tuning 0.0001, 0.001, of which",
        "No network was judged",
    ):
        assert words in text


def test_a_study_goes_on_from_a_search_to_the_test_volumes(
    found: Path, places: dict[str, Path], words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(found.rglob("results.json"))
    shutil.copytree(found, tmp_path / "s")
    assert run_command(*words(tmp_path / "s", **places, learning_rates=[1e-4, 1e-3])) == 1
    told = capsys.readouterr()
    assert "2 cells, 0 stages to train" in told.out
    assert "not readable" in told.err  # which shows that the search did without them
