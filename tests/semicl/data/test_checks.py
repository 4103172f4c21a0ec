"""Damage is named before training, with the way out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.cases import Case, find_cases
from semicl.data.checks import Problem, check_files, problems
from semicl.data.grid import Grid
from semicl.data.subjects import subject_rule
from tests.semicl.conftest import cut_off, write_case

CLASSES = {"background": 0, "organ": 1}
IMAGE = np.linspace(0, 1, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
GRID = Grid((8, 8))
OUTLIERS = np.where(IMAGE > 0.9, np.float32(9e29), IMAGE)
LABEL = (IMAGE > 0.5).astype(np.uint8)


def _problems(case: Case, classes: Mapping[str, int] = CLASSES) -> list[Problem]:
    return list(problems(check_files(case), classes, GRID))


def test_sound_cases_have_no_problem(phantom: Path) -> None:
    folder = find_cases(phantom, subject_rule)
    assert folder.classes is not None
    assert [_problems(case, folder.classes) for case in folder.cases] == [[]] * len(folder.cases)


def test_a_real_case_has_no_problem(hippocampus: Path) -> None:
    folder = find_cases(hippocampus, subject_rule)
    assert folder.classes is not None
    assert _problems(folder.cases[0], folder.classes) == []


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
        (lambda case: write_case(case.image.parent, IMAGE, LABEL[:3]), "label", "(3, 5, 6) differs from its image's"),
        (lambda case: write_case(case.image.parent, IMAGE[0], LABEL), "image", "2 dimensions"),
        (lambda case: write_case(case.image.parent, IMAGE, 7 * LABEL), "label", "label 7 is unknown, known are 0, 1"),
        (lambda case: write_case(case.image.parent, IMAGE, 0.5 * LABEL), "label", "label 0.5 is not a whole number"),
        (lambda case: write_case(case.image.parent, np.log(IMAGE - 0.5), LABEL), "image", "NaN"),
        (_moved, "label", "affine differs"),
        (
            lambda case: write_case(case.image.parent, OUTLIERS, LABEL),
            "image",
            "of about one intensity but for outliers",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in log", "ignore:divide by zero")
def test_damage_is_named(tmp_path: Path, damage: Callable[[Case], object], file: str, message: str) -> None:
    case = write_case(tmp_path, IMAGE, LABEL)
    assert _problems(case) == []
    damage(case)
    (problem,) = _problems(case)
    assert problem.file == getattr(case, file)
    assert message in problem.what
    assert problem.way_out


def test_a_suffix_that_nibabel_cannot_read_is_named(tmp_path: Path) -> None:
    case = write_case(tmp_path, IMAGE, LABEL)
    case = replace(case, image=case.image.rename(tmp_path / "image.Nii.gz"))
    (problem,) = _problems(case)
    assert "mixes capitals and small letters" in problem.what


def test_both_files_of_a_case_are_judged(tmp_path: Path) -> None:
    case = write_case(tmp_path, IMAGE, LABEL)
    cut_off(case.image)
    cut_off(tmp_path / "label.nii.gz")
    assert [problem.file for problem in _problems(case)] == [case.image, case.label]


def test_a_case_without_a_label_is_sound(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path, IMAGE, LABEL), label=None)
    assert _problems(case) == []
    assert check_files(case).values == set()


def test_label_values(tmp_path: Path) -> None:
    assert check_files(write_case(tmp_path, IMAGE, 205 * LABEL.astype(np.int16))).values == {0, 205}
