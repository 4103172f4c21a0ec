"""One definition of a NIfTI file's name serves every command."""

from pathlib import Path

import pytest

from semicl.data.nifti_names import (
    by_case,
    found_file,
    is_nifti,
    is_other_file,
    label_name,
    mixes_case,
    nifti_files,
    stem,
)
from semicl.errors import SemiclError


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("a.nii", "a"),
        ("a.nii.gz", "a"),
        ("a.NII.GZ", "a"),
        ("A.Nii.gz", "A"),
        ("a.nii.nii", "a.nii"),
        ("é.1.nii", "é.1"),
    ],
)
def test_a_stem(name: str, rest: str) -> None:
    assert is_nifti(Path(name))
    assert stem(Path("folder") / name) == rest


@pytest.mark.parametrize("name", ["a.gz", "a.nii.txt", ".a.nii", ".nii.gz", "nii", "a.niigz"])
def test_other_files(name: str) -> None:
    assert not is_nifti(Path(name))


@pytest.mark.parametrize(
    "name", ["a.mgz", "a.MHD", "a.nii.gz.bak", "a.nii.zip", "a.jpg", "a.img.gz", "a.gz", ".nii.gz"]
)
def test_names_of_other_files(name: str) -> None:
    assert is_other_file(Path("folder") / name)


@pytest.mark.parametrize(
    "name", ["a.nii", "a.NII.GZ", "a", "a.v1.2", "predictions-2026.11.28", "niis", "a.niiX", "png"]
)
def test_other_names(name: str) -> None:
    assert not is_other_file(Path("a.jpg") / name)


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.NII.GZ", "a.nii", ".c.nii", "d.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in nifti_files(tmp_path)] == ["a.nii", "b.NII.GZ"]
    assert nifti_files(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "mixed"), [("a.nii", False), ("A.NII.gz", False), ("a.Nii", True), ("a.nIi.gz", True)]
)
def test_mixed_suffixes(name: str, mixed: bool) -> None:
    assert mixes_case(Path(name)) == mixed


def test_a_label_is_named_as_its_image_in_small_letters() -> None:
    assert label_name(Path("folder/A.NII.GZ")) == "A.nii.gz"


def test_the_files_of_each_case() -> None:
    files = [Path("a_image.nii"), Path("b_image.NII.gz"), Path("a_label.nii")]
    assert by_case(files, "_image") == {"a": files[0], "b": files[1]}
    with pytest.raises(SemiclError, match=r"a\.NII: case a is there twice, as a\.nii\.gz too; leave one out"):
        by_case([Path("a.nii.gz"), Path("a.NII")])


COMPOSED, DECOMPOSED = "Jos\u00e9", "Jose\u0301"


def test_an_accent_may_be_written_in_two_ways(tmp_path: Path) -> None:
    assert list(by_case([Path(f"{DECOMPOSED}.nii")])) == [COMPOSED]
    with pytest.raises(SemiclError, match=f"case {COMPOSED} is there twice"):
        by_case([Path(f"{DECOMPOSED}.nii"), Path(f"{COMPOSED}.nii.gz")])
    (tmp_path / f"{DECOMPOSED}.nii").touch()
    assert found_file(tmp_path / f"{COMPOSED}.nii") == tmp_path / f"{DECOMPOSED}.nii"
    assert found_file(tmp_path / "other.nii") == tmp_path / "other.nii"
    assert found_file(tmp_path / "none" / "a.nii") == tmp_path / "none" / "a.nii"
