"""The cases of a folder, in any of the three layouts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicl.data.classes import folded, needed_of_classes, nfc
from semicl.data.nifti_names import FORMATS, by_case, found_file, image_files, nifti_files, stem
from semicl.errors import SemiclError
from semicl.files import read_json

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

DECATHLON = "dataset.json"
"""The Decathlon's own description of a folder."""

IGNORE = "ignore"
"""nnU-Net's name of the label whose voxels are ignored."""

KINDS = {"images": ("image", "img"), "labels": ("label", "mask", "seg", "annot")}
"""The folders of a plain folder, and how the names of others begin that may hold the same."""

MMWHS_IMAGE, MMWHS_LABEL = "_image", "_label"

Subject = Callable[[str], str]


@dataclass(frozen=True)
class Case:
    """One scan: its name, whose scan it is, its image file, and its label file where there is one.

    `more` holds the files of the image's further channels, where each channel has one of its own.
    """

    name: str
    subject: str
    image: Path
    label: Path | None
    more: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.image, *self.more) if self.label is None else (self.image, *self.more, self.label)


@dataclass(frozen=True)
class CaseFolder:
    """The cases of one folder.

    `classes` maps each class's name to its value in the label files, the background (0) first; it is None where only
    the label files tell (a plain folder). Class number k is the k-th of them. Voxels of the values in `ignored` are of
    no class that is known.
    """

    name: str
    classes: dict[str, int] | None
    cases: tuple[Case, ...]
    ignored: tuple[int, ...] = ()


