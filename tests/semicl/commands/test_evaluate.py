"""`semicl evaluate` judges a split or any labelled folder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from semicl.prepared import Prepared
from tests.semicl.conftest import TINY, cut_off, error_of, one_schedule, run_command, write_nifti
from tests.semicl.nifti_bytes import alter


def test_a_split(tuned: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--checkpoint", tuned, "--prepared", prepared.folder, "--output", tmp_path / "e"]
    assert run_command(*words) == 0
    content = json.loads((tmp_path / "e" / "results.json").read_text())
    assert list(content["cases"]) == [case.name for case in prepared.split(0).test]
    with (tmp_path / "e" / "cases.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * len(prepared.split(0).test)
    text = capsys.readouterr().out
    for word in ("large organ", "HD95 (mm)", "ASD (mm)", "±", "Next: semicl predict"):
        assert word in text
    assert run_command(*words, "--part", "validation") == 0
    content = json.loads((tmp_path / "e" / "results.json").read_text())
    assert list(content["cases"]) == [case.name for case in prepared.split(0).validation]


def test_the_split_is_that_of_the_checkpoint(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *one_schedule(), "--label_fraction", "0.2", "--prepared", prepared.folder, "--split", "1"]
    assert run_command("finetune", *words, "--output", tmp_path / "o") == 0
    words = ["evaluate", "--checkpoint", tmp_path / "o" / "model.ckpt", "--prepared", prepared.folder]
    words += ["--output", tmp_path / "e"]
    line = error_of(capsys, *words, "--split", "0")
    assert "was trained on split 1 of Phantom" in line
    assert f"split 0 of {prepared.folder}" in line
    assert not (tmp_path / "e").exists()
    assert run_command(*words) == 0
    content = json.loads((tmp_path / "e" / "results.json").read_text())
    assert list(content["cases"]) == [case.name for case in prepared.split(1).test]


def test_a_split_that_was_edited_is_refused(
    tuned: Path, own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", tuned, "--prepared", own_prepared, "--output", tmp_path / "e"]
    path = own_prepared / "splits" / "0.json"
    content = json.loads(path.read_text())
    subject, names = content["training"].popitem()
    content["test"][subject] = names
    path.write_text(json.dumps(content))
    assert "it may have seen what is held out" in error_of(capsys, *words)


def test_a_checkpoint_that_tells_not_what_it_saw_is_judged(
    checkpoint: Path, prepared: Prepared, tmp_path: Path
) -> None:
    words = ["evaluate", "--checkpoint", checkpoint, "--prepared", prepared.folder, "--output", tmp_path / "e"]
    for more, split in (((), 0), (("--split", 1), 1)):
        assert run_command(*words, *more) == 0
        content = json.loads((tmp_path / "e" / "results.json").read_text())
        assert list(content["cases"]) == [case.name for case in prepared.split(split).test]


def test_transductive_pre_training_is_told_after_fine_tuning(
    tuned: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--prepared", prepared.folder]
    stage = [*TINY, *data, "--schedule.epochs", 1]
    assert run_command("pretrain-global", *stage, "--transductive", "--output", tmp_path / "g") == 0
    start = ["--start", tmp_path / "g" / "model.ckpt", "--label_fraction", 0.2]
    assert run_command("finetune", *stage, *start, "--output", tmp_path / "t") == 0
    judge = ["evaluate", *data, "--output", tmp_path / "e"]
    tests = len(prepared.split(0).test)
    line = f"TRANSDUCTIVE: pre-training saw the images, not the labels, of {tests} of the {tests} cases."
    for checkpoint, told in ((tmp_path / "t" / "model.ckpt", True), (tuned, False)):
        capsys.readouterr()
        assert run_command(*judge, "--checkpoint", checkpoint) == 0
        assert (line in capsys.readouterr().out) == told


def test_a_folder_with_training_cases_is_judged_with_a_warning(
    tuned: Path, phantom: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", tuned, "--output", tmp_path / "e"]
    assert run_command(*words, "--data", phantom) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: ")]
    trained = len(prepared.split(0).training)
    assert line == f"WARNING: by their names, the checkpoint was trained on {trained} of the 20 cases of {phantom}."
    assert run_command(*words, "--prepared", prepared.folder) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_any_labelled_folder(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = np.zeros((20, 44, 7), np.uint8)
    label[5:9, 5:9, 2:4] = 2
    for name in ("a", "b"):
        write_nifti(tmp_path / "f" / "images" / f"{name}.nii.gz", np.random.default_rng(0).random(label.shape))
    write_nifti(tmp_path / "f" / "labels" / "b.nii.gz", label)
    words = ["evaluate", "--checkpoint", tuned, "--data", tmp_path / "f", "--output", tmp_path / "e"]
    assert run_command(*words) == 0
    content = json.loads((tmp_path / "e" / "results.json").read_text())
    assert list(content["cases"]) == ["b"]
    assert "WARNING" not in capsys.readouterr().out


def test_unusable_files_are_one_line_and_nothing_is_written(
    tuned: Path, own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", tuned, "--data", own_phantom, "--output", tmp_path / "e"]
    label = own_phantom / "labelsTr" / "phantom_020.nii.gz"
    write_nifti(label, np.full((44, 52, 20), 9, np.uint8))
    assert f"{label}: label 9 is unknown, known are 0, 1, 2, 3" in error_of(capsys, *words)
    cut_off(label)
    assert f"{label}: not readable" in error_of(capsys, *words)
    assert not (tmp_path / "e").exists()


def test_unusable_checkpoints_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    assert "broken.ckpt: not readable" in error_of(capsys, "evaluate", "--checkpoint", tmp_path / "broken.ckpt")


def test_every_case_is_checked_before_the_first_is_judged(
    tuned: Path, own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_phantom / "imagesTr" / "phantom_020.nii.gz"
    alter(path, srow_x=[0, 0, 0, 0], qform_code=0)
    monkeypatch.setattr("semicl.commands.evaluate.evaluate_cases", lambda *_: 1 / 0)
    words = ["evaluate", "--checkpoint", tuned, "--data", own_phantom, "--output", tmp_path / "o"]
    assert f"{path}: its sform has an axis of length 0" in error_of(capsys, *words)
    assert not (tmp_path / "o").exists()
