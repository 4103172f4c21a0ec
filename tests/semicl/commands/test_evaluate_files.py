"""`semicl evaluate --predictions` judges label files of any origin, and tells what is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.semicl.conftest import error_of, run_command, write_nifti


@pytest.fixture
def cases(phantom: Path, tmp_path: Path) -> Path:
    """Two cases of the phantom as plain folders, and one without a label."""
    folder = tmp_path / "cases"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for name in ("phantom_001", "phantom_002", *(["phantom_003"] if kind == "images" else [])):
            shutil.copy(phantom / f"{kind}Tr" / f"{name}.nii.gz", folder / kind)
    return folder


@pytest.fixture
def found(cases: Path, tmp_path: Path) -> Path:
    """Label files of theirs, which are wrong in some places."""
    folder = tmp_path / "found"
    folder.mkdir()
    for file in (cases / "labels").iterdir():
        label = nibabel.load(file)
        array = np.roll(np.asarray(label.dataobj), 1, 0)
        nibabel.save(nibabel.Nifti1Image(array, label.affine, label.header), folder / file.name)
    return folder


def _words(cases: Path, found: Path, *more: Any) -> list[Any]:
    return ["evaluate", "--data", cases, "--predictions", found, "--output", cases.parent / "o", *more]


def _results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text()))


def test_label_files_are_judged_as_predictions_of_a_checkpoint_are(tuned: Path, cases: Path, tmp_path: Path) -> None:
    words = ["predict", "--checkpoint", tuned, "--input", cases / "images", "--output", tmp_path / "p"]
    assert run_command(*words) == 0
    assert run_command("evaluate", "--checkpoint", tuned, "--data", cases, "--output", tmp_path / "c") == 0
    assert run_command(*_words(cases, tmp_path / "p")) == 0
    by_checkpoint, by_files = _results(tmp_path / "c"), _results(tmp_path / "o")
    assert list(by_files["cases"]) == ["phantom_001", "phantom_002"]
    assert by_files["cases"] == by_checkpoint["cases"]
    assert by_files["predictions"] == str(tmp_path / "p")
    assert "checkpoint" not in by_files


def test_true_labels_are_perfect_and_named_classes_are_taken(phantom: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--data", phantom, "--predictions", phantom / "labelsTr", "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    results = _results(tmp_path / "o")
    assert results["classes"] == ["large organ", "small organ", "paired organ"]
    assert results["summary"]["mean"]["dice"]["mean"] == 1
    assert results["summary"]["mean"]["hd95"]["mean"] == 0
    assert (tmp_path / "o" / "cases.csv").is_file()


def test_masks_of_pictures_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, shift in (("d/images", 0), ("d/labels", 0), ("p", 2)):
        (tmp_path / folder).mkdir(parents=True)
        mask = np.zeros((20, 30), np.uint8)
        mask[4:14, 5 + shift : 15 + shift] = 255
        Image.fromarray(mask).save(tmp_path / folder / "a.png")
    assert run_command(*_words(tmp_path / "d", tmp_path / "p")) == 0
    results = _results(tmp_path / "o")
    assert results["summary"]["mean"]["dice"]["mean"] == pytest.approx(0.8)
    assert (results["distances_in"], results["summary"]["mean"]["hd95"]["mean"]) == ("pixels", 2)
    assert "HD95 (pixels)" in capsys.readouterr().out


def test_mmwhs_files_are_matched_by_their_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ct_1_image", "ct_1_label"):
        write_nifti(tmp_path / "d" / f"{name}.nii.gz", np.tile([0, 500, 600], (6, 6, 2)).astype(np.int16))
    for name in ("ct_1", "ct_1_image", "ct_1_label"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(tmp_path / "d" / "ct_1_label.nii.gz", folder / f"{name}.nii.gz")
        assert run_command(*_words(tmp_path / "d", folder), "--overwrite") == 0
        results = _results(tmp_path / "o")
        assert results["summary"]["left ventricle"]["dice"]["mean"] == 1
        assert results["summary"]["aorta"]["dice"]["mean"] is None
    shutil.copy(tmp_path / "ct_1" / "ct_1.nii.gz", folder)
    line = error_of(capsys, *_words(tmp_path / "d", folder), "--overwrite")
    assert "ct_1_label: holds several label files of one case; leave one of each in it" in line


def _rename(found: Path) -> None:
    (found / "phantom_001.nii.gz").rename(found / "other.nii.gz")


def _remove(found: Path) -> None:
    (found / "phantom_002.nii.gz").unlink()


def _move(found: Path) -> None:
    label = nibabel.load(found / "phantom_001.nii.gz")
    array = np.asarray(label.dataobj)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1]), label.header), found / "phantom_001.nii.gz")


def _rewrite(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(found: Path) -> None:
        array = np.asarray(nibabel.load(found / "phantom_001.nii.gz").dataobj)
        write_nifti(found / "phantom_001.nii.gz", change(array))

    return rewrite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename, "other.nii.gz: no case of cases has this name; rename or remove it"),
        (_remove, "found: has no label file of case phantom_002; predict it, or take the case out of --data"),
        (_move, "phantom_001.nii.gz: affine differs from that of "),
        (_rewrite(lambda array: array[:-1]), "phantom_001.nii.gz: shape (59, 64, 20) differs from that of "),
        (
            _rewrite(lambda array: array * 3),
            "holds label 6, known are background (0), class 1 (1), class 2 (2),",
        ),
        (_rewrite(lambda array: array * 0.5), "label 0.5 is not a whole number; give label files, not probabilities"),
        (lambda found: (found / "phantom_001.nii.gz").write_bytes(b""), "phantom_001.nii.gz: not readable as NIfTI"),
        (shutil.rmtree, "found: no such folder; give --predictions a folder of label files"),
    ],
    ids=["extra", "missing", "moved", "shape", "values", "fractions", "damaged", "no folder"],
)
def test_what_cannot_be_judged_is_told(
    cases: Path, found: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], message: str
) -> None:
    change(found)
    line = error_of(capsys, *_words(cases, found))
    assert message in line
    assert not (cases.parent / "o").exists()


def test_options_that_do_not_go_together_are_told(cases: Path, found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = _words(cases, found)
    assert "--checkpoint has no effect beside --predictions" in error_of(
        capsys, *words, "--checkpoint", "model.ckpt", code=2
    )
    assert "--split has no effect beside --predictions" in error_of(capsys, *words, "--split", 0, code=2)
    assert "--data is missing" in error_of(capsys, "evaluate", "--predictions", found, code=2)
    assert "--checkpoint is missing; give a model.ckpt, or --predictions" in error_of(capsys, "evaluate", code=2)
    words[-1] = found
    assert "which is read" in error_of(capsys, *words)


def test_cases_without_a_label_are_left_out_and_told(
    cases: Path, found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(found / "phantom_001.nii.gz", found / "phantom_003.nii.gz")
    assert run_command(*_words(cases, found)) == 0
    text = capsys.readouterr().out
    assert "1 of 3 predictions are of cases without a label, and left out." in text
    assert "Next:" not in text
    assert 0 < _results(cases.parent / "o")["summary"]["mean"]["dice"]["mean"] < 1
