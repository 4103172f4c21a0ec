"""The command line names what is wrong in one line, exits with 1, and leaves nothing behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.cli import main
from tests.semicl.conftest import REPOSITORY, cut_off


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the demo, expect one line of error on top of finished progress bars, and return it."""
    assert main(["demo", "--quick", *map(str, arguments)]) == 1
    written = capsys.readouterr().err.rstrip("\n").split("\n")
    assert [line for line in written if "Traceback" in line] == []
    (line,) = [line for line in written if line.startswith("error: ")]
    assert line == written[-1]
    return line


def _first(folder: Path, kind: str) -> Path:
    return folder / kind / "phantom_001.nii.gz"


def _reshape(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), _first(folder, "labelsTr"))


def _keep_four_subjects(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["training"] = description["training"][:8]
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut_off(_first(folder, "imagesTr")), "imagesTr/phantom_001.nii.gz: not readable as NIfTI"),
        (lambda folder: cut_off(_first(folder, "labelsTr")), "labelsTr/phantom_001.nii.gz: not readable as NIfTI"),
        (_reshape, "labelsTr/phantom_001.nii.gz: shape (3, 4, 5) differs"),
        (_keep_four_subjects, "4 subjects (8 cases) are too few"),
        (lambda folder: (folder / "dataset.json").unlink(), "dataset.json: no such file"),
    ],
)
def test_unusable_data(
    own_phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    damage(own_phantom)
    output = tmp_path / "out"
    assert message in _fails(capsys, "--data", own_phantom, "--output", output)
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--label_fraction", "0"], "--label_fraction takes a number in (0, 1], got 0.0"),
        (["--slice_size", "50"], "--slice_size takes a positive multiple of 16, got 50"),
        (["--segmentation.steps", "31"], "--validations takes a divisor of --segmentation.steps (31), got 2"),
        (["--global_contrast.batch_size", "1"], "batch_size takes a number of 2 or more, got 1"),
    ],
)
def test_unusable_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    output = tmp_path / "out"
    assert message in _fails(capsys, "--output", output, *arguments)
    assert not output.exists()


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "--output" in _fails(capsys, "--data", "phantom", "--output", tmp_path / "file" / "out")


def test_labelled_cases_without_foreground(
    own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in (own_phantom / "labelsTr").iterdir():
        volume = nibabel.load(label)
        nibabel.save(nibabel.Nifti1Image(np.zeros(volume.shape, np.uint8), volume.affine), label)
    assert "hold no foreground" in _fails(capsys, "--data", own_phantom, "--output", tmp_path / "out")


@pytest.mark.parametrize("missing", ["jsonargparse", "monai"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(missing: str) -> None:
    program = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = ['semicl', 'demo', '--data', 'phantom'];"
        "runpy.run_module('semicl', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert "pip install 'semicl[train]'" in line


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--label_fractions", "0.1"])
    assert caught.value.code == 2
    assert "label_fractions" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in ("--quick", "--data", "--output", "--seed", "--label_fraction", "--local_contrast.steps"):
        assert option in text
