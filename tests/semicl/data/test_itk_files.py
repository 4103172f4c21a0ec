"""NRRD and MetaImage files hold what a NIfTI file of the same image does, and so do the labels that are predicted."""

import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.cases import find_cases
from semicl.data.checks import read_channels, read_nifti
from semicl.data.itk_files import read_itk, write_itk
from semicl.data.subjects import subject_rule
from semicl.data.volumes import read_image
from semicl.errors import SemiclError
from semicl.models.checkpoint import ModelCard
from tests.semicl.conftest import error_of, run_command, write_nifti

OBLIQUE = np.array([[0.0, -1.5, 0.2, 10], [2.0, 0.0, 0.0, -20], [0.0, 0.15, 3.0, 30], [0, 0, 0, 1]])

pytest.importorskip("itk")


@pytest.fixture(params=[".nrrd", ".mha"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_labels_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (6, 5, 4)).astype(np.uint8)
    write_itk(tmp_path / f"a{suffix}", labels, OBLIQUE)
    array, volume = read_itk(tmp_path / f"a{suffix}")
    assert np.array_equal(array, labels)
    assert array.dtype == np.uint8
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_an_image_is_that_of_a_nifti_file(tmp_path: Path, card: ModelCard, suffix: str) -> None:
    image = np.random.default_rng(0).random((21, 30, 5)).astype(np.float32)
    first = write_nifti(tmp_path / "a.nii.gz", image, OBLIQUE)
    write_itk(tmp_path / f"a{suffix}", image, OBLIQUE)
    one, other = (read_image(path, card.grid).image for path in (first, tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_folder_of_them_is_found_and_predicted_in_their_format(
    phantom: Path, checkpoint: Path, tmp_path: Path, suffix: str
) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "d" / kind).mkdir(parents=True)
        for file in sorted((phantom / f"{kind}Tr").iterdir())[:2]:
            volume = nibabel.load(file)
            write_itk(
                tmp_path / "d" / kind / f"{file.name.removesuffix('.nii.gz')}{suffix}",
                np.asarray(volume.dataobj),
                volume.affine,
            )
    assert [len(case.files) for case in find_cases(tmp_path / "d", subject_rule).cases] == [2, 2]
    words = ["predict", "--checkpoint", checkpoint]
    assert run_command(*words, "--input", tmp_path / "d" / "images", "--output", tmp_path / "itk") == 0
    assert run_command(*words, "--input", phantom / "imagesTr", "--output", tmp_path / "nifti") == 0
    files = sorted((tmp_path / "itk").iterdir())
    assert [file.suffix for file in files] == [suffix] * 2
    for file in files:
        found, expected = read_nifti(file), read_nifti(tmp_path / "nifti" / f"{file.stem}.nii.gz")
        assert np.array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1].affine, expected[1].affine, atol=1e-6)
    assert run_command(*words, "--input", tmp_path / "d" / "images", "--output", tmp_path / "itk", "--overwrite") == 0
    assert (
        run_command("evaluate", "--checkpoint", checkpoint, "--data", tmp_path / "d", "--output", tmp_path / "judged")
        == 0
    )


def test_damage_and_a_name_of_another_format_are_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"no image")
    with pytest.raises(SemiclError, match="not readable as an image"):
        read_channels(tmp_path / f"a{suffix}")
    write_itk(tmp_path / f"b{suffix}", np.zeros((4, 4, 4), np.float32), np.eye(4))
    words = ["predict", "--checkpoint", checkpoint, "--input", tmp_path / f"b{suffix}", "--output", tmp_path / "b.nii"]
    assert "b.nii: is no name for the labels of" in error_of(capsys, *words)


def test_where_itk_is_missing_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_itk(tmp_path / "a.mha", np.zeros((4, 4, 4), np.float32), np.eye(4))
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(SemiclError, match=r"a\.mha: .*; install it: pip install '\.\[formats\]'"):
        read_channels(tmp_path / "a.mha")


def test_files_beside_nifti_files_are_left_out(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images" / "a.nii.gz", np.zeros((2, 2, 2)))
    shutil.copy(tmp_path / "images" / "a.nii.gz", tmp_path / "images" / "a.mha")
    assert [case.image.name for case in find_cases(tmp_path, subject_rule).cases] == ["a.nii.gz"]
