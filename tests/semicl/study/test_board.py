"""The board says how far each cell is, from what lies in the folders."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from semicl.data.prepared import Prepared
from semicl.evaluation.evaluate import CASES
from semicl.files import write_json
from semicl.options import GlobalContrastOptions, MethodOptions, SegmentationOptions, StudyOptions
from semicl.study.board import Board, cells_table, state
from semicl.study.plan import Cell, plan
from semicl.study.runner import Progress
from tests.semicl.study.test_plan import EXPERIMENT

STAGES: dict[str, Any] = {"pretrain_global": GlobalContrastOptions(), "finetune": SegmentationOptions()}
ALIVE: Any = SimpleNamespace()


@pytest.fixture
def cell(prepared: Prepared, tmp_path: Path) -> Cell:
    methods = {"global": MethodOptions(("pretrain_global",))}
    (cell,) = plan(prepared, EXPERIMENT, StudyOptions(tmp_path, methods, (0.2,)), STAGES)
    return cell


def _finish(folder: Path, **summary: Any) -> None:
    write_json(folder / "summary.json", summary)
    (folder / "model.ckpt").touch()


def test_a_cell_from_its_first_stage_to_its_dice(cell: Cell) -> None:
    progress = Progress()
    first, second = cell.training
    (test,) = cell.tests
    assert state(cell, progress) == "waiting"
    progress.running[first.folder] = ALIVE
    assert state(cell, progress) == "global"
    write_json(first.folder / "progress.json", {"epoch": 2, "epochs": 70, "validation_dice": None})
    assert state(cell, progress) == "global 2/70"
    _finish(first.folder)
    del progress.running[first.folder]
    assert state(cell, progress) == "waiting"
    progress.running[second.folder] = ALIVE
    write_json(second.folder / "progress.json", {"epoch": 3, "epochs": 12, "validation_dice": 0.5})
    assert state(cell, progress) == "tune 3/12, validation 0.500"
    _finish(second.folder, **{"best validation Dice": 0.6})
    del progress.running[second.folder]
    assert state(cell, progress) == "trained, validation 0.600"
    progress.running[test.folder] = ALIVE
    assert state(cell, progress) == "test"
    case = {"dice": [0.7], "hd95": [1.0], "surface": [1.0]}
    test.folder.mkdir()
    found = {"classes": ["front"], "cases": {"a": case}, "depends_on": {CASES: test.cases}}
    (test.folder / "results.json").write_text(json.dumps(found))
    assert state(cell, progress) == "done, Dice 0.700"


def test_a_cell_whose_first_stage_failed_has_failed(cell: Cell) -> None:
    assert state(cell, Progress(failed={cell.training[0].folder: "no memory"})) == "failed"


def test_the_table_has_a_row_a_method_and_fraction_and_a_column_a_split(prepared: Prepared, tmp_path: Path) -> None:
    methods = {"random": MethodOptions(), "global": MethodOptions(("pretrain_global",))}
    cells = plan(prepared, EXPERIMENT, StudyOptions(tmp_path, methods, (0.2, 0.4), (0, 1)), STAGES)
    failed = next(cell for cell in cells if (cell.method, cell.label_fraction, cell.split) == ("global", 0.4, 1))
    console = Console(width=100, file=io.StringIO())
    console.print(cells_table(cells, Progress(failed={failed.tunings[0].folder: "no memory"})))
    assert isinstance(console.file, io.StringIO)
    rows = [line.replace("│", " ").split() for line in console.file.getvalue().splitlines()]
    for row in (
        ["random", "20", "%", "waiting", "waiting"],
        ["random", "40", "%", "waiting", "waiting"],
        ["global", "20", "%", "waiting", "waiting"],
        ["global", "40", "%", "waiting", "failed"],
    ):
        assert row in rows


def test_on_a_terminal_the_table_lives(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("semicl.study.board.screen", lambda: console)
    progress = Progress()
    with Board([cell], progress) as board:
        progress.failed[cell.training[0].folder] = "no memory"
        board.look()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "waiting" in text
    assert text.rstrip().count("failed") >= 1
    assert "FAILED, no memory" in text


def test_what_ended_is_told_once(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with Board([cell], progress) as board:
        board.look()
        assert capsys.readouterr().out == ""
        _finish(cell.training[0].folder)
        progress.failed[cell.training[1].folder] = "no memory"
        board.look()
        board.look()
    text = capsys.readouterr().out
    assert text.splitlines() == [
        f"{cell.training[0].folder}: done",
        f"{cell.training[1].folder}: FAILED, no memory",
    ]
