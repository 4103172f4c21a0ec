"""`semicl table` from the command line: to its end, again, killed, with other options, with a cell that fails."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semicl.data.prepared import Prepared, read_prepared
from tests.semicl.conftest import REPOSITORY, error_of, run_command, same_weights
from tests.semicl.study.conftest import CONFIG, Words


def _one(study: Path, pattern: str) -> Path:
    (found,) = study.glob(pattern)
    return found


def _models(study: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in study.rglob("model.ckpt")}


def test_every_cell_is_trained_and_judged(study: Path, prepared: Prepared) -> None:
    tuned = {path.name.rsplit("-", 1)[0] for path in (study / "split-0" / "labels-0.34").iterdir()}
    assert tuned == {"finetune-random", "finetune-global"}
    assert len(list((study / "split-0" / "no-labels").iterdir())) == 1
    content = json.loads((study / "table.json").read_text())
    assert [(cell["method"], cell["label_fraction"]) for cell in content["cells"]] == [
        ("random", 0.34),
        ("global", 0.34),
    ]
    assert content["failed"] == {}
    for cell in content["cells"]:
        (split,) = cell["splits"]
        assert split["test_volumes"] == len(prepared.split(0).test)
        judged = json.loads(_one(study, f"split-0/labels-0.34/*-{split['config']}/test/results.json").read_text())
        assert cell["dice"] == {"mean": judged["summary"]["mean"]["dice"]["mean"], "deviation": None}
        for name in judged["classes"]:
            for measure in ("dice", "hd95"):
                measured = cell["classes"][name][measure]["mean"]
                assert measured == pytest.approx(judged["summary"][name][measure]["mean"], abs=2e-4)
        last = json.loads(_one(study, f"split-0/labels-0.34/*-{split['config']}/test-last/results.json").read_text())
        assert last["checkpoint"].endswith("model-last.ckpt")
        assert cell["dice_last_epoch"] == {"mean": last["summary"]["mean"]["dice"]["mean"], "deviation": None}
        assert [stage["command"] for stage in split["stages"]][-1] == "finetune"
        assert split["seconds"] == pytest.approx(sum(stage["seconds"] for stage in split["stages"]), abs=0.1)
        assert 50 < split["peak memory (MiB)"] < 20000
        assert cell["commit"] != []


def test_the_tables_hold_the_same_numbers(study: Path) -> None:
    cells = json.loads((study / "table.json").read_text())["cells"]
    with (study / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    text = (study / "table.md").read_text()
    assert "| test Dice | 34 % |" in text
    for cell, line in zip(cells, lines, strict=True):
        assert line["method"] == cell["method"]
        assert float(line["mean dice mean"]) == cell["dice"]["mean"]
        assert f"| {cell['method']} | {cell['dice']['mean']:.3f} |" in text
        assert f"| {cell['method']} | {cell['dice_last_epoch']['mean']:.3f} |" in text
        for title in ("test Dice", "test Dice, last epoch"):
            difference = cell["differences"][title]
            assert (difference is None) == (cell["method"] == "random")
            if difference is not None:
                assert float(line[f"{title}, difference mean"]) == difference["mean"]
                assert difference["low"] <= difference["mean"] <= difference["high"]
                assert difference["subjects"] == 2  # of four volumes
                assert f"| {cell['method']} | {difference['mean']:+.3f} [{difference['low']:+.3f}, " in text
    for figure in ("dice.png", "validation.png"):
        assert (study / figure).read_bytes().endswith(b"IEND\xaeB`\x82")
    for word in ("epochs 8 (finetune), 1 (pretrain-global)", "Network 4-6-8", "split", "Machine: ", "Commit: "):
        assert word in text


def test_a_second_call_does_nothing(study: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    before = _models(study)
    assert run_command(*words(study)) == 0
    assert "2 cells, 0 stages to train" in capsys.readouterr().out
    assert _models(study) == before


def test_a_changed_option_trains_anew_and_keeps_what_it_does_not_touch(
    study: Path, words: Words, tmp_path: Path
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    before = _models(copy)
    finetune = CONFIG["finetune"] | {"schedule": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}}
    assert run_command(*words(copy, finetune=finetune)) == 0
    after = _models(copy)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name.rsplit("-", 1)[0] for path in after.keys() - before.keys()} == {
        "finetune-random",
        "finetune-global",
    }
    assert "epochs 1 (finetune)" in (copy / "table.md").read_text()


def _until(condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_killed_study_goes_on_to_the_same_weights(study: Path, words: Words, tmp_path: Path) -> None:
    output = tmp_path / "study"
    process = subprocess.Popen(
        [sys.executable, "-m", "semicl", *map(str, words(output)), "--jobs", "1"],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _until(lambda: list(output.glob("split-0/labels-0.34/finetune-*/progress.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = (path.parent for path in output.glob("split-0/labels-0.34/finetune-*/progress.json"))
    assert not (folder / "summary.json").exists()
    # A worker that outlived the study would go on writing.
    time.sleep(0.3)
    epoch = (folder / "progress.json").read_text()
    time.sleep(0.3)
    assert (folder / "progress.json").read_text() == epoch
    assert run_command(*words(output)) == 0
    models = {path.relative_to(study) for path in _models(study)}
    assert {path.relative_to(output) for path in _models(output)} == models
    assert all(same_weights(study / model, output / model) for model in models)


def test_a_failing_cell_is_named_and_the_others_go_on(
    own_prepared: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image without labels is damaged: global contrast needs it, the random start does not."""
    split = read_prepared(own_prepared).split(0)
    (unlabelled, *_) = set(split.training) - set(split.labelled(0.34))
    image = own_prepared / "cache" / f"{unlabelled.name}.image.npy"
    content = image.read_bytes()
    image.write_bytes(b"damaged")
    finetune = CONFIG["finetune"] | {"schedule": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}}
    command = words(tmp_path / "o", prepared=own_prepared, finetune=finetune)
    line = error_of(capsys, *command)
    assert "1 of 2 cells failed (global, 0.34 of the labels, split 0: " in line
    assert f"{image}: not readable" in line
    table = json.loads((tmp_path / "o" / "table.json").read_text())
    assert [cell["method"] for cell in table["cells"]] == ["random"]
    assert list(table["failed"]) == ["global, 0.34 of the labels, split 0"]
    assert "| global | failed |" in (tmp_path / "o" / "table.md").read_text()
    image.write_bytes(content)
    assert run_command(*command) == 0
    assert "failed" not in (tmp_path / "o" / "table.md").read_text()
