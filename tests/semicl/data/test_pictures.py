"""A folder of pictures with masks leads to masks for new pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semicl.data.cases import find_cases
from semicl.data.checks import check_files, read_channels, read_nifti
from semicl.data.pictures import read_picture, write_picture
from semicl.data.prepared import read_prepared
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError
from tests.semicl.conftest import error_of, run_command, weights, write_nifti

SIZE = (48, 40)
"""Columns and rows."""

CONFIG = """
network: {widths: [4, 6, 8], centre: null}
label_fraction: 0.34
prepare: {patch_size: [32, 32], repeats: 1, scans_per_subject: 1}
pretrain_global: {schedule: {epochs: 1, batch_size: 8, learning_rate: 1e-3}, channels: 4}
pretrain_local: {schedule: {epochs: 1, batch_size: 2, learning_rate: 1e-3}, channels: 4}
finetune: {schedule: {epochs: 8, batch_size: 2, learning_rate: 1e-2}}
"""


def _picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on the left and its mask, (rows, columns, 3) and (rows, columns)."""
    noise = np.random.default_rng(number)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = (rows - 10 - number) ** 2 + (columns - 12) ** 2 < 60
    grey = 60 + 120 * disc + noise.normal(0, 8, disc.shape)
    return np.stack([grey, grey / 2, 200 - grey], -1).clip(0, 255).astype(np.uint8), 255 * disc.astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of 10 colour pictures and their masks."""
    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(10):
        colours, mask = _picture(number)
        Image.fromarray(colours).save(folder / "images" / f"eye{number}.png")
        Image.fromarray(mask).save(folder / "labels" / f"eye{number}.png")
    return folder


@pytest.fixture(scope="module")
def experiment(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on them, of all stages."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "config.yaml").write_text(CONFIG)
    words = ["run", "--config", folder / "config.yaml", "--data", pictures]
    assert run_command(*words, "--prepared", folder / "p", "--output", folder / "o") == 0
    return folder


def test_colours_are_channels(experiment: Path) -> None:
    prepared = read_prepared(experiment / "p")
    assert prepared.channels == 3
    assert prepared.classes == {"background": 0, "class 255": 255}
    assert prepared.image(prepared.cases[0]).shape == (3, 1, 48, 40)  # larger than a patch
    found = weights(experiment / "o" / "split-0" / "finetune-random" / "model.ckpt")
    assert found["network.encoder.stem.conv_0.conv.weight"].shape[1] == 3


def test_pictures_in_masks_out(experiment: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["predict", "--checkpoint", experiment / "o" / "split-0" / "finetune-random" / "model.ckpt"]
    assert run_command(*words, "--input", pictures / "images", "--output", tmp_path / "masks") == 0
    dice = []
    for number in range(10):
        with Image.open(tmp_path / "masks" / f"eye{number}.png") as picture:
            assert (picture.size, picture.mode) == (SIZE, "L")
            predicted = np.asarray(picture)
        assert set(np.unique(predicted)) <= {0, 255}
        truth = _picture(number)[1]
        dice.append(2 * ((predicted > 0) & (truth > 0)).sum() / ((predicted > 0).sum() + (truth > 0).sum()))
    assert np.mean(dice) > 0.6  # which a picture that is turned or mirrored on its way would not reach
    one = ["--input", pictures / "images" / "eye0.png", "--output", tmp_path / "one.tif"]
    assert run_command(*words, *one) == 0
    with Image.open(tmp_path / "one.tif") as picture, Image.open(tmp_path / "masks" / "eye0.png") as other:
        assert np.array_equal(np.asarray(picture), np.asarray(other))


def test_pictures_that_cannot_be_used_are_told(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = Image.fromarray(_picture(0)[0])
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "b.webp", "c.npy", "d.dcm", ".e.gif", "notes.txt", "f.png"):
        colours.save(tmp_path / "in" / name, "PNG")
    colours.convert("L").save(tmp_path / "in" / "grey.png")
    checkpoint = experiment / "o" / "split-0" / "finetune-random" / "model.ckpt"
    words = ["predict", "--checkpoint", checkpoint, "--input", tmp_path / "in", "--output", tmp_path / "o"]
    assert run_command(*words) == 1
    text = capsys.readouterr().out
    assert f"{tmp_path / 'in'}: left out, of another format: a.gif, b.webp, c.npy and 1 more." in text
    assert "grey.png: has 1 channels, the checkpoint takes 3; save it in colours" in text


def test_a_mask_of_another_size_is_told_in_pixels(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(pictures, tmp_path / "d")
    Image.fromarray(_picture(0)[1][:, :30]).save(data / "labels" / "eye0.png")
    error = error_of(capsys, "prepare", "--data", data, "--prepared", tmp_path / "p", "--patch_size", 32, 32)
    assert "eye0.png: 30 x 40 pixels differ from its image's 48 x 40; save the mask in the size of its image" in error


def test_images_of_another_format_are_told(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shutil.copytree(pictures, tmp_path / "d")
    (data / "labels" / "x.gif").touch()
    assert run_command("prepare", "--data", data, "--prepared", tmp_path / "p", "--patch_size", 32, 32) == 0
    assert f"WARNING: {data / 'labels'}: left out, of another format: x.gif." in capsys.readouterr().out


def test_labels_of_a_picture_are_no_volume(
    experiment: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", experiment / "o" / "split-0" / "finetune-random" / "model.ckpt"]
    words += ["--input", pictures / "images" / "eye0.png", "--output"]
    assert "is no name for the labels of eye0.png; give its format" in error_of(capsys, *words, tmp_path / "a.nii.gz")
    assert "is named as a file of another format" in error_of(capsys, *words, tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".TIFF"])
def test_a_mask_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    labels = np.random.default_rng(0).integers(0, 250, (7, 5, 1))
    write_picture(tmp_path / f"a{suffix}", labels)
    array, volume = read_nifti(tmp_path / f"a{suffix}")
    assert np.array_equal(array, labels)
    assert volume.shape == (7, 5, 1)
    assert np.array_equal(np.diag(volume.affine), [1, -1, 1, 1])


def test_values_beyond_8_bits(tmp_path: Path) -> None:
    labels = np.arange(60_000, 60_012).reshape(4, 3, 1)
    write_picture(tmp_path / "a.png", labels)
    assert np.array_equal(read_nifti(tmp_path / "a.png")[0], labels)


def test_a_palette_is_numbers_in_a_mask_and_colours_in_an_image(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("L")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    assert read_nifti(tmp_path / "a.png")[0][:, :, 0].T.tolist() == [[0, 1], [2, 1]]
    assert read_channels(tmp_path / "a.png")[0][:, 1, 0, 0].tolist() == [255, 0, 0]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png")[0][:, :, 0].T.tolist() == [[1, 0]]


def test_several_pages_and_damage_are_told(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((4, 4), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(SemiclError, match=r"a\.tif: holds 2 pictures; give one picture a file"):
        read_nifti(tmp_path / "a.tif")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(SemiclError, match=r"b\.png: not readable as a picture \(UnidentifiedImageError: "):
        read_nifti(tmp_path / "b.png")


def test_a_jpeg_image_has_a_mask_of_another_format(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    colours, mask = _picture(0)
    Image.fromarray(colours).save(tmp_path / "images" / "a.jpg")
    Image.fromarray(mask).save(tmp_path / "labels" / "a.png")
    (case,) = find_cases(tmp_path, subject_rule).cases
    assert (case.name, case.image.name, case.label and case.label.name) == ("a", "a.jpg", "a.png")
    assert check_files(case).problems == ()


def test_a_mask_is_no_jpeg_file(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    colours, mask = _picture(0)
    Image.fromarray(colours).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "labels" / "a.JPG")
    (case,) = find_cases(tmp_path, subject_rule).cases
    (problem,) = check_files(case).problems
    assert str(problem).endswith("a.JPG: is a JPEG file, which changes the numbers; save the mask as PNG")


def test_a_mask_in_colours_is_taken_where_they_are_grey(tmp_path: Path) -> None:
    colours, mask = _picture(0)
    Image.fromarray(mask).convert("RGBA").save(tmp_path / "grey.png")
    assert read_nifti(tmp_path / "grey.png")[0][:, :, 0].T.tolist() == mask.tolist()
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(SemiclError, match=r"a\.png: holds colours, where one number a pixel is taken; save it"):
        read_nifti(tmp_path / "a.png")


def test_pictures_beside_nifti_files_are_left_out(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images" / "a.nii.gz", np.zeros((2, 2, 2)))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "a.png")
    assert [case.image.name for case in find_cases(tmp_path, subject_rule).cases] == ["a.nii.gz"]
