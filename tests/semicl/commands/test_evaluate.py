"""`semicl evaluate` judges a split or any labelled folder."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from semicl.data.phantom import CLASSES, SHAPE
from semicl.data.prepared import Prepared
from semicl.evaluation.measures import read_evaluation
from tests.semicl.conftest import TINY, cut_off, error_of, one_schedule, run_command, write_nifti
from tests.semicl.data.nifti_bytes import alter


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
    assert run_command(*words, "--part", "validation", "--overwrite") == 0
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
        assert run_command(*words, *more, "--overwrite") == 0
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
        assert run_command(*judge, "--checkpoint", checkpoint, "--overwrite") == 0
        assert (line in capsys.readouterr().out) == told


def test_a_folder_with_training_cases_is_judged_with_a_warning(
    tuned: Path, phantom: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--checkpoint", tuned, "--output", tmp_path / "e"]
    assert run_command(*words, "--data", phantom) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: ")]
    trained = len(prepared.split(0).labelled(0.2))  # a random start has seen no other image
    assert line == f"WARNING: by their names, the checkpoint was trained on {trained} of the 20 cases of {phantom}."
    assert run_command(*words, "--prepared", prepared.folder, "--overwrite") == 0
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
    write_nifti(label, np.full(SHAPE, 9, np.uint8))
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
    monkeypatch.setattr("semicl.evaluation.measures.evaluate_cases", lambda *_: 1 / 0)
    words = ["evaluate", "--checkpoint", tuned, "--data", own_phantom, "--output", tmp_path / "o"]
    assert f"{path}: its sform has an axis of length 0" in error_of(capsys, *words)
    assert not (tmp_path / "o").exists()


def _folder(phantom: Path, folder: Path, classes: Mapping[str, int]) -> Path:
    """Two cases of the phantom whose classes have these values in its description and label files."""
    description = json.loads((phantom / "dataset.json").read_text())
    description["training"] = description["training"][:2]
    values = np.array([classes.get(name, 0) for name in CLASSES], np.uint8)
    for case in description["training"]:
        (folder / case["image"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / case["image"]).symlink_to(phantom / case["image"])
        write_nifti(folder / case["label"], values[np.asarray(nibabel.load(phantom / case["label"]).dataobj)])
    names = {value: name for name, value in classes.items()}
    description["labels"] = {str(value): names[value] for value in sorted(names)}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


USUAL = {name: number for number, name in enumerate(CLASSES)}


def _judged(checkpoint: Path, folder: Path, output: Path) -> dict[str, Any]:
    assert run_command("evaluate", "--checkpoint", checkpoint, "--data", folder, "--output", output) == 0
    return dict(json.loads((output / "results.json").read_text()))


def test_classes_are_known_by_name(tuned: Path, phantom: Path, tmp_path: Path) -> None:
    turned = {"background": 0, "paired organ": 1, "large organ": 2, "small organ": 3}
    usual = _judged(tuned, _folder(phantom, tmp_path / "a", USUAL), tmp_path / "o")
    other = _judged(tuned, _folder(phantom, tmp_path / "b", turned), tmp_path / "p")
    assert other["classes"] == usual["classes"] == list(CLASSES[1:])
    assert (other["summary"], other["cases"]) == (usual["summary"], usual["cases"])


def test_names_that_differ_in_capitals_and_space_around_them_are_the_same(
    tuned: Path, phantom: Path, tmp_path: Path
) -> None:
    usual = _judged(tuned, _folder(phantom, tmp_path / "a", USUAL), tmp_path / "o")
    spelled = _folder(phantom, tmp_path / "b", USUAL)
    described = json.loads((spelled / "dataset.json").read_text())
    described["labels"] = {"0": "Background", "1": "Large Organ ", "2": " SMALL organ", "3": "Paired organ"}
    (spelled / "dataset.json").write_text(json.dumps(described))
    other = _judged(tuned, spelled, tmp_path / "p")
    assert other["classes"] == usual["classes"] == list(CLASSES[1:])
    assert other["summary"] == usual["summary"]


def test_a_class_that_no_label_holds_is_left_out_of_the_mean(
    tuned: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = _judged(tuned, _folder(phantom, tmp_path / "a", USUAL), tmp_path / "o")
    unlabelled = _folder(phantom, tmp_path / "b", {"background": 0, "large organ": 1})
    described = json.loads((unlabelled / "dataset.json").read_text())
    described["labels"]["2"] = "small organ"  # but in no label; of the paired organ there is no word
    (unlabelled / "dataset.json").write_text(json.dumps(described))
    capsys.readouterr()
    found = _judged(tuned, unlabelled, tmp_path / "p")
    text = capsys.readouterr().out
    assert text.count("No label holds small organ, paired organ: left out of the means, shown as -.") == 1
    (row,) = [line for line in text.splitlines() if "small organ" in line and "│" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["small organ", "-", "-", "-"]
    for measure in ("dice", "hd95", "surface"):
        assert found["summary"]["small organ"][measure] == {"mean": None, "deviation": None}
        assert found["summary"]["mean"][measure] == found["summary"]["large organ"][measure]
        assert found["summary"]["large organ"][measure] == usual["summary"]["large organ"][measure]
    with (tmp_path / "p" / "cases.csv").open(newline="") as file:
        assert [row["dice"] == "" for row in csv.DictReader(file)] == [False, True, True] * 2
    assert read_evaluation(tmp_path / "p").mean_dice() == found["summary"]["mean"]["dice"]["mean"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"background": 0, "large organ": 1, "liver": 2}, "its label files hold liver, which the checkpoint does not"),
        ({"background": 0, "liver": 1, "spleen": 2}, "has no class of the checkpoint, which knows large organ, small"),
        ({"background": 0, "large organ": 1}, "no label file holds large organ, small organ, paired organ; give"),
    ],
    ids=["one unknown", "all unknown", "none held"],
)
def test_classes_that_do_not_match_are_refused(
    checkpoint: Path,
    phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    classes: dict[str, int],
    message: str,
) -> None:
    folder = _folder(phantom, tmp_path / "a", {name: value for name, value in USUAL.items() if name in classes})
    held = 2 if "liver" in classes else 0
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {str(value): name for name, value in classes.items()}
    (folder / "dataset.json").write_text(json.dumps(description))
    for file in (folder / "labelsTr").iterdir():
        write_nifti(file, np.full(SHAPE, held, np.uint8))
    line = error_of(capsys, "evaluate", "--checkpoint", checkpoint, "--data", folder, "--output", tmp_path / "o")
    assert message in line
    assert not (tmp_path / "o").exists()


def test_results_are_replaced_only_when_that_is_asked_for(
    checkpoint: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(phantom, tmp_path / "a", USUAL)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "results.json").write_text("others")
    words = ["evaluate", "--checkpoint", checkpoint, "--data", folder, "--output", tmp_path / "o"]
    assert "results.json: is there already; give another --output, or --overwrite" in error_of(capsys, *words)
    assert (tmp_path / "o" / "results.json").read_text() == "others"
    assert run_command(*words, "--overwrite") == 0
    words[-1] = checkpoint.parent / "results.json"
    words[-1].symlink_to(checkpoint)
    words[-1] = checkpoint.parent
    assert "results.json: is " in error_of(capsys, *words, "--overwrite")