def find_cases(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    """The cases of a Decathlon folder, an MMWHS folder, or a folder of images/ and labels/.

    Args:
        folder: where to look.
        subject_of: from the dataset's name to the rule that names a case's subject.

    Raises:
        SemiclError: no such folder, none of the three layouts, an unusable `dataset.json`, no case, one that is there
            twice, or a label without an image.
    """
    if not folder.is_dir():
        raise SemiclError(f"{folder}: no such folder; give --data a folder of cases")
    if (folder / DECATHLON).is_file():
        return _decathlon(folder, subject_of)
    if (folder / "images").is_dir():
        return _plain(folder, subject_of)
    if any(stem(file).endswith(MMWHS_IMAGE) for file in nifti_files(folder)):
        return _mmwhs(folder, subject_of)
    raise SemiclError(
        f"{folder}: holds no cases; give a folder with dataset.json (Decathlon), with *_image.nii.gz files (MMWHS), "
        f"or with images/ and labels/{to_rename(folder)}{_to_move(folder)}"
    )


def _to_move(folder: Path) -> str:
    """What would make a plain folder of one that holds images itself."""
    if not image_files(folder):
        return ""
    above = folder.resolve().parent
    if folder.resolve().name in KINDS and (above / "images").is_dir():
        return f"; give --data the folder above, {above}"
    return "; move its images into images/ in it"


def to_rename(folder: Path) -> str:
    """What would make a plain folder, or a task of the Decathlon, of one that has folders of other names."""
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    lacking = {kind: begins for kind, begins in KINDS.items() if kind not in inner}
    found = {kind: [name for name in inner if name.lower().startswith(begins)] for kind, begins in lacking.items()}
    renamed = " and ".join(f"{names[0]} to {kind}" for kind, names in found.items() if names)
    return f": rename {renamed}, or add the task's {DECATHLON}" if renamed else ""


def _decathlon(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    """The cases of a task of the Decathlon, or of a raw folder of nnU-Net, whose description tells the same."""
    description = folder / DECATHLON
    try:
        content = read_json(description)
        name = str(content.get("name", folder.name))
        labels = _described(content["labels"])
        files = _listed(folder, content["training"]) if "training" in content else _raw(folder)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise SemiclError(
            f"{description}: not a Decathlon description ({type(error).__name__}: {error}); "
            "it needs 'labels' and 'training' as in the Decathlon's own tasks, or 'labels' as in nnU-Net's"
        ) from error
    values = sorted(value for value, _ in labels)
    if values != list(range(len(labels))) or len(labels) < 2:
        raise SemiclError(f"{description}: labels must be 0 (background), 1, 2, ..., found {values}")
    names = dict(labels)
    needed = needed_of_classes([(names[k], k) for k in values[1:]], names[0])
    if needed is not None:
        raise SemiclError(f"{description}: 'labels' takes {needed}")
    if not files:
        raise SemiclError(
            f"{description}: lists no training case; add image and label pairs to 'training', or images to imagesTr"
        )
    rule = subject_of(name)
    cases = tuple(Case(case, rule(case), image, label, tuple(more)) for case, ([image, *more], label) in files.items())
    ignored = tuple(k for k in values if folded(names[k]) == IGNORE)
    return CaseFolder(name, {names[k]: k for k in values if k not in ignored}, cases, ignored)


def _described(labels: dict[str, Any]) -> list[tuple[int, str]]:
    """Value and name of each class: names by value in the Decathlon's form, values by name in nnU-Net's."""
    if any(isinstance(value, list) for value in labels.values()):
        raise ValueError("a label of several values, a region of nnU-Net's, is not taken")
    if all(type(value) is int for value in labels.values()):
        return [(value, nfc(name)) for name, value in labels.items()]
    return [(int(value), nfc(str(label or ""))) for value, label in labels.items()]


def _listed(folder: Path, training: list[dict[str, str]]) -> dict[str, tuple[list[Path], Path]]:
    """Image and label of each case of a list; nnU-Net's names NAME.nii.gz where there are NAME_0000.nii.gz, ..."""
    pairs = [(_file(folder, entry["image"]), _file(folder, entry["label"])) for entry in training]
    found = {}
    for (case, image), (_, label) in zip(by_case(image for image, _ in pairs).items(), pairs, strict=True):
        channels = [] if image.exists() else _raw(folder, image.parent.name).get(case, ([], None))[0]
        found[case] = (channels or [image], label)
    return found


def _raw(folder: Path, images: str = "imagesTr") -> dict[str, tuple[list[Path], Path | None]]:
    """Channels and label of each case of nnU-Net's raw folder, which lists none."""
    labels = by_case(image_files(folder / "labelsTr"))
    channels = by_channel(by_case(image_files(folder / images))) or {}
    return {case: (files, labels.get(case)) for case, files in channels.items()}


def _file(folder: Path, name: str) -> Path:
    """A file of the description, whatever the encoding of the locale and the form of its accents are."""
    return found_file(folder / os.fsdecode(name.encode(errors="surrogateescape")))


def _mmwhs(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    files = nifti_files(folder)
    images, labels = by_case(files, MMWHS_IMAGE), by_case(files, MMWHS_LABEL)
    channels = {name: [image] for name, image in images.items()}
    return CaseFolder("MMWHS", {"background": 0} | MMWHS_CLASSES, _paired(channels, labels, subject_of("MMWHS")))


def _plain(folder: Path, subject_of: Callable[[str], Subject]) -> CaseFolder:
    images, labels = (by_case(image_files(folder / kind)) for kind in ("images", "labels"))
    if not images:
        raise SemiclError(f"{folder / 'images'}: holds no {FORMATS} file; put the images there")
    channels = by_channel(images)
    if channels is None or labels.keys() <= images.keys() or not labels.keys() <= channels.keys():
        channels = {name: [image] for name, image in images.items()}
    return CaseFolder(folder.name, None, _paired(channels, labels, subject_of(folder.name)))


def by_channel(images: dict[str, Path]) -> dict[str, list[Path]] | None:
    """The files of each case, one a channel, where all are named so: NAME_0000, NAME_0001, ..., as nnU-Net's."""
    found: dict[str, list[Path]] = {}
    for name in sorted(images):
        case, _, number = name.rpartition("_")
        if not case or number != f"{len(found.setdefault(case, [])):04d}":
            return None
        found[case].append(images[name])
    return found


def _paired(images: dict[str, list[Path]], labels: dict[str, Path], rule: Subject) -> tuple[Case, ...]:
    """A case for each image, whose channels may be files of their own, with the label of its name where there is one.

    Raises:
        SemiclError: a label has no image.
    """
    stray = [label for name, label in labels.items() if name not in images]
    if stray:
        where = next(iter(images.values()))[0].parent
        more = f" (and {len(stray) - 1} more)" if len(stray) > 1 else ""
        raise SemiclError(f"{stray[0]}{more}: no image has this name in {where}; name it as its image, or remove it")
    return tuple(Case(name, rule(name), image, labels.get(name), (*more,)) for name, (image, *more) in images.items())
