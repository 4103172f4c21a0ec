"""A file is read to its last byte, which must be the last one that its header tells of."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.checks import read_nifti
from semicl.errors import SemiclError
from tests.semicl.data.nifti_bytes import with_fields

IMAGE = np.random.default_rng(0).normal(100, 10, (20, 18, 16)).astype(np.float32)
SOUND = nibabel.Nifti1Image(IMAGE, np.eye(4)).to_bytes()
NAMES = ("a.nii", "a.nii.gz", "a.NII.GZ")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 6, mtime=0) if path.suffix.lower() == ".gz" else content)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_sound_file_is_read(tmp_path: Path, name: str, kind: type[nibabel.Nifti1Image]) -> None:
    array, volume = read_nifti(_written(tmp_path / name, kind(IMAGE, np.eye(4)).to_bytes()))
    assert isinstance(volume, kind)
    assert np.array_equal(array, IMAGE)


def _reads_other_values(path: Path) -> bool:
    """Whether a damaged file is taken with other values; one that is refused is named in a line."""
    try:
        return not np.array_equal(read_nifti(path)[0], IMAGE)
    except SemiclError as error:
        return not str(error).startswith(f"{path}: ") or "\n" in str(error)


def test_a_flipped_bit_of_a_compressed_file_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.nii.gz", SOUND)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    wrong = []
    for place, bit in random.integers((10, 0), (len(whole), 8), (40, 2)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        wrong += [(place, bit)] if _reads_other_values(path) else []
    assert wrong == []


@pytest.mark.parametrize("cut", [1, 4, 8, 12])
def test_a_compressed_file_without_its_last_bytes_is_named(tmp_path: Path, cut: int) -> None:
    path = _written(tmp_path / "a.nii.gz", SOUND)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(SemiclError, match=r"a\.nii\.gz: not readable as NIfTI .*; copy or download the file again"):
        read_nifti(path)


def _halved(content: bytes) -> bytes:
    return with_fields(content, dim=[3, 10, 18, 16, 1, 1, 1, 1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: with_fields(content, vox_offset=0), "its voxels begin at byte 0"),
        (lambda content: with_fields(content, vox_offset=16), "not readable as NIfTI"),
        (_halved, "its header tells of 10 x 18 x 16 voxels, and more follows them (11520 B)"),
        (lambda content: content + b"\0", "its header tells of 20 x 18 x 16 voxels, and more follows them (1 B)"),
        (lambda content: content[:-1], "not readable as NIfTI"),
        (lambda content: with_fields(content, vox_offset=368), "not readable as NIfTI"),
    ],
    ids=["offset 0", "offset 16", "halved", "longer", "shorter", "offset beyond"],
)
def test_a_header_that_contradicts_its_file_is_named(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    path = _written(tmp_path / name, change(SOUND))
    with pytest.raises(SemiclError) as caught:
        read_nifti(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extended", [False, True], ids=["room", "extension"])
def test_voxels_may_begin_after_the_header(tmp_path: Path, name: str, extended: bool) -> None:
    volume = nibabel.Nifti1Image(IMAGE, np.eye(4))
    if extended:
        volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"from a scanner"))
        content = volume.to_bytes()
    else:
        content = with_fields(SOUND, vox_offset=416)[:352] + bytes(64) + SOUND[352:]
    assert np.array_equal(read_nifti(_written(tmp_path / name, content))[0], IMAGE)
