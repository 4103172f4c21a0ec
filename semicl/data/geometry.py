"""Where the voxels of a NIfTI file lie: its affine, checked, and in millimeters."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import FileBasedImage

from semicl.errors import SemiclError

UNITS_IN_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
"""NIfTI's codes of meter, millimeter and micron."""

FORM_CODES = range(1, 6)
"""NIfTI's codes of a qform or sform that is set."""

VOXEL_MM = (1e-6, 1e4)
"""Smallest and largest side of a voxel."""

LARGEST_OFFSET_MM = 1e7
"""Farther from the origin nothing lies, and float64 holds every place up to here."""

LEAST_VOLUME = 1e-3
"""Volume of a voxel over that of a cuboid with its sides; 0 where the axes depend on each other."""


def placed(path: Path, volume: nibabel.Nifti1Image, stored: Any) -> nibabel.Nifti1Image:
    """The volume with an affine that can be used: that of its sform, else of its qform.

    A header with neither places its voxels by `pixdim` alone.

    Args:
        path: the file, for the error.
        volume: what nibabel loaded of it.
        stored: its header as the file holds it.

    Raises:
        SemiclError: the affine is not finite, its axes have no length or depend on each other, a voxel's side is not
            in `VOXEL_MM`, or the volume is too far from the origin.
    """
    wrong = []
    if stored["sform_code"] != 0:
        problem = _unknown_code(stored, "sform") or _problem(volume.header.get_sform(), volume)
        if problem is None:
            return volume
        wrong.append(f"sform {problem}")
    if stored["qform_code"] != 0 or not wrong:
        told = "qform" if stored["qform_code"] != 0 else "pixdim"
        problem = _unknown_code(stored, "qform") or _pixdim_problem(stored)
        header = volume.header.copy()
        header.set_sform(None, 0)
        problem = problem or _problem(header.get_best_affine(), volume)
        if problem is None:
            return type(volume)(volume.dataobj, header.get_best_affine(), header) if wrong else volume
        wrong.append(f"{told} {problem}")
    raise SemiclError(f"{path}: its {', its '.join(wrong)}; export it again, or set its sform")


def tells_unit(volume: nibabel.Nifti1Image) -> bool:
    """Whether a header names the unit of its affine."""
    return _unit(volume) in UNITS_IN_MM


def affine_in_mm(volume: nibabel.Nifti1Image, beside: FileBasedImage | None = None) -> np.ndarray:
    """The affine (4, 4) float64 from voxel numbers to millimeters.

    The unit is that of the header's `xyzt_units`; where that names none, that of the volume beside it (a label's
    image); where there is none either, millimeters.
    """
    codes = (_unit(each) for each in (volume, beside) if each is not None)
    unit = next((UNITS_IN_MM[code] for code in codes if code in UNITS_IN_MM), 1.0)
    return np.diag([unit, unit, unit, 1.0]) @ volume.affine


def voxel_size(affine: np.ndarray) -> tuple[float, ...]:
    """Length of each axis of a voxel, in the unit of the affine."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def _unit(volume: Any) -> int:
    return int(volume.header["xyzt_units"]) & 7


def _unknown_code(stored: Any, form: str) -> str | None:
    code = int(stored[f"{form}_code"])
    return f"has the unknown code {code}" if code != 0 and code not in FORM_CODES else None


def _pixdim_problem(stored: Any) -> str | None:
    """What is wrong with the voxel size that a qform, or no form, goes by."""
    sign, *sides = (float(value) for value in stored["pixdim"][:4])
    if 0 in sides or not np.isfinite(sides).all():
        return f"has voxels of {' x '.join(f'{side:g}' for side in sides)}"
    if stored["qform_code"] != 0 and sign not in (-1, 0, 1):
        return f"has pixdim[0] {sign:g}, not -1 or 1"
    return None


def _problem(affine: np.ndarray, volume: nibabel.Nifti1Image) -> str | None:
    """What is wrong with an affine in the unit of the header."""
    if not np.isfinite(affine).all():
        return "holds NaN or infinity"
    unit = UNITS_IN_MM.get(_unit(volume), 1.0)
    sides = np.array(voxel_size(affine))
    if sides.min() == 0:
        return "has an axis of length 0"
    told = " x ".join(f"{side:g}" for side in unit * sides)
    if not VOXEL_MM[0] <= unit * sides.min() <= unit * sides.max() <= VOXEL_MM[1]:
        return f"has voxels of {told} mm"
    if abs(np.linalg.det(affine[:3, :3] / sides)) < LEAST_VOLUME:
        return "has axes that depend on each other"
    if unit * np.abs(affine[:3, 3]).max() > LARGEST_OFFSET_MM:
        return f"puts the volume {unit * np.abs(affine[:3, 3]).max():g} mm from the origin"
    return None
