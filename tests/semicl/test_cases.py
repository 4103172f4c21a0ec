"""Cases are found and grouped by subject, and damage is named before training."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.cases import Case, check_case, find_cases, subject_of
from semicl.errors import SemiclError
from tests.semicl.conftest import cut_off, write_case


@pytest.mark.parametrize(
    ("name", "same_as"), [("hippocampus_003", "hippocampus_004"), ("hippocampus_367", "hippocampus_368")]
)
def test_an_odd_case_and_the_next_are_one_subject(name: str, same_as: str) -> None:
    assert subject_of(name) == subject_of(same_as)


@pytest.mark.parametrize(("name", "other"), [("hippocampus_004", "hippocampus_005"), ("left", "right")])
def test_other_cases_are_other_subjects(name: str, other: str) -> None:
    assert subject_of(name) != subject_of(other)


def test_real_cases(hippocampus: Path) -> None:
    folder = find_cases(hippocampus)
    assert folder.classes == ("background", "Anterior", "Posterior")
    assert len(folder.cases) == 200
    assert len({case.subject for case in folder.cases}) == 132
    check_case(folder.cases[0], len(folder.classes))


def _description(**changes: object) -> str:
    whole = {"labels": {"0": "background", "1": "organ"}, "training": [{"image": "i.nii.gz", "label": "l.nii.gz"}]}
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a Decathlon description"),
        (json.dumps({"labels": {"0": "background", "1": "organ"}}), "'training'"),
        (json.dumps([1, 2]), "not a Decathlon description"),
        (_description(labels={"background": "0"}), "not a Decathlon description"),
        (_description(labels={"0": "background", "7": "organ"}), r"labels must be 0 .* found \[0, 7\]"),
        (_description(training=["i.nii.gz"]), "not a Decathlon description"),
        (_description(training=[]), "lists no training case"),
    ],
)
def test_an_unusable_description_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(SemiclError, match=message) as caught:
        find_cases(tmp_path)
    assert str(tmp_path / "dataset.json") in str(caught.value)


def test_a_missing_folder_or_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"nowhere: no such folder; give --data"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(SemiclError, match=r"dataset\.json: no such file"):
        find_cases(tmp_path)


IMAGE = np.linspace(0, 1, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
LABEL = (IMAGE > 0.5).astype(np.uint8)


def _moved(case: Case) -> None:
    nibabel.save(nibabel.Nifti1Image(LABEL, np.diag([1, 1, 2, 1])), case.label)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (lambda case: cut_off(case.image), "image", "not readable as NIfTI"),
        (lambda case: cut_off(case.label), "label", "not readable as NIfTI"),
        (lambda case: case.image.write_bytes(b"no NIfTI at all"), "image", "not readable as NIfTI"),
        (lambda case: case.image.write_bytes(b""), "image", "not readable as NIfTI"),
        (lambda case: case.label.unlink(), "label", "no such file"),
        (lambda case: write_case(case.image.parent, IMAGE, LABEL[:3]), "label", r"\(3, 5, 6\) differs .* \(4, 5, 6\)"),
        (lambda case: write_case(case.image.parent, IMAGE[0], LABEL[0]), "image", "2 dimensions"),
        (lambda case: write_case(case.image.parent, IMAGE, 7 * LABEL), "label", "label 7 is not in dataset.json"),
        (lambda case: write_case(case.image.parent, IMAGE, 0.5 * LABEL), "label", "label 0.5 is not"),
        (lambda case: write_case(case.image.parent, np.log(IMAGE - 0.5), LABEL), "image", "NaN"),
        (_moved, "label", "affine differs"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in log", "ignore:divide by zero")
def test_damage_is_named(tmp_path: Path, damage: Callable[[Case], object], file: str, message: str) -> None:
    case = write_case(tmp_path, IMAGE, LABEL)
    check_case(case, classes=2)
    damage(case)
    with pytest.raises(SemiclError, match=message) as caught:
        check_case(case, classes=2)
    assert str(caught.value).startswith(str(getattr(case, file)))
