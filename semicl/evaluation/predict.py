"""`semicl predict`: NIfTI in, NIfTI out, in the case's own geometry."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semicl.console import conclude, progress_bar, say
from semicl.data.cases import by_channel
from semicl.data.checks import read_channels, read_nifti
from semicl.data.nifti_content import read_content
from semicl.data.nifti_names import (
    FORMATS,
    case_name,
    image_files,
    is_image,
    is_itk,
    is_label,
    is_nifti,
    is_other_file,
    is_picture,
    label_name,
    left_out,
    mixes_case,
    stem,
)
from semicl.errors import SemiclError
from semicl.files import output_file, output_folder, require_checkpoint
from semicl.options import PredictOptions

if TYPE_CHECKING:
    from semicl.models.checkpoint import ModelCard

OF_LABELS = "give another --{option}, --overwrite to replace what is there, or --skip_existing to leave it"

DARK = 50
"""Of 255: numbers of classes that are all below it look black."""


def predict(options: PredictOptions) -> None:
    """Write a label file for each image, of its shape, affine and orientation.

    All images are checked before the first is predicted; those that cannot be used are named at once, and the others
    predicted.

    Raises:
        SemiclError: the checkpoint cannot be used, a label file would replace something else than a label file, or is
            there already and not to be replaced or skipped; nothing has then been written. Or images cannot be used,
            when the others are done.
    """
    for checkpoint in options.checkpoint:
        require_checkpoint(checkpoint)
    images = _images(options)
    labels = _labels(options, images)
    left = {image: label for image, label in labels.items() if not (options.skip_existing and _is_done(label, options))}
    cases = Counter(map(case_name, labels))
    failed = _failures(left, lambda image: _check(image, images[image], cases))
    sound = {image: label for image, label in left.items() if image not in failed}
    if sound:
        failed |= _predicted(options, images, sound)
    done = [label for image, label in sound.items() if image not in failed]
    rows = {
        "images": len(labels),
        "predicted": len(done),
        **({"skipped, there already": len(labels) - len(left)} if options.skip_existing else {}),
        **({"failed": len(failed)} if failed else {}),
        "labels": options.output,
    }
    if done or not failed:
        conclude("Predicted", rows)
    if failed:
        raise SemiclError("; ".join(failed.values()) if len(labels) == 1 else _all_told(failed, len(labels)))


def _is_done(label: Path, options: PredictOptions) -> bool:
    """Whether the files of a label are there; one that cannot be read, as a full disk leaves it, is not, and told."""
    probabilities = _beside(label)
    if not label.exists() or (options.probabilities and not probabilities.exists()):
        return False
    try:
        read_nifti(label)
    except SemiclError:
        say(f"{label}: not readable, so that it is predicted again.")
        return False
    if options.probabilities and _names_in(probabilities) is None:
        say(f"{probabilities}: not readable, so that it is predicted again.")
        return False
    return True


def _beside(label: Path) -> Path:
    """The file of the probabilities of a label file."""
    return label.with_name(f"{stem(label)}.npz")


def _names_in(file: Path) -> list[str] | None:
    """The names of the arrays in a .npz file; None where it is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() else [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error):
        return None


def _check(image: Path, more: Sequence[Path], cases: Mapping[str, int]) -> None:
    """Raise where an image cannot be used, or is not the only one of its case."""
    if cases[case_name(image)] > 1:
        raise SemiclError(f"{image}: case {case_name(image)} is there twice; leave one file of it out")
    read_channels(image, more)


def _predicted(
    options: PredictOptions, images: Mapping[Path, Sequence[Path]], labels: Mapping[Path, Path]
) -> dict[Path, str]:
    """Predict images; returns why, for those of which no label file could be made."""
    from semicl.data.volumes import check_image
    from semicl.evaluation.inference import (
        file_probabilities,
        largest_components,
        to_device,
        write_labels,
        write_probabilities,
    )
    from semicl.models.checkpoint import load_segmentation

    models = [load_segmentation(checkpoint) for checkpoint in options.checkpoint]
    _, card = models[0]
    for path, (_, other) in zip(options.checkpoint, models, strict=True):
        if (other.classes, other.channels) != (card.classes, card.channels):
            raise SemiclError(
                f"{path}: knows {_known(other)}, {options.checkpoint[0]} {_known(card)}; give checkpoints that were "
                "trained for the same"
            )
    for label in labels.values():
        _require_replaceable(label, list(card.classes.values()))
        if options.probabilities and "probabilities" not in (_names_in(_beside(label)) or ["probabilities"]):
            raise SemiclError(
                f"{_beside(label)}: would be replaced, and holds no probabilities; give another --output, or move it "
                "away"
            )
    grids = {each.grid for _, each in models}
    failed = _failures(labels, lambda image: [check_image(image, grid, images[image], card.channels) for grid in grids])
    models = [(to_device(network, options.machine), each) for network, each in models]
    fitting = {image: label for image, label in labels.items() if image not in failed}
    if any(map(is_picture, fitting.values())):
        held = ", ".join(f"{value} for {name}" for name, value in card.classes.items())
        dark = "; small numbers look black in a viewer" if max(card.classes.values()) < DARK else ""
        say(f"Pictures of labels hold {held}{dark}.")
    for image, label in progress_bar(fitting.items(), desc="predict", unit="image"):
        try:
            found = file_probabilities(models, image, images[image], options.tta)
            numbers = found.argmax(0)
            if options.largest_component:
                numbers = largest_components(numbers, len(card.classes))
            if options.probabilities:
                write_probabilities(_beside(label), found, card, is_picture(image))
            write_labels(label, numbers, card, read_channels(image, images[image])[1])
        except SemiclError as error:
            failed[image] = str(error)
    return failed


