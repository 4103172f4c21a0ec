"""What a search writes says what failed."""

import json
from dataclasses import replace
from pathlib import Path

from semicl.options import ExperimentOptions, NetworkOptions
from semicl.study.candidates import markdown, trained, write_search
from semicl.study.plan import Cell, Job
from semicl.training.folder import StageFolder

EXPERIMENT = ExperimentOptions(network=NetworkOptions((4, 8), None))


def _cell(folder: Path, method: str, split: int, dice: float | None) -> Cell:
    """A cell of one fine-tuning, which reached this, or which is not finished."""
    stage = StageFolder(folder / f"{method}-{split}")
    stage.path.mkdir()
    config = {"schedule": {"epochs": 7, "learning_rate": 1e-3}, "validation_volumes": 3}
    if dice is not None:
        stage.model.touch()
        stage.finish({"best validation Dice": dice, "commit": "c0ffee", "date": "2026-01-01", "machine": "mine"})
    tune = Job("finetune", stage.path, config, (), None, "0" * 8)
    return Cell(method, 0.05, split, (), (tune,), ())


def test_a_row_a_method_and_a_column_a_split(tmp_path: Path) -> None:
    dice = {"random": (0.5, 0.7), "ours": (0.8, None), "other": (None, None)}
    cells = [_cell(tmp_path, name, split, value) for name, found in dice.items() for split, value in enumerate(found)]
    text = markdown("heads", EXPERIMENT, cells, trained(cells))
    assert "| random | 5 % | 0.500 | 0.700 | 0.600 |" in text
    assert "| ours | 5 % | 0.800 | failed | (0.800) |" in text
    assert "| other | 5 % | failed | failed | failed |" in text
    assert "- 5 %: best is random (0.600)." in text
    assert "of split 0, 1, at most 3 volumes each. Network 4-8, " in text
    assert "Machine: mine. Date: 2026-01-01. Commit: c0ffee. No network was judged on a test volume." in text


def test_test_images_that_pre_training_saw_are_told(tmp_path: Path) -> None:
    random = _cell(tmp_path, "random", 0, 0.5)
    schedule = {"schedule": {"epochs": 7, "learning_rate": 1e-3}}
    (without, labelled) = (
        replace(random, pretraining=(Job("pretrain", tmp_path / "none", schedule | more, (), None, "1" * 8),))
        for more in ({}, {"label_fraction": 0.05})
    )
    transductive = replace(EXPERIMENT, transductive=True)
    for experiment, cell, told in (
        (EXPERIMENT, without, False),
        (transductive, without, True),
        (transductive, labelled, False),
        (transductive, random, False),
    ):
        assert ("TRANSDUCTIVE: pre-training saw" in markdown("heads", experiment, [cell], [])) == told


def test_the_best_is_the_best_over_the_same_splits(tmp_path: Path) -> None:
    dice = {"a": (0.6, 0.7), "b": (0.9, None), "c": (0.6, 0.8)}
    cells = [_cell(tmp_path, name, split, value) for name, found in dice.items() for split, value in enumerate(found)]
    assert "- 5 %: best is c (0.700)." in markdown("heads", EXPERIMENT, cells, trained(cells))


def test_a_search_where_all_failed_is_written(tmp_path: Path) -> None:
    cells = [_cell(tmp_path, "random", 0, None)]
    write_search(tmp_path, "heads", EXPERIMENT, cells, trained(cells), {cells[0].title: "no memory"})
    text = (tmp_path / "search.md").read_text()
    assert "| random | 5 % | failed | failed |" in text
    assert "best is" not in text
    assert "Machine" not in text
    assert json.loads((tmp_path / "search.json").read_text())["failed"] == {cells[0].title: "no memory"}
