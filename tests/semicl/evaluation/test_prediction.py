"""Label files have the geometry of their image and the values of the training labels."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.grid import Grid
from semicl.errors import SemiclError
from semicl.evaluation.inference import label_type, predict_file, to_device, write_labels
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import MachineOptions
from tests.semicl.conftest import write_nifti

OBLIQUE = np.array([[1.1, 0.2, 0.0, -20], [-0.2, 0.9, 0.3, 7], [0.0, -0.3, 2.4, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("shape", [(33, 41, 9), (7, 5, 3), (100, 64, 2)])
@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 500, 600, 205)])
def test_geometry_and_values(
    network: UNet, card: ModelCard, tmp_path: Path, shape: tuple[int, int, int], values: tuple[int, ...]
) -> None:
    card = replace(card, classes=dict(zip("abcd", values, strict=True)))
    image = write_nifti(tmp_path / "image.nii.gz", np.random.default_rng(0).random(shape), OBLIQUE)
    numbers = predict_file(network.eval(), card, image)
    write_labels(tmp_path / "label.nii.gz", numbers, card, nibabel.load(image))
    written = nibabel.load(tmp_path / "label.nii.gz")
    assert written.shape == shape
    np.testing.assert_array_equal(written.affine, nibabel.load(image).affine)
    assert written.header.get_sform(coded=True)[1] == nibabel.load(image).header.get_sform(coded=True)[1]
    array = np.asarray(written.dataobj)
    np.testing.assert_array_equal(array, np.array(values)[numbers.numpy()])
    assert array.dtype == (np.uint8 if max(values) < 256 else np.int16)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 255), np.uint8),
        ((0, 256), np.int16),
        ((0, -1), np.int16),
        ((0, 32768), np.int32),
        ((0, -40000), np.int32),
        ((0, 70000), np.int32),
        ((0, 2**31), np.int64),
    ],
)
def test_the_type_of_a_label_file_holds_every_value(values: tuple[int, ...], dtype: type[np.integer]) -> None:
    assert label_type(np.array(values)) is dtype


def test_a_scaled_image_leaves_no_scale_on_its_labels(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    scaled = nibabel.Nifti1Image(np.random.default_rng(0).random((9, 9, 3)), np.eye(4))
    scaled.header.set_data_dtype(np.int16)
    nibabel.save(scaled, tmp_path / "image.nii.gz")
    assert nibabel.load(tmp_path / "image.nii.gz").dataobj.slope != 1
    numbers = predict_file(network.eval(), card, tmp_path / "image.nii.gz")
    write_labels(tmp_path / "label.nii.gz", numbers, card, nibabel.load(tmp_path / "image.nii.gz"))
    written = nibabel.load(tmp_path / "label.nii.gz")
    assert written.dataobj.slope == 1
    np.testing.assert_array_equal(np.asarray(written.dataobj), numbers.numpy())


def test_patches(tmp_path: Path) -> None:
    card = ModelCard("finetune", (4, 6), {"background": 0, "organ": 1}, Grid((8, 8, 8), (1.5, 1.5, 1.5)))
    image = write_nifti(tmp_path / "image.nii.gz", np.random.default_rng(0).random((13, 9, 21)), OBLIQUE)
    assert predict_file(card.new_network(0).eval(), card, image).shape == (13, 9, 21)


def test_a_device_that_is_not_there_is_named(network: UNet) -> None:
    with pytest.raises(SemiclError, match=r"--machine\.accelerator tpu: not found here; give auto or cpu"):
        to_device(network, MachineOptions(accelerator="tpu"))
