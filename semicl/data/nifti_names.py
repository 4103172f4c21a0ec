"""Which files are images, of which format, and which case each belongs to: by name alone, in any case of letters."""

import re
from collections.abc import Iterable
from pathlib import Path

from semicl.data.classes import nfc
from semicl.errors import SemiclError

_NAME = re.compile(r"(?P<stem>.+)\.nii(\.gz)?", re.IGNORECASE)
_PICTURE = re.compile(r"(?P<stem>.+)\.(png|tiff?|bmp|jpe?g)", re.IGNORECASE)
_ITK = re.compile(r"(?P<stem>.+)\.(nrrd|mha)", re.IGNORECASE)
_LOSSY = re.compile(r"\.jpe?g$")

_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
_VOLUMES = {".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".mnc", ".hdr", ".img", ".dcm", ".vtk", ".raw"}
_OF_FILES = _PICTURES | _VOLUMES | {".npy", ".npz", ".mat", ".h5", ".hdf5", ".gz", ".bz2", ".xz", ".zip", ".bak"}
"""Suffixes that no name of a folder is thought to have."""

FORMATS = ".nii, .nii.gz, .nrrd, .mha, .png, .tif, .bmp or .jpg"
"""Suffixes of the images that are read, as a person is told them."""

NAMED = 3
"""Files that a line names."""


def is_nifti(file: Path) -> bool:
    """Whether a file's name ends in .nii or .nii.gz and does not hide it."""
    return _NAME.fullmatch(file.name) is not None and not file.name.startswith(".")


def is_picture(file: Path) -> bool:
    """Whether a file's name ends as that of a PNG, TIFF, BMP or JPEG file and does not hide it."""
    return _PICTURE.fullmatch(file.name) is not None and not file.name.startswith(".")


def is_itk(file: Path) -> bool:
    """Whether a file's name ends in .nrrd or .mha and does not hide it."""
    return _ITK.fullmatch(file.name) is not None and not file.name.startswith(".")


def is_image(file: Path) -> bool:
    """Whether a file's name is that of an image of a format that is read."""
    return is_nifti(file) or is_itk(file) or is_picture(file)


def is_label(path: Path) -> bool:
    """Whether labels can be written to a file of this name."""
    return is_image(path) and not _LOSSY.search(path.name.lower())


def is_other_file(path: Path) -> bool:
    """Whether a name is that of an image of another format, an array, or a packed or kept copy."""
    return not is_label(path) and not _OF_FILES.isdisjoint(map(str.lower, path.suffixes))


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files of a folder by name; none where there is no such folder."""
    return sorted(filter(is_nifti, folder.iterdir())) if folder.is_dir() else []


def image_files(folder: Path) -> list[Path]:
    """The NIfTI files of a folder by name; where it holds none, its NRRD and MetaImage files, or its pictures."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = ([file for file in files if of_format(file)] for of_format in (is_nifti, is_itk, is_picture))
    return next(filter(None, found), [])


def left_out(folder: Path) -> str | None:
    """The line that tells of images and arrays, by their names, that are not among the image files of a folder."""
    taken = set(image_files(folder))
    others = (file for file in folder.iterdir() if file not in taken and (is_image(file) or is_other_file(file)))
    names = sorted(file.name for file in others if not file.name.startswith("."))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{folder}: left out, of another format: {', '.join(names[:NAMED])}{more}." if names else None


def stem(file: Path) -> str:
    """A file's name without the end that tells its format."""
    found = next(filter(None, (each.fullmatch(file.name) for each in (_NAME, _PICTURE, _ITK))), None)
    return found["stem"] if found else file.name


def found_file(file: Path) -> Path:
    """The file itself, or the one beside it whose name is written with other characters for the same letters."""
    if file.exists() or not file.parent.is_dir():
        return file
    return next((other for other in file.parent.iterdir() if nfc(other.name) == nfc(file.name)), file)


def mixes_case(file: Path) -> bool:
    """Whether capitals and small letters are mixed in a file's .nii."""
    if not is_nifti(file):
        return False
    word = file.name.removeprefix(stem(file))[: len(".nii")]
    return word not in (word.lower(), word.upper())


def label_name(image: Path) -> str:
    """The name of an image's label file: the same, its suffix in small letters, which every program takes.

    That of a JPEG file is a PNG file, which keeps values as they are.
    """
    return stem(image) + _LOSSY.sub(".png", image.name.removeprefix(stem(image)).lower())


def case_name(file: Path, ending: str = "") -> str:
    """The name of a file's case: its stem without the ending, in NFC."""
    return nfc(stem(file).removesuffix(ending))


def by_case(files: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """The files whose stem has this ending, by the name of their case.

    Raises:
        SemiclError: two files belong to one case.
    """
    found: dict[str, Path] = {}
    for file in files:
        if not stem(file).endswith(ending):
            continue
        name = case_name(file, ending)
        if name in found:
            raise SemiclError(f"{file}: case {name} is there twice, as {found[name].name} too; leave one out")
        found[name] = file
    return found
