"""Volumes fit the grid; labels stay whole and on their voxels; predictions come back to the file's geometry."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from semicl.data.cases import find_cases
from semicl.data.geometry import voxel_size
from semicl.data.grid import Grid
from semicl.data.subjects import subject_rule
from semicl.data.volumes import read_image, read_label, shrunk_and_back
from semicl.errors import SemiclError
from tests.semicl.conftest import write_case, write_nifti

VALUES = (0, 1, 2, 3)
OBLIQUE = np.array([[1.1, 0.2, 0.0, -20], [-0.2, 0.9, 0.3, 7], [0.0, -0.3, 2.4, 3], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, -1.5, 20], [-0.8, 0, 0, 29], [0, 2.0, 0, 0], [0, 0, 0, 1]])


def _box(shape: tuple[int, int, int]) -> np.ndarray:
    """A box of label 3 that lies in no corner and in no middle."""
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 5 : shape[0] // 2, shape[1] // 3 : shape[1] * 4 // 5, 1:3] = 3
    return label


def test_shapes_types_and_range(phantom: Path) -> None:
    case = find_cases(phantom, subject_rule).cases[0]
    image = read_image(case.image, Grid((64, 64))).image[0]
    assert image.shape == (20, 64, 64)
    assert image.dtype == torch.float32
    assert (image.min(), image.max()) == (0, 1)
    assert case.label is not None
    label = read_label(case.label, Grid((64, 64)), VALUES)
    assert label.shape == (20, 64, 64)
    assert label.dtype == torch.uint8
    assert label.unique().tolist() == [0, 1, 2, 3]


def test_real_slices(hippocampus: Path) -> None:
    case = find_cases(hippocampus, subject_rule).cases[0]
    assert case.label is not None
    label = read_label(case.label, Grid((64, 64)), (0, 1, 2))
    assert label.unique().tolist() == [0, 1, 2]
    assert int((label > 0).sum()) == int((nibabel.load(case.label).get_fdata() > 0).sum())


@pytest.mark.parametrize("unit", [1.0, 255.0, 1.7e6])
def test_the_unit_of_the_scanner_does_not_matter(tmp_path: Path, unit: float) -> None:
    image = np.random.default_rng(0).random((20, 24, 4))
    expected = read_image(write_nifti(tmp_path / "a.nii.gz", image), Grid((32, 32))).image[0]
    found = read_image(write_nifti(tmp_path / "b.nii.gz", unit * image), Grid((32, 32))).image[0]
    torch.testing.assert_close(found, expected)


def test_a_volume_that_is_all_but_empty_is_scaled_to_its_largest_value(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 4))
    image[3, 4, 1:3] = 600, 300
    found = read_image(write_nifti(tmp_path / "a.nii.gz", image), Grid((32, 32))).image[0]
    assert sorted(found.unique().tolist()) == [0, 0.5, 1]


def test_a_volume_of_one_value_is_empty_and_no_warning(tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "a.nii.gz", np.full((32, 32, 4), 7.0))
    assert read_image(file, Grid((32, 32))).image[0].unique().tolist() == [0]


@pytest.mark.parametrize("patch_size", [(32, 32), (16, 32, 32)])
def test_padding_moves_image_and_label_alike(tmp_path: Path, patch_size: tuple[int, ...]) -> None:
    box = _box((21, 30, 5))
    case = write_case(tmp_path, box.astype(np.float32), box)
    image, label = read_image(case.image, Grid(patch_size)).image[0], read_label(case.image, Grid(patch_size), VALUES)
    assert image.shape == (5 if len(patch_size) == 2 else 16, 32, 32)
    assert torch.equal(image > 0.5, label == 3)
    assert int((label == 3).sum()) == int((box == 3).sum())


def test_shrinking_moves_image_and_label_alike_and_invents_no_class(tmp_path: Path) -> None:
    box = _box((100, 72, 5))
    case = write_case(tmp_path, box.astype(np.float32), box)
    image, label = read_image(case.image, Grid((32, 32))).image[0], read_label(case.image, Grid((32, 32)), VALUES)
    assert image.shape == (5, 32, 32)
    assert label.unique().tolist() == [0, 3]
    for axis in (1, 2):
        bright, marked = (
            (mass.sum((0, 3 - axis)) * torch.arange(32)).sum() / mass.sum() for mass in (image, (label == 3).float())
        )
        assert abs(bright - marked) < 0.25


def test_proportions_are_kept(tmp_path: Path) -> None:
    label = read_label(write_nifti(tmp_path / "a.nii.gz", np.ones((96, 48, 3), np.uint8)), Grid((32, 32)), VALUES)
    assert [int(label[0].any(axis).sum()) for axis in (1, 0)] == [32, 16]


def test_stored_orientation_does_not_matter(tmp_path: Path) -> None:
    box = _box((21, 30, 5))
    flipped = np.ascontiguousarray(box[::-1, ::-1].transpose(1, 0, 2))
    affine = np.array([[0, -1, 0, 20], [-1, 0, 0, 29], [0, 0, 1, 0], [0, 0, 0, 1]])
    first = write_nifti(tmp_path / "a.nii.gz", box)
    second = write_nifti(tmp_path / "b.nii.gz", flipped, affine)
    assert torch.equal(*(read_label(path, Grid((32, 32)), VALUES) for path in (first, second)))
    torch.testing.assert_close(*(read_image(path, Grid((32, 32))).image[0] for path in (first, second)))


def test_label_values_become_class_numbers(tmp_path: Path) -> None:
    values = (0, 500, 205)
    path = write_nifti(tmp_path / "a.nii.gz", np.array([[[0, 205], [500, 205]]], np.int16))
    label = read_label(path, Grid((2, 1, 2)), values)
    assert label.tolist() == [[[0, 1]], [[2, 2]]]


def test_rounding_does_not_hide_a_label(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.array([[[1.0004, 2.9997], [0.5, 0.0]]]))
    assert read_label(path, Grid((2, 1, 2)), VALUES).sum((0, 1, 2)) == 4


def test_resampling_changes_the_number_of_voxels(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", _box((20, 20, 10)), np.diag([1, 1, 2, 1]))
    image = read_image(path, Grid((8, 8, 8), spacing=(2, 2, 2))).image[0]
    assert image.shape == (10, 10, 10)


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE, PERMUTED])
@pytest.mark.parametrize(
    ("grid", "overlap"),
    [
        (Grid((64, 64)), 1.0),
        (Grid((16, 16)), 0.8),
        (Grid((48, 32, 32)), 1.0),
        (Grid((16, 16, 16), (1.5, 1.5, 1.5)), 0.75),
    ],
    ids=["padded", "shrunk", "patches", "resampled"],
)
@pytest.mark.parametrize("shape", [(33, 41, 9), (12, 18, 47)])
def test_the_way_back_leads_to_the_files_own_voxels(
    tmp_path: Path, affine: np.ndarray, grid: Grid, overlap: float, shape: tuple[int, int, int]
) -> None:
    box = np.zeros(shape, np.uint8)
    box[2 : shape[0] // 2 + 2, 3 : shape[1] - 5, 1 : shape[2] - 2] = 1
    path = write_nifti(tmp_path / "a.nii.gz", box, affine)
    gridded = read_image(path, grid)
    probabilities = one_hot((gridded.image[0] > 0.5).long()).movedim(-1, 0).float()
    back = gridded.to_file(probabilities).argmax(0).numpy()
    assert back.shape == shape
    assert 2 * (back & box).sum() / (back.sum() + box.sum()) >= overlap


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(SemiclError, match=r"a\.nii\.gz: not readable"):
        read_image(tmp_path / "a.nii.gz", Grid((8, 8)))


def test_voxel_size() -> None:
    assert voxel_size(PERMUTED) == pytest.approx((0.8, 2.0, 1.5))


SHARE = 0.02


def _with_outliers(value: float, dtype: type) -> np.ndarray:
    image = 100 * np.random.default_rng(0).random((16, 16, 4))
    places = np.random.default_rng(1).permutation(image.size)
    image.flat[places[: int(SHARE * image.size)]] = value
    image.flat[places[int(SHARE * image.size) : int(2 * SHARE * image.size)]] = -value
    return image.astype(dtype)


@pytest.mark.parametrize(
    ("value", "dtype"), [(3.4e38, np.float32), (3.4e38, np.float64), (1e300, np.float64), (1.7e308, np.float64)]
)
def test_numbers_that_are_no_intensities_are_named(tmp_path: Path, value: float, dtype: type) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", _with_outliers(value, dtype))
    with pytest.raises(SemiclError, match=r"a\.nii\.gz: holds numbers as large as .*, which stand for missing ones"):
        read_image(path, Grid((16, 16)))


@pytest.mark.parametrize(("value", "dtype"), [(9e29, np.float32), (1e15, np.float64), (32767, np.int16)])
def test_outliers_that_squash_the_rest_are_named(tmp_path: Path, value: float, dtype: type) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", _with_outliers(value, dtype))
    with pytest.raises(SemiclError, match=r"a\.nii\.gz: is of about one intensity but for outliers"):
        read_image(path, Grid((16, 16)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", _with_outliers(value, np.float32))
    with pytest.raises(SemiclError, match=r"a\.nii\.gz: holds NaN or infinity"):
        read_image(path, Grid((16, 16)))


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        (np.arange(1024, dtype=np.float64) * 9e26, np.float32),
        (np.arange(1024, dtype=np.float64) * 1e-43, np.float32),
        (np.arange(1024, dtype=np.float64) * 1e-320, np.float64),
        (2.0**60 + np.arange(1024) * 2.0**20, np.float64),
        (np.arange(1024) + 2**62, np.int64),
        (np.arange(1024) - 2**62, np.int64),
        (np.arange(1024).astype(np.uint64) + np.uint64(2**63), np.uint64),
        (np.arange(1024) * 4_000_000, np.uint32),
        (np.arange(1024) - 512, np.int16),
        (np.linspace(-32768, 32767, 1024), np.int16),
    ],
    ids=["large", "denormal", "denormal float64", "far from 0", "int64", "-int64", "uint64", "uint32", "int16", "wide"],
)
@pytest.mark.filterwarnings("error")
def test_numbers_of_any_size_are_scaled_in_float64(tmp_path: Path, image: np.ndarray, dtype: type) -> None:
    stored = image.astype(dtype).reshape(16, 16, 4)
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4), dtype=dtype), tmp_path / "a.nii")
    found = read_image(tmp_path / "a.nii", Grid((16, 16))).image[0].permute(1, 2, 0).numpy()
    exact = np.array([float(int(v) - int(stored.flat[0])) if np.dtype(dtype).kind in "iu" else v for v in stored.flat])
    low, high = np.percentile(exact, (0.5, 99.5))
    np.testing.assert_allclose(found.ravel(), (exact.clip(low, high) - low) / (high - low), atol=1e-6)


def test_one_far_64_bit_number_does_not_hide_the_others(tmp_path: Path) -> None:
    image = np.arange(1024, dtype=np.int64).reshape(16, 16, 4)
    image[0, 0, 0] = -(2**63)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4), dtype=np.int64), tmp_path / "a.nii")
    found = read_image(tmp_path / "a.nii", Grid((16, 16))).image[0].permute(1, 2, 0).numpy().ravel()
    low, high = np.percentile(image, (0.5, 99.5))
    np.testing.assert_allclose(found, (image.ravel().clip(low, high) - low) / (high - low), atol=1e-6)


def test_slices_are_kept_at_full_resolution_for_a_sliding_window(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 20, 3)).astype(np.float32)
    found = read_image(write_nifti(tmp_path / "a.nii.gz", image), Grid((32, 32), sliding_window=True)).image[0]
    assert found.shape == (3, 40, 32)
    assert len(found[:, :, 6:26].unique()) > 2000


def test_what_shrinking_costs_a_perfect_label(tmp_path: Path) -> None:
    label = np.zeros((64, 64, 3), np.uint8)
    label[::2] = 1  # lines that a shrunk slice cannot hold
    path = write_nifti(tmp_path / "a.nii.gz", label)
    truth, back = shrunk_and_back(path, Grid((16, 16)), (0, 1), path)
    assert truth.shape == back.shape == (64, 64, 3)
    assert int((truth != back).sum()) > 0.3 * label.size
    truth, back = shrunk_and_back(path, Grid((64, 64)), (0, 1), path)
    assert torch.equal(truth, back)
