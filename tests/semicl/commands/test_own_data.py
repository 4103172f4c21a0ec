"""Data of one's own go from a folder to predictions by two commands, without a config."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from semicl.data.cases import MMWHS_CLASSES
from semicl.models.checkpoint import read_card
from tests.semicl.conftest import run_command, write_nifti

SHORT = [
    f"--{stage}.schedule.{name}={value}"
    for stage in ("pretrain_global", "pretrain_local", "finetune")
    for name, value in (("epochs", 2), ("steps_per_epoch", 2), ("batch_size", 4))
]
"""A few steps in place of hundreds; all else is chosen."""


def _volume(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright box of each of two classes, (X, Y, Z), and its label."""
    label = np.zeros((22, 30, 6), np.int16)
    label[4:12, 6 + number : 16 + number, 1:5] = 500
    label[13:19, 6 : 14 + number, 1:5] = 820
    noise = np.random.default_rng(number).normal(0, 30, label.shape)
    return (label + noise).astype(np.float32), label


def _mmwhs(folder: Path) -> Path:
    """A folder of MMWHS, and one of images alone."""
    for number in range(6):
        image, label = _volume(number)
        affine = np.diag([0.5, -0.5, 1.0, 1.0])
        write_nifti(folder / "ct" / f"ct_train_100{number}_image.nii.gz", image, affine)
        write_nifti(folder / "ct" / f"ct_train_100{number}_label.nii.gz", label, affine)
    (folder / "new").mkdir()
    shutil.copy(folder / "ct" / "ct_train_1000_image.nii.gz", folder / "new")
    return folder / "ct"


def _pictures(folder: Path) -> Path:
    """A folder of pictures and masks, and one of pictures alone."""
    for kind in ("eyes/images", "eyes/labels", "new"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        image, label = _volume(number)
        grey = (40 + image[..., 2] / 5).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / "eyes" / "images" / f"eye{number}.png")
        Image.fromarray((label[..., 2] // 4).astype(np.uint8)).save(folder / "eyes" / "labels" / f"eye{number}.png")
    shutil.copy(folder / "eyes" / "images" / "eye0.png", folder / "new")
    return folder / "eyes"


def _read(file: Path) -> np.ndarray:
    if file.suffix == ".png":
        with Image.open(file) as picture:
            return np.asarray(picture)
    return np.asarray(nibabel.load(file).dataobj)


@pytest.mark.parametrize(
    ("make", "sizes", "values", "told"),
    [
        (
            _mmwhs,
            (24, 32),
            {0, *MMWHS_CLASSES.values()},
            ("of 6 x 22 x 30 voxels", "sizes in voxels", "HD95 (mm)", "ASD (mm)"),
        ),
        (_pictures, (32, 24), {0, 125, 205}, ("of 30 x 22 pixels", "sizes in pixels", "HD95 (pixels)", "ASD (pixels)")),
    ],
    ids=["MMWHS", "pictures"],
)
def test_two_commands_lead_from_a_folder_to_predictions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    sizes: tuple[int, int],
    values: set[int],
    told: tuple[str, ...],
) -> None:
    data = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command("run", "--data", data.name, "--machine.accelerator", "cpu", *SHORT) == 0
    text = capsys.readouterr().out
    assert "Chosen by the data and the CPU; what is typed wins" in text
    assert [each for each in told if each not in text] == []
    assert "Validation while fine-tuning, split 0" in text
    (line,) = [line for line in text.splitlines() if line.startswith("Next: semicl predict")]
    words: list[Any] = line.removeprefix("Next: semicl ").replace("FILE_OR_FOLDER", "new").split()
    assert run_command(*words) == 0
    told_values = "Pictures of labels hold 0 for background, 125 for "
    assert (told_values in capsys.readouterr().out) == (make is _pictures)
    (found,), (image,) = list(Path("predictions").iterdir()), list(Path("new").iterdir())
    assert found.name == image.name
    assert _read(found).shape == _read(image).shape
    assert set(np.unique(_read(found))) <= values
    card = read_card(Path(words[2]))
    assert (card.grid.patch_size, card.levels) == (sizes, (16, 32, 64))
    results = json.loads((tmp_path / "runs" / "experiment" / "results.json").read_text())
    assert set(results["test_dice"]) == {"random", "pretrained"}

    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("model.ckpt")}
    assert run_command("run", "--data", data.name, "--machine.accelerator", "cpu") == 0  # what was chosen is kept
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("model.ckpt")} == before
