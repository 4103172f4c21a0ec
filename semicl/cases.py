"""The cases of a folder, in any of the three layouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semicl.errors import SemiclError

SUFFIXES = (".nii.gz", ".nii")
MMWHS_CLASSES = {
    "left ventricle": 500,
    "right ventricle": 600,
    "left atrium": 420,
    "right atrium": 550,
    "myocardium": 205,
    "aorta": 820,
    "pulmonary artery": 850,
}
"""Classes 1 to 7 and their values in the label files."""

Subject = Callable[[str], str]


@dataclass(frozen=True)
class Case:
    """One scan: its name, whose scan it is, its image file, and its label file where there is one."""

    name: str
    subject: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class CaseFolder:
    """The cases of one folder.

    `classes` maps each class's name to its value in the label files, the background (0) first; it is None where only
    the label files tell (a plain folder). Class number k is the k-th of them.
    """

    name: str
    classes: dict[str, int] | None
    cases: tuple[Case, ...]


def find_cases(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    """The cases of a Decathlon folder, an MMWHS folder, or a folder of images/ and labels/.

    Args:
        folder: where to look.
        subject_of: from the dataset's name to the rule that names a case's subject.

    Raises:
        SemiclError: no such folder, none of the three layouts, an unusable `dataset.json`, or no case.
    """
    if not folder.is_dir():
        raise SemiclError(f"{folder}: no such folder; give --data a folder of cases, or 'phantom'")
    if (folder / "dataset.json").is_file():
        return _decathlon(folder, subject_of)
    if (folder / "images").is_dir():
        return _plain(folder, subject_of)
    if next(folder.glob("*_image.nii*"), None) is not None:
        return _mmwhs(folder, subject_of)
    raise SemiclError(
        f"{folder}: holds no cases; give a folder with dataset.json (Decathlon), with *_image.nii.gz files (MMWHS), "
        "or with images/ and labels/"
    )


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files of a folder by name, hidden ones left out."""
    return sorted(f for f in folder.iterdir() if f.name.endswith(SUFFIXES) and not f.name.startswith("."))


def case_name(file: Path) -> str:
    """A file's name without .nii or .nii.gz."""
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _decathlon(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    description = folder / "dataset.json"
    try:
        content = json.loads(description.read_text())
        name = str(content.get("name", folder.name))
        names = {int(value): str(label) for value, label in content["labels"].items()}
        pairs = [(folder / entry["image"], folder / entry["label"]) for entry in content["training"]]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise SemiclError(
            f"{description}: not a Decathlon description ({type(error).__name__}: {error}); "
            "it needs 'labels' and 'training' as in the Decathlon's own tasks"
        ) from error
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise SemiclError(f"{description}: labels must be 0 (background), 1, 2, ..., found {sorted(names)}")
    if not pairs:
        raise SemiclError(f"{description}: lists no training case; add image and label pairs to 'training'")
    rule = subject_of(name)
    cases = tuple(Case(case_name(image), rule(case_name(image)), image, label) for image, label in pairs)
    _require_distinct(description, cases)
    return CaseFolder(name, {names[k]: k for k in sorted(names)}, cases)


def _mmwhs(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    rule = subject_of("MMWHS")
    cases = []
    for image in (f for f in nifti_files(folder) if "_image.nii" in f.name):
        name = case_name(image).removesuffix("_image")
        label = image.with_name(image.name.replace("_image.nii", "_label.nii"))
        cases.append(Case(name, rule(name), image, label if label.is_file() else None))
    return CaseFolder("MMWHS", {"background": 0} | MMWHS_CLASSES, tuple(cases))


def _plain(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    images = nifti_files(folder / "images")
    if not images:
        raise SemiclError(f"{folder / 'images'}: holds no .nii or .nii.gz file; put the images there")
    labels = {case_name(file): file for file in nifti_files(folder / "labels")} if (folder / "labels").is_dir() else {}
    rule = subject_of(folder.name)
    names = [case_name(image) for image in images]
    cases = tuple(Case(name, rule(name), image, labels.get(name)) for name, image in zip(names, images, strict=True))
    strangers = sorted(set(labels) - {case.name for case in cases})
    if strangers:
        raise SemiclError(f"{labels[strangers[0]]}: no image has this name in {folder / 'images'}; rename or remove it")
    _require_distinct(folder / "images", cases)
    return CaseFolder(folder.name, None, cases)


def _require_distinct(where: Path, cases: tuple[Case, ...]) -> None:
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SemiclError(f"{where}: case {twice} is there twice; leave one out")
