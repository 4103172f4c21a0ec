"""Probabilities, flips, several checkpoints and largest components in `semicl predict`."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from semicl.evaluation.inference import class_probabilities, file_probabilities, largest_components
from semicl.models.checkpoint import load_segmentation
from tests.semicl.conftest import box_of, cut_off, error_of, run_command, write_nifti

SHAPE = (33, 41, 5)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "images" / "a.nii.gz", np.random.default_rng(0).random(SHAPE), np.diag([2, 1, 3, 1]))


@pytest.fixture
def other(tuned: Path, tmp_path: Path) -> Path:
    """A checkpoint of other weights."""
    content = torch.load(tuned, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("classifier.weight"):
            content["state_dict"][name] = -value
    torch.save(content, tmp_path / "other.ckpt")
    return tmp_path / "other.ckpt"


def _words(checkpoint: Path, image: Path, *more: Any) -> list[Any]:
    return ["predict", "--checkpoint", checkpoint, *more, "--input", image, "--output", image.parents[1] / "o"]


def _labels(image: Path) -> np.ndarray:
    return np.asarray(nibabel.load(image.parents[1] / "o" / image.name).dataobj)


def _probabilities(image: Path) -> np.ndarray:
    with np.load(image.parents[1] / "o" / "a.npz") as file:
        assert file["classes"].tolist() == ["background", "large organ", "small organ", "paired organ"]
        assert file["values"].tolist() == [0, 1, 2, 3]
        assert file["probabilities"].dtype == np.float32
        return np.asarray(file["probabilities"])


def test_probabilities_lie_beside_the_labels_and_lead_to_them(tuned: Path, image: Path) -> None:
    assert run_command(*_words(tuned, image), "--probabilities") == 0
    found = _probabilities(image)
    assert found.shape == (4, *SHAPE)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(0), _labels(image))
    assert sorted(path.name for path in (image.parents[1] / "o").iterdir()) == ["a.nii.gz", "a.npz"]


def test_those_of_a_picture_are_in_rows_and_columns(tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    grey = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    Image.fromarray(grey).save(tmp_path / "images" / "a.png")
    assert run_command(*_words(tuned, tmp_path / "images" / "a.png"), "--probabilities") == 0
    found = _probabilities(tmp_path / "images" / "a.png")
    with Image.open(tmp_path / "o" / "a.png") as mask:
        np.testing.assert_array_equal(found.argmax(0), np.asarray(mask))


def test_only_whole_files_are_skipped_and_only_probabilities_replaced(
    tuned: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, file = [*_words(tuned, image), "--probabilities"], image.parents[1] / "o" / "a.npz"
    assert run_command(*words[:-1]) == 0
    assert run_command(*words, "--skip_existing") == 0  # the labels alone are not all
    content = file.read_bytes()
    before = file.stat().st_mtime_ns
    (file.parent / "a.nii.gz").unlink()
    assert "a.npz: is there already" in error_of(capsys, *words)
    assert run_command(*words[:-1]) == 0
    assert run_command(*words, "--skip_existing") == 0
    assert file.stat().st_mtime_ns == before
    cut_off(file)
    assert run_command(*words, "--skip_existing") == 0
    assert f"{file}: not readable, so that it is predicted again." in capsys.readouterr().out
    assert file.read_bytes() == content
    np.savez(file, mine=np.zeros(3))
    line = error_of(capsys, *words, "--overwrite")
    assert f"{file}: would be replaced, and holds no probabilities" in line


def test_several_checkpoints_are_averaged(
    tuned: Path, other: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*_words(tuned, image, other), "--probabilities") == 0
    models = [load_segmentation(path) for path in (tuned, other)]
    one, two = (file_probabilities([model], image) for model in models)
    assert float((one - two).abs().max()) > 0.01
    np.testing.assert_allclose(_probabilities(image), (one + two) / 2, atol=1e-6)
    assert "checkpoint: takes each value once" in box_of(capsys, *_words(tuned, image, tuned))
    content = torch.load(other, weights_only=True)
    content["semicl"]["classes"] = {"background": 0, "large organ": 1, "small organ": 2, "unpaired organ": 3}
    torch.save(content, other)
    line = error_of(capsys, *_words(tuned, image, other), "--overwrite")
    assert "other.ckpt: knows background (0), large organ (1), small organ (2), unpaired organ (3) in 1 channel" in line
    assert "give checkpoints that were trained for the same" in line


@pytest.mark.parametrize("patch_size", [(32, 32), (8, 32, 32)])
def test_flips_make_a_flipped_image_the_same(patch_size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, generator=generator)

    class Slope(torch.nn.Module):
        """A network to which right and left are not the same."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            ramp = torch.linspace(-1, 1, patch.shape[-1]) * torch.linspace(0, 1, patch.shape[-2])[:, None]
            return torch.cat([patch * 0, patch * ramp * self.weight], 1)

    network: Any = Slope()
    volume = torch.rand(1, 8, 32, 32, generator=generator)
    plain = class_probabilities(network, volume, patch_size)
    found = class_probabilities(network, volume, patch_size, flips=True)
    assert float((class_probabilities(network, volume.flip(-1), patch_size).flip(-1) - plain).abs().max()) > 0.01
    for axes in ((-1,), (-2,), (-2, -1), *(((-3,),) if len(patch_size) == 3 else ())):
        again = class_probabilities(network, volume.flip(axes), patch_size, flips=True).flip(axes)
        torch.testing.assert_close(again, found)
    torch.testing.assert_close(found.sum(0), torch.ones(8, 32, 32))


def test_flips_are_asked_for(tuned: Path, image: Path) -> None:
    assert run_command(*_words(tuned, image), "--probabilities", "--tta") == 0
    expected = file_probabilities([load_segmentation(tuned)], image, flips=True)
    np.testing.assert_allclose(_probabilities(image), expected, atol=1e-6)
    assert float((expected - file_probabilities([load_segmentation(tuned)], image)).abs().max()) > 1e-4


def test_each_class_keeps_its_largest_component() -> None:
    numbers = torch.zeros(9, 9, 9, dtype=torch.long)
    numbers[:3, :3, :3] = 1
    numbers[3, 3, 3] = 1  # touches by a corner
    numbers[6:8, 6:8, 6:8] = 1
    numbers[0, 8, 8] = numbers[8, 0, 0] = 2
    numbers[8, 0, 1] = 2
    kept = largest_components(numbers, 4)
    expected = numbers.clone()
    expected[6:8, 6:8, 6:8] = 0
    expected[0, 8, 8] = 0
    assert torch.equal(kept, expected)
    assert int((numbers == 1).sum()) == 27 + 1 + 8  # as it was


def test_largest_components_are_asked_for_and_leave_probabilities_alone(tuned: Path, image: Path) -> None:
    assert run_command(*_words(tuned, image), "--probabilities", "--largest_component") == 0
    numbers = torch.from_numpy(_probabilities(image).argmax(0))
    expected = largest_components(numbers, 4)
    assert not torch.equal(expected, numbers)
    np.testing.assert_array_equal(_labels(image), expected)
