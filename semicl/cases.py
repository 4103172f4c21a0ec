"""The cases of a folder, and whether their files can be read."""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from semicl.errors import SemiclError

UNREADABLE = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel raises for files that are missing, cut off, damaged or no NIfTI at all."""


@dataclass(frozen=True)
class Case:
    """One scan: an image file, its label file, and whose scan it is."""

    name: str
    subject: str
    image: Path
    label: Path


@dataclass(frozen=True)
class CaseFolder:
    """The labelled cases of one folder; `classes[k]` is the name of label k, `classes[0]` the background."""

    name: str
    classes: tuple[str, ...]
    cases: tuple[Case, ...]


def subject_of(case_name: str) -> str:
    """Whose scan a case is: the subject ceil(id / 2) of a name that ends in a number, else the name itself.

    Cases 2k-1 and 2k of the Decathlon's hippocampus task are the same scan. In a folder where they are not, the rule
    only keeps two neighbours on the same side of a split.
    """
    number = re.search(r"(\d+)$", case_name)
    return case_name if number is None else f"subject {(int(number[1]) + 1) // 2}"


def find_cases(folder: Path) -> CaseFolder:
    """The labelled cases that `dataset.json` of a Medical Segmentation Decathlon folder lists.

    Raises:
        SemiclError: no such folder, no usable `dataset.json`, labels that are not 0, 1, 2..., or no case.
    """
    description = folder / "dataset.json"
    if not folder.is_dir():
        raise SemiclError(f"{folder}: no such folder; give --data a Decathlon task folder, or 'phantom'")
    if not description.is_file():
        raise SemiclError(f"{description}: no such file; a Decathlon task folder has dataset.json, imagesTr, labelsTr")
    try:
        content = json.loads(description.read_text())
        names = {int(value): str(name) for value, name in content["labels"].items()}
        cases = tuple(_case(folder, entry) for entry in content["training"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SemiclError(
            f"{description}: not a Decathlon description ({type(error).__name__}: {error}); "
            "it needs 'labels' and 'training' as in the Decathlon's own tasks"
        ) from error
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise SemiclError(f"{description}: labels must be 0 (background), 1, 2, ..., found {sorted(names)}")
    if not cases:
        raise SemiclError(f"{description}: lists no training case; add image and label pairs to 'training'")
    return CaseFolder(str(content.get("name", folder.name)), tuple(names[k] for k in sorted(names)), cases)


def check_case(case: Case, classes: int) -> None:
    """Read both files of a case once, and keep nothing, to learn of damage before hours of training and not after.

    Raises:
        SemiclError: a file is missing, unreadable or not 3-D; the label's shape or place differs from the image's;
            a label is not one of 0, ..., classes - 1.
    """
    image, image_affine = _read(case.image)
    label, label_affine = _read(case.label)
    if image.ndim != 3:
        raise SemiclError(f"{case.image}: has {image.ndim} dimensions, not 3; give one 3-D volume a file")
    if label.shape != image.shape:
        raise SemiclError(
            f"{case.label}: shape {label.shape} differs from its image's {image.shape}; "
            "export the label on the image's grid, or take the case out of dataset.json"
        )
    if not np.allclose(image_affine, label_affine, atol=1e-2):
        raise SemiclError(f"{case.label}: affine differs from its image's; export the label on the image's grid")
    if not np.isfinite(image).all():
        raise SemiclError(f"{case.image}: holds NaN or infinity; replace them or take the case out of dataset.json")
    unknown = np.setdiff1d(label, np.arange(classes))
    if unknown.size:
        raise SemiclError(f"{case.label}: label {unknown[0]:g} is not in dataset.json, which knows 0 to {classes - 1}")


def _case(folder: Path, entry: dict[str, str]) -> Case:
    image = folder / entry["image"]
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    return Case(name, subject_of(name), image, folder / entry["label"])


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise SemiclError(f"{path}: no such file, though dataset.json lists it; copy it there or take the case out")
    try:
        volume = nibabel.load(path)
        if not isinstance(volume, SpatialImage):
            raise SemiclError(f"{path}: holds no volume; give one NIfTI volume a file")
        return np.asarray(volume.dataobj), np.asarray(volume.affine)
    except UNREADABLE as error:
        raise SemiclError(
            f"{path}: not readable as NIfTI ({type(error).__name__}: {error}); copy or download the file again"
        ) from error
