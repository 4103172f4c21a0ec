"""Slices are square and in [0, 1]; labels stay whole and stay on their pixels."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from semicl.cases import find_cases
from semicl.errors import SemiclError
from semicl.volumes import read_image, read_label, read_volume
from tests.semicl.conftest import write_case


def _box(shape: tuple[int, int, int]) -> np.ndarray:
    """A box of label 3 that lies in no corner and in no middle."""
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 5 : shape[0] // 2, shape[1] // 3 : shape[1] * 4 // 5, 1:3] = 3
    return label


def test_shapes_types_and_range(phantom: Path) -> None:
    volume = read_volume(find_cases(phantom).cases[0], 64)
    assert volume.image.shape == (20, 1, 64, 64)
    assert volume.image.dtype == torch.float32
    assert volume.image.min() == 0
    assert volume.image.max() == 1
    assert volume.label.shape == (20, 64, 64)
    assert volume.label.dtype == torch.int64
    assert volume.label.unique().tolist() == [0, 1, 2, 3]


def test_real_slices(hippocampus: Path) -> None:
    case = find_cases(hippocampus).cases[0]
    volume = read_volume(case, 64)
    assert volume.label.unique().tolist() == [0, 1, 2]
    assert int((volume.label > 0).sum()) == int((nibabel.load(case.label).get_fdata() > 0).sum())


@pytest.mark.parametrize("unit", [1.0, 255.0, 1.7e6])
def test_the_unit_of_the_scanner_does_not_matter(tmp_path: Path, unit: float) -> None:
    image = np.random.default_rng(0).random((20, 24, 4))
    label = np.zeros(image.shape, np.uint8)
    expected = read_image(write_case(tmp_path, image, label), 32)
    torch.testing.assert_close(read_image(write_case(tmp_path, unit * image, label), 32), expected)


def test_padding_moves_image_and_label_alike(tmp_path: Path) -> None:
    label = _box((21, 30, 5))
    volume = read_volume(write_case(tmp_path, label.astype(np.float32), label), 32)
    assert torch.equal(volume.image[:, 0] > 0.5, volume.label == 3)
    assert int((volume.label == 3).sum()) == int((label == 3).sum())


def test_shrinking_moves_image_and_label_alike_and_invents_no_class(tmp_path: Path) -> None:
    label = _box((100, 72, 5))
    volume = read_volume(write_case(tmp_path, label.astype(np.float32), label), 32)
    assert volume.image.shape == (5, 1, 32, 32)
    assert volume.label.unique().tolist() == [0, 3]
    for axis in (1, 2):
        bright, marked = (
            (weights.sum((0, 3 - axis)) * torch.arange(32)).sum() / weights.sum()
            for weights in (volume.image[:, 0], (volume.label == 3).float())
        )
        assert abs(bright - marked) < 0.25


def test_proportions_are_kept(tmp_path: Path) -> None:
    label = np.full((96, 48, 3), 1, np.uint8)
    slices = read_label(write_case(tmp_path, label.astype(np.float32), label), 32)
    assert [int(slices[0].any(axis).sum()) for axis in (1, 0)] == [32, 16]


def test_stored_orientation_does_not_matter(tmp_path: Path) -> None:
    label = _box((21, 30, 5))
    expected = read_volume(write_case(tmp_path, label.astype(np.float32), label), 32)
    flipped = np.ascontiguousarray(label[::-1, ::-1].transpose(1, 0, 2))
    affine = np.array([[0, -1, 0, 20], [-1, 0, 0, 29], [0, 0, 1, 0], [0, 0, 0, 1]])
    volume = read_volume(write_case(tmp_path, flipped.astype(np.float32), flipped, affine), 32)
    assert torch.equal(volume.label, expected.label)
    torch.testing.assert_close(volume.image, expected.image)


def test_reading_an_image_opens_no_label(tmp_path: Path) -> None:
    case = write_case(tmp_path, np.random.default_rng(0).random((8, 8, 2)), np.zeros((8, 8, 2), np.uint8))
    case.label.unlink()
    assert read_image(case, 16).shape == (2, 1, 16, 16)
    with pytest.raises(SemiclError, match=r"label\.nii\.gz: not readable"):
        read_label(case, 16)
