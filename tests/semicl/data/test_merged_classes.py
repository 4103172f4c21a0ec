"""Several values of label files become one class, and the rest background where that is asked for."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.prepared import read_prepared
from semicl.data.volumes import class_numbers
from tests.semicl.conftest import TINY, box_of, error_of, one_schedule, preparing, run_command, write_nifti

CLASSES = '{"organs": [1, 2], "pair": 3}'


@pytest.fixture
def plain(phantom: Path, tmp_path: Path) -> Path:
    """The phantom as a plain folder, whose classes have values alone."""
    for kind in ("images", "labels"):
        for file in (phantom / f"{kind}Tr").iterdir():
            volume = nibabel.load(file)
            write_nifti(tmp_path / "d" / kind / file.name, np.asarray(volume.dataobj), volume.affine)
    return tmp_path / "d"


def test_class_numbers_of_merged_values() -> None:
    label = np.array([0, 1, 2, 3, 7])
    assert class_numbers(label, [0, 1, 3], {2: 1, 7: 0}).tolist() == [0, 1, 1, 2, 0]
    assert class_numbers(label + 1e-5, [0, 1, 3], {2: 1}).tolist() == [0, 1, 1, 2, 0]


def test_merged_values_are_trained_judged_and_predicted_as_one_class(plain: Path, tmp_path: Path) -> None:
    assert run_command(*preparing(plain, "--classes", CLASSES)) == 0
    prepared = read_prepared(tmp_path / "p")
    assert (prepared.classes, prepared.merged) == ({"background": 0, "organs": 1, "pair": 3}, {2: 1})
    case = prepared.cases[0]
    assert np.unique(prepared.label(case)).tolist() == [0, 1, 2]
    tune = ["finetune", *TINY, *one_schedule(2, 16), "--label_fraction", 0.5, "--prepared", tmp_path / "p"]
    assert run_command(*tune, "--output", tmp_path / "t") == 0
    judged = []
    for source in (["--prepared", tmp_path / "p"], ["--data", plain]):
        words = [
            "evaluate",
            "--checkpoint",
            tmp_path / "t" / "model.ckpt",
            *source,
            "--output",
            tmp_path / source[0][2:],
        ]
        assert run_command(*words) == 0
        judged.append(json.loads((tmp_path / source[0][2:] / "results.json").read_text()))
    assert judged[0]["classes"] == judged[1]["classes"] == ["organs", "pair"]
    assert all(judged[1]["cases"][name] == found for name, found in judged[0]["cases"].items())
    words = ["predict", "--checkpoint", tmp_path / "t" / "model.ckpt", "--input", plain / "images" / case.image.name]
    assert run_command(*words, "--output", tmp_path / "o") == 0
    values = np.unique(np.asarray(nibabel.load(tmp_path / "o" / case.image.name).dataobj))
    assert set(values.tolist()) <= {0, 1, 3}


def test_a_stage_is_not_resumed_with_other_classes_of_the_same_names(plain: Path, tmp_path: Path) -> None:
    for classes, code in ((CLASSES, 0), ('{"organs": [1, 3], "pair": 2}', 1)):
        assert run_command(*preparing(plain, "--classes", classes, "--overwrite")) == 0
        tune = ["finetune", *TINY, *one_schedule(1, 40), "--label_fraction", 0.5, "--prepared", tmp_path / "p"]
        assert run_command(*tune, "--output", tmp_path / "t", "--resume") == code


def test_the_rest_is_background_only_where_that_is_asked_for(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = preparing(plain, "--classes", '{"large": 1}')
    line = error_of(capsys, *words)
    assert "label 2 is unknown, known are 0, 1; mend the file or the classes, or prepare with --rest_is_" in line
    assert "background or --ignore 2" in line
    assert run_command(*words, "--rest_is_background") == 0
    prepared = read_prepared(tmp_path / "p")
    assert prepared.merged == {2: 0, 3: 0}
    assert np.unique(prepared.label(prepared.cases[0])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('{"a": [1, 2], "b": 2}', "--classes takes a value of its own for each class, each once, got "),
        ('{"a": [1, 0]}', "other than 0, which is the background"),
        ('{"a": []}', "--classes takes a value for each class, got "),
        ('{"a": [1, 2, 3, 9]}', "--classes takes values that label files hold, got "),
    ],
)
def test_values_that_make_no_classes_are_told(
    plain: Path, capsys: pytest.CaptureFixture[str], classes: str, message: str
) -> None:
    assert message in error_of(capsys, *preparing(plain, "--classes", classes))


def test_what_is_no_value_is_told(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "classes.a." in box_of(capsys, *preparing(plain, "--classes", '{"a": ["x"]}'))
