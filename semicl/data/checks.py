"""Whether the files of a case can be used: read once, before hours of training and not after."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import FileBasedImage

from semicl.data.cases import Case
from semicl.data.classes import Merged
from semicl.data.geometry import affine_in_mm, placed, tells_unit, voxel_size
from semicl.data.grid import Grid, spacing_problem
from semicl.data.intensities import squashed
from semicl.data.itk_files import read_itk
from semicl.data.nifti_content import read_content
from semicl.data.nifti_names import is_itk, is_label, is_picture, mixes_case
from semicl.data.pictures import read_picture
from semicl.errors import SemiclError

SAME_PLACE_MM = 1e-2
"""Affines that differ by less are the same: programs round them differently."""

SAME_PLACE = 0.1
"""As a share of a voxel's smallest side, which counts where it is less than `SAME_PLACE_MM`."""

LARGEST_INTENSITY = 1e30
"""Larger numbers are no intensities: programs fill empty voxels with the largest that a type holds."""

OUTLIERS = (
    "is of about one intensity but for outliers, by which it would be scaled",
    "replace the outliers or take the case out",
)
"""What is wrong with an image that is squashed, and the way out."""

# It notes what it mends in a header, without the file's name. `semicl.data.geometry` judges the header as it is stored.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


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
        shape: of its image's array; None where that is not readable.
        affine: of its image, in mm; None where that is not readable.
        tells_unit: whether its image's header names the unit of the affine.
        is_constant: whether its image holds one value alone, in which a network sees nothing.
        channels: of its image; None where that is not readable.
    """

    case: Case
    problems: tuple[Problem, ...]
    values: frozenset[int]
    shape: tuple[int, ...] | None = None
    affine: np.ndarray | None = None
    tells_unit: bool = True
    is_constant: bool = False
    channels: int | None = None


def read_channels(path: Path, more: Sequence[Path] = ()) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """The channels (C, X, Y, Z) of an image, and its first file, whose header and affine tell the geometry.

    They are the last axis of one file, or a file each.

    Raises:
        SemiclError: as of :func:`read_nifti`, or the files of one image differ in shape or place.
    """
    if not more:
        array, volume = read_nifti(path, channels=True)
        return (array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)), volume
    first, volume = read_nifti(path)
    arrays = [first]
    for file in more:
        array, other = read_nifti(file)
        if array.shape != first.shape or not _in_one_place(other, volume):
            raise SemiclError(f"{file}: shape or affine differs from {path.name}'s; export the channels on one grid")
        arrays.append(array)
    return np.stack(arrays), volume


def read_nifti(path: Path, channels: bool = False) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """The array (X, Y, Z), or (X, Y, Z, C) of channels, of a NIfTI file and its image, which tells the geometry.

    Further axes of length 1 are left out of the array. The affine is that of the sform, or of the qform where the
    sform cannot be used; it is in the header's unit (`semicl.data.geometry.affine_in_mm`).

    Raises:
        SemiclError: no such file, a suffix as .Nii, not readable, not 3-D, not one number a voxel, NaN, infinity or
            numbers beyond `LARGEST_INTENSITY`, or a header that does not tell where the voxels are.
    """
    if path.is_dir():
        raise SemiclError(f"{path}: is a folder, not a file; move the file out of it, or rename the folder")
    if not path.is_file():
        raise SemiclError(f"{path}: no such file; copy it there or take the case out")
    if mixes_case(path):  # for which nibabel would open a file of another name
        raise SemiclError(f"{path}: its suffix mixes capitals and small letters; rename it to .nii or .nii.gz")
    try:
        if is_picture(path) or is_itk(path):
            array, volume = read_picture(path, channels) if is_picture(path) else read_itk(path)
        else:
            array, volume, stored = read_content(path)
            if np.isinf(stored["scl_slope"]):  # which nibabel takes for no scale
                raise SemiclError(f"{path}: has an infinite scl_slope; export it again")
            volume = placed(path, volume, stored)
    except SemiclError:
        raise
    except Exception as error:  # whatever the damage leads to in nibabel, Pillow or ITK
        kind = "a picture" if is_picture(path) else "an image" if is_itk(path) else "NIfTI"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SemiclError(f"{path}: not readable as {kind} ({reason}); copy or download the file again") from error
    if array.ndim == 4 and is_picture(path) and not channels:  # many programs save grey masks as colours
        if (array != array[..., :1]).any():
            raise SemiclError(
                f"{path}: holds colours, where one number a pixel is taken; save it in grey values or with a palette"
            )
        array = array[..., :1]
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 and not (channels and array.ndim == 4):
        raise SemiclError(
            f"{path}: has {array.ndim} dimensions, of lengths {array.shape}, not 3; give one 3-D volume a file"
        )
    if 0 in array.shape:
        raise SemiclError(f"{path}: is empty, of shape {array.shape}; export it again")
    if array.dtype.kind not in "iuf":  # RGB is a structure of three numbers
        raise SemiclError(f"{path}: holds {_kind(array)}, not one number a voxel; export it in grey values")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise SemiclError(f"{path}: holds NaN or infinity; replace them or take the case out")
        largest = np.abs(array).max()
        if largest > LARGEST_INTENSITY:
            raise SemiclError(
                f"{path}: holds numbers as large as {largest:.3g}, which stand for missing ones where they are larger "
                f"than {LARGEST_INTENSITY:g}; replace them or take the case out"
            )
    return array, volume


def stored_image(path: Path) -> FileBasedImage:
    """An image whose header tells the geometry, and its voxels only when they are asked for."""
    if is_itk(path):
        return read_itk(path)[1]
    return read_picture(path)[1] if is_picture(path) else nibabel.load(path)


def check_files(case: Case) -> CheckedCase:
    """Read the files of a case; what is wrong with them is told without knowing the classes."""
    found: list[Problem] = []
    image = _read_or_note(case.image, found, lambda path: read_channels(path, case.more))
    label = _read_or_note(case.label, found, read_nifti)
    values: frozenset[int] = frozenset()
    if label is not None and case.label is not None:
        if not is_label(case.label):
            found.append(Problem(case.label, "is a JPEG file, which changes the numbers", "save the mask as PNG"))
        whole, broken = whole_values(label[0])
        values = frozenset(map(int, whole))
        if broken.size > 0:
            found.append(Problem(case.label, f"label {broken[0]:.10g} is not a whole number", "mend the file"))
        way_out = "export the label on the image's grid"
        if image is not None and label[0].shape != image[0].shape[1:]:
            own, other = label[0].shape, image[0].shape[1:]
            what = f"shape {own} differs from its image's {other}"
            if is_picture(case.label) and is_picture(case.image):
                what = f"{own[0]} x {own[1]} pixels differ from its image's {other[0]} x {other[1]}"
                way_out = "save the mask in the size of its image"
            found.append(Problem(case.label, what, way_out))
        elif image is not None and not _in_one_place(label[1], image[1]):
            found.append(Problem(case.label, "affine differs from its image's", way_out))
    if image is None:
        return CheckedCase(case, tuple(found), values)
    array, volume = image
    if any(map(squashed, array)):
        found.append(Problem(case.image, *OUTLIERS))
    return CheckedCase(
        case,
        tuple(found),
        values,
        array.shape[1:],
        affine_in_mm(volume),
        tells_unit(volume),
        any(channel.min() == channel.max() for channel in array),
        len(array),
    )


def require_same_place(file: Path, case: Case) -> None:
    """Raise where another label file of a case does not lie where its own lies.

    Raises:
        SemiclError: its shape or affine differs, or it is not readable or holds numbers that are not whole.
    """
    assert case.label is not None
    (array, volume), (label, placed_label) = read_nifti(file), read_nifti(case.label)
    broken = whole_values(array)[1]
    if broken.size > 0:
        raise SemiclError(f"{file}: label {broken[0]:.10g} is not a whole number; give label files, not probabilities")
    if array.shape != label.shape:
        raise SemiclError(
            f"{file}: shape {array.shape} differs from that of {case.label}, {label.shape}; export it on the image's "
            "grid"
        )
    if not _in_one_place(volume, placed_label):
        raise SemiclError(f"{file}: affine differs from that of {case.label}; export it on the image's grid")


def problems(
    checked: CheckedCase,
    classes: Mapping[str, int],
    grid: Grid,
    channels: int = 1,
    merged: Merged | None = None,
) -> Iterator[Problem]:
    """Everything that is wrong with a case of so many channels whose label may have the values of `classes`, on a grid.

    Values that count as those of another class, or are ignored, as `merged` tells, are known too.

    Values are not judged where something else is wrong: a damaged file may hold any.
    """
    yield from checked.problems
    if checked.shape is not None and checked.affine is not None:
        resampling = spacing_problem(checked.shape, checked.affine, grid)
        if resampling is not None:
            yield Problem(checked.case.image, *resampling)
    if checked.channels not in (None, channels):
        what = f"image of {checked.channels} channels, beside others of {channels}"
        yield Problem(checked.case.image, what, "give all cases the same channels")
    unknown = sorted(checked.values - {*classes.values(), *(merged or {})})
    if unknown and checked.case.label is not None and not checked.problems:
        known = ", ".join(str(value) for value in classes.values())
        what = f"label {unknown[0]} is unknown, known are {known}"
        way_out = f"mend the file or the classes, or prepare with --rest_is_background or --ignore {unknown[0]}"
        yield Problem(checked.case.label, what, way_out)


def unit_note(checked: Sequence[CheckedCase]) -> str | None:
    """A line about images whose header names no unit of length; None where all do."""
    silent = [each.case.name for each in checked if not each.tells_unit]
    if not silent:
        return None
    return (
        f"{len(silent)} of {len(checked)} images name no unit of their voxel size (xyzt_units), as {silent[0]}: it is "
        "taken for millimeters."
    )


def _read_or_note(
    path: Path | None, found: list[Problem], read: Callable[[Path], tuple[np.ndarray, nibabel.Nifti1Image]]
) -> tuple[np.ndarray, nibabel.Nifti1Image] | None:
    """What a file holds; None without one, or where it is not readable, which is then among the problems found."""
    if path is None:
        return None
    try:
        return read(path)
    except SemiclError as error:
        file, what = str(error).split(": ", 1)
        found.append(Problem(Path(file), *what.rsplit("; ", 1)))
        return None


def _in_one_place(label: nibabel.Nifti1Image, image: nibabel.Nifti1Image) -> bool:
    """Whether the voxels of a label lie where those of its image are."""
    first, second = affine_in_mm(label, beside=image), affine_in_mm(image, beside=label)
    tolerance = min(SAME_PLACE_MM, SAME_PLACE * min(voxel_size(second)))
    return bool(np.allclose(first, second, atol=tolerance))


def _kind(array: np.ndarray) -> str:
    """The type of an array's elements in words."""
    return "colours" if array.dtype.names else f"{array.dtype} numbers"


ROUNDING = 1e-3
"""A number nearer than this to a whole one is meant to be it."""


def whole_values(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a label map: first the whole ones, rounded, then those that are not whole."""
    values = np.unique(label)
    rounded = np.round(values)
    is_whole = np.abs(values - rounded) < ROUNDING
    return np.unique(rounded[is_whole]), values[~is_whole]
