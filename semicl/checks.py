"""Whether the files of a case can be used: read once, before hours of training and not after."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from semicl.cases import Case
from semicl.errors import SemiclError
from semicl.nifti_names import mixes_case
from semicl.whole_values import whole_values

UNREADABLE = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel raises for files that are missing, cut off, damaged or no NIfTI at all."""

SAME_PLACE_MM = 1e-2
"""Affines that differ by less are the same: programs round them differently."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and the way out."""

    file: Path
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.way_out}"


@dataclass(frozen=True)
class CheckedCase:
    """A case whose files were read.

    Args:
        case: the case.
        problems: what is wrong with its files, whatever the classes are.
        values: the whole values in its label file; none where it has no label or that is not readable.
    """

    case: Case
    problems: tuple[Problem, ...]
    values: frozenset[int]


def read_nifti(path: Path) -> tuple[np.ndarray, SpatialImage]:
    """The array of a NIfTI file and its image, whose header and affine tell the geometry.

    Raises:
        SemiclError: no such file, a suffix as .Nii, not readable, not 3-D, not one number a voxel, NaN or infinity.
    """
    if not path.is_file():
        raise SemiclError(f"{path}: no such file; copy it there or take the case out")
    if mixes_case(path):  # for which nibabel would open a file of another name
        raise SemiclError(f"{path}: its suffix mixes capitals and small letters; rename it to .nii or .nii.gz")
    try:
        volume = nibabel.load(path)
        if not isinstance(volume, SpatialImage):
            raise SemiclError(f"{path}: holds no volume; give one NIfTI volume a file")
        array = np.asarray(volume.dataobj)
    except UNREADABLE as error:
        raise SemiclError(
            f"{path}: not readable as NIfTI ({type(error).__name__}: {error}); copy or download the file again"
        ) from error
    if array.ndim != 3:
        raise SemiclError(f"{path}: has {array.ndim} dimensions, not 3; give one 3-D volume a file")
    if 0 in array.shape:
        raise SemiclError(f"{path}: is empty, of shape {array.shape}; export it again")
    if array.dtype.kind not in "iuf":  # RGB is a structure of three numbers
        raise SemiclError(f"{path}: holds {_kind(array)}, not one number a voxel; export it in grey values")
    if not np.isfinite(array).all():
        raise SemiclError(f"{path}: holds NaN or infinity; replace them or take the case out")
    return array, volume


def check_files(case: Case) -> CheckedCase:
    """Read the files of a case; what is wrong with them is told without knowing the classes."""
    found: list[Problem] = []
    image, label = (_read_or_note(path, found) for path in (case.image, case.label))
    if label is None or case.label is None:
        return CheckedCase(case, tuple(found), frozenset())
    whole, broken = whole_values(label[0])
    if broken.size > 0:
        found.append(Problem(case.label, f"label {broken[0]:.10g} is not a whole number", "mend the file"))
    if image is not None and label[0].shape != image[0].shape:
        what = f"shape {label[0].shape} differs from its image's {image[0].shape}"
        found.append(Problem(case.label, what, "export the label on the image's grid"))
    elif image is not None and not np.allclose(label[1].affine, image[1].affine, atol=SAME_PLACE_MM):
        found.append(Problem(case.label, "affine differs from its image's", "export the label on the image's grid"))
    return CheckedCase(case, tuple(found), frozenset(map(int, whole)))


def problems(checked: CheckedCase, classes: Mapping[str, int]) -> Iterator[Problem]:
    """Everything that is wrong with a case whose label may have the values of `classes`.

    Values are not judged where something else is wrong: a damaged file may hold any.
    """
    yield from checked.problems
    unknown = sorted(checked.values - set(classes.values()))
    if unknown and checked.case.label is not None and not checked.problems:
        known = ", ".join(str(value) for value in classes.values())
        what = f"label {unknown[0]} is unknown, known are {known}"
        yield Problem(checked.case.label, what, "mend the file or the classes")


def _read_or_note(path: Path | None, found: list[Problem]) -> tuple[np.ndarray, SpatialImage] | None:
    """What a file holds; None without one, or where it is not readable, which is then among the problems found."""
    if path is None:
        return None
    try:
        return read_nifti(path)
    except SemiclError as error:
        what, way_out = str(error).removeprefix(f"{path}: ").rsplit("; ", 1)
        found.append(Problem(path, what, way_out))
        return None


def _kind(array: np.ndarray) -> str:
    """The type of an array's elements in words."""
    return "colours" if array.dtype.names else f"{array.dtype} numbers"
