"""A volume whose scale is that of outliers is told from one that is empty, thin or of few values."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.intensities import squashed
from semicl.data.nifti_names import nifti_files

LIMITS = {np.float32: 9e29, np.float64: 1e15, np.int64: 2**63 - 1, np.int32: 2**31 - 1, np.int16: 2**15 - 1}


@pytest.fixture
def tissue() -> np.ndarray:
    """Intensities as scanners give them."""
    return np.random.default_rng(0).normal(300, 80, (20, 30, 20))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("low", "high"), [(0.02, 0.02), (0, 0.02), (0.02, 0), (0.2, 0.2)])
def test_outliers_squash_the_rest(tissue: np.ndarray, dtype: type, low: float, high: float) -> None:
    volume = tissue.astype(dtype)
    assert not squashed(volume)
    share = np.random.default_rng(1).random(volume.shape)
    volume[share < low] = -LIMITS[dtype]
    volume[share > 1 - high] = LIMITS[dtype]
    assert squashed(volume)


@pytest.mark.parametrize("background", [0, -1e15])
def test_outliers_squash_what_stands_on_an_empty_background(tissue: np.ndarray, background: float) -> None:
    tissue[:14] = background
    tissue[14, :15] = 1e15
    assert squashed(tissue)


def test_a_volume_that_holds_little_is_not_squashed(tissue: np.ndarray) -> None:
    thin = np.zeros_like(tissue)
    for slices in (1, 4):
        thin[:slices, :3, :3] = tissue[:slices, :3, :3]
        assert not squashed(thin)
    thin[:, :, 0] = tissue[:, :, 0]
    assert not squashed(thin)
    assert not squashed(np.where(tissue > 400, 1000 + tissue / 100, 0))
    assert not squashed((tissue > 300).astype(np.uint8))
    assert not squashed(np.zeros_like(tissue))


def test_air_metal_and_padding_do_not_squash_tissue(tissue: np.ndarray) -> None:
    scan = tissue - 260
    scan[:8] = -1024 + tissue[:8] / 50
    scan[8:9] = 3071
    scan[9:11] = -3024
    assert not squashed(scan)


def test_no_real_case_is_squashed(hippocampus: Path) -> None:
    for file in nifti_files(hippocampus / "imagesTr"):
        assert not squashed(np.asarray(nibabel.load(file).dataobj)), file
