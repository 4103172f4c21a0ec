"""Loggers are taken by name, and a stage that is resumed goes on in the same log."""

import csv
import json
import sqlite3
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semicl.data.prepared import Prepared
from semicl.training.stages import Segmentation
from tests.semicl.conftest import TINY, box_of, error_of, one_schedule, run_command


def _words(prepared: Prepared, output: Path, *loggers: str) -> list[Any]:
    words = ["finetune", *TINY, *one_schedule(3), "--label_fraction", 0.2, "--prepared", prepared.folder]
    return [*words, "--output", output, "--logger", *loggers]


def _interrupted(words: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that was interrupted after two of three epochs, as by Ctrl-C."""

    def interrupt(stage: Segmentation) -> None:
        if stage.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "on_train_epoch_start", interrupt)
        assert run_command(*words) == 130


def _rows(output: Path) -> list[tuple[int, str, float]]:
    """Epoch, name and value of everything in the one CSV file."""
    (file,) = (output / "logs").rglob("metrics.csv")
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    names = ("loss", "validation_dice")
    return sorted((int(float(row["epoch"])), name, float(row[name])) for row in rows for name in names if row[name])


def test_a_resumed_stage_goes_on_in_the_same_files(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, words = tmp_path / "whole", _words(prepared, tmp_path / "o", "csv", "tensorboard")
    assert run_command(*_words(prepared, whole, "csv", "tensorboard")) == 0
    _interrupted(words, monkeypatch)
    assert len(_rows(tmp_path / "o")) == 4
    assert run_command(*words, "--resume") == 0
    assert _rows(tmp_path / "o") == _rows(whole)
    assert len(_rows(whole)) == 6
    assert {path.parent.name for path in (tmp_path / "o").rglob("events*")} == {"version_0"}
    assert "will be deleted" not in capsys.readouterr().out
    assert run_command(*words, "--overwrite") == 0
    assert _rows(tmp_path / "o") == _rows(whole)


def test_other_loggers_are_no_other_stage(prepared: Prepared, tmp_path: Path) -> None:
    assert run_command(*_words(prepared, tmp_path / "o")) == 0
    assert list((tmp_path / "o" / "logs").iterdir()) == []
    assert run_command(*_words(prepared, tmp_path / "o", "csv"), "--resume") == 0


def test_a_missing_package_and_an_unknown_name_are_told(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "semicl.training.setup.find_spec", lambda name: None if name == "mlflow" else util.find_spec(name)
    )
    line = error_of(capsys, *_words(prepared, tmp_path / "o", "csv", "mlflow"))
    assert line == "--logger mlflow: mlflow is not installed; pip install mlflow, or give other loggers"
    assert not (tmp_path / "o").exists()
    assert "invalid choice 'tensorbord'" in box_of(capsys, *_words(prepared, tmp_path / "o", "tensorbord"))
    assert "logger: takes each value once" in box_of(capsys, *_words(prepared, tmp_path / "o", "csv", "csv"))


def test_mlflow_goes_on_with_its_run(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    words = _words(prepared, tmp_path / "o", "mlflow")
    _interrupted(words, monkeypatch)
    assert run_command(*words, "--resume") == 0
    (run,) = json.loads((tmp_path / "o" / "logs" / "runs.json").read_text()).values()
    with sqlite3.connect(tmp_path / "o" / "logs" / "mlflow.db") as database:
        assert database.execute("SELECT run_uuid, status FROM runs").fetchall() == [(run, "FINISHED")]
        assert len(database.execute("SELECT value FROM metrics WHERE key = 'loss'").fetchall()) == 3


def test_wandb_goes_on_with_its_run_and_ends_it(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb: SimpleNamespace = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = _words(prepared, tmp_path / "o", "wandb")
    _interrupted(words, monkeypatch)
    assert wandb.run is None
    assert run_command(*words, "--resume") == 0
    assert wandb.run is None
    (run,) = json.loads((tmp_path / "o" / "logs" / "runs.json").read_text()).values()
    files = list((tmp_path / "o" / "logs" / "wandb").rglob("*.wandb"))
    assert {file.name for file in files} == {f"run-{run}.wandb"}