def _known(card: ModelCard) -> str:
    """The classes and channels of a checkpoint."""
    classes = ", ".join(f"{name} ({value})" for name, value in card.classes.items())
    return f"{classes} in {card.channels} channel{'s' if card.channels > 1 else ''}"


def _require_replaceable(label: Path, values: Sequence[int]) -> None:
    """Raise where a file is there that may be an image: it is neither a label map of these values nor damaged."""
    if not label.exists():
        return
    try:
        array = read_content(label)[0] if is_nifti(label) else read_nifti(label)[0]
        is_label = array.dtype.kind in "iu" and bool(np.isin(array, values).all())
    except SemiclError:  # no voxels alone
        is_label = False
    except Exception:  # damaged
        is_label = True
    if not is_label:
        raise SemiclError(
            f"{label}: would be replaced, and is no label map of the checkpoint's classes; give another --output, or "
            "move it away"
        )


def _failures(images: Iterable[Path], check: Callable[[Path], object]) -> dict[Path, str]:
    """What a check says, by image, of those that fail it; told at once where others pass."""
    images, failed = list(images), {}
    for image in images:
        try:
            check(image)
        except SemiclError as error:
            failed[image] = str(error)
    if len(failed) < len(images):
        for reason in failed.values():
            say(f"LEFT OUT: {reason}")
    return failed


def _all_told(failed: Mapping[Path, str], images: int) -> str:
    """All failures in a line."""
    reasons = "; ".join(failed.values())
    way_out = "mend them and call again with --skip_existing"
    return f"{len(failed)} of {images} images could not be predicted ({reasons}); {way_out}"


def _labels(options: PredictOptions, images: Mapping[Path, Sequence[Path]]) -> dict[Path, Path]:
    """The label file of each image, in the output folder, or the output itself where it is named as a file.

    Raises:
        SemiclError: one may not be written, or a file is named for many images.
    """
    inputs = [*images, *(file for more in images.values() for file in more), *options.checkpoint]
    replace = options.overwrite or options.skip_existing
    if is_label(options.output) and not options.output.is_dir():
        if len(images) > 1:
            raise SemiclError(f"{options.output}: is one file for {len(images)} images; give --output a folder")
        if mixes_case(options.output):
            raise SemiclError(f"{options.output}: its suffix mixes capitals and small letters; give .nii or .nii.gz")
        (image,) = images
        if any(of_format(options.output) != of_format(image) for of_format in (is_nifti, is_itk)):
            raise SemiclError(f"{options.output}: is no name for the labels of {image.name}; give its format")
        if options.probabilities:
            output_file(_beside(options.output), inputs, overwrite=replace)
        return {image: output_file(options.output, inputs, overwrite=replace)}
    if is_other_file(options.output) and not options.output.is_dir():
        raise SemiclError(
            f"{options.output}: is named as a file of another format; give --output a folder, or for one image a name "
            "of its format (.nii, .nii.gz, .nrrd, .mha; of a picture .png, .tif, .bmp)"
        )
    names = [_whole_name(image) if more else label_name(image) for image, more in images.items()]
    folders = [image.parent for image in images]
    files = names + ([_beside(Path(name)).name for name in names] if options.probabilities else [])
    output_folder(options.output, [*inputs, *folders], files=files, overwrite=replace, way_out=OF_LABELS)
    return {image: options.output / name for image, name in zip(images, names, strict=True)}


def _whole_name(image: Path) -> str:
    """The name of the label file of an image whose first channel is a file of its own."""
    return label_name(image.with_name(image.name.replace("_0000.", ".")))


def _images(options: PredictOptions) -> dict[Path, list[Path]]:
    """The images, and of each the files of further channels, where the checkpoint takes several."""
    files = _files(options.input)
    found = by_channel({stem(file): file for file in files})
    if found is not None and any(len(channels) > 1 for channels in found.values()):
        from semicl.models.checkpoint import read_card

        if read_card(options.checkpoint[0]).channels > 1:
            return {first: more for first, *more in found.values()}
    return {file: [] for file in files}


def _files(source: Path) -> list[Path]:
    if source.is_file():
        if not is_image(source):
            raise SemiclError(
                f"{source}: not a NIfTI file, nor an image of another known format; give one, or a folder"
            )
        return [source]
    if not source.is_dir():
        raise SemiclError(f"{source}: no such file or folder; give --input an image, or a folder of images")
    images = image_files(source)
    hidden = sorted(file.name for file in source.iterdir() if not is_nifti(file) and is_nifti(_unhidden(file)))
    if hidden:
        say(f"{source}: hidden files are left out: {', '.join(hidden)}.")
    others = left_out(source)
    if others is not None:
        say(others)
    if not images:
        raise SemiclError(f"{source}: holds no {FORMATS} file; give --input a folder of images")
    return images


def _unhidden(file: Path) -> Path:
    """The file under a name that does not hide it."""
    return file.with_name(file.name.lstrip(".") or file.name)
