"""`semicl predict`: NIfTI in, NIfTI out, in the case's own geometry."""

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from semicl.checkpoints import load_segmentation
from semicl.checks import read_nifti
from semicl.console import WIDTH, conclude
from semicl.errors import SemiclError
from semicl.nifti_names import by_case, is_nifti, label_name, nifti_files
from semicl.options import PredictOptions
from semicl.prediction import predict_file, to_device, write_labels
from semicl.volumes import check_image


def predict(options: PredictOptions) -> None:
    """Write a label file for each image, of its shape, affine and orientation.

    Raises:
        SemiclError: the checkpoint or an image cannot be used, or a label file is there already and not to be
            replaced. All images are checked before the first is predicted.
    """
    network, card = load_segmentation(options.checkpoint)
    images = _images(options.input)
    if any(options.output.resolve() == image.parent.resolve() for image in images):
        raise SemiclError(f"{options.output}: holds the images, which would be replaced; give another --output")
    labels = {image: options.output / label_name(image) for image in images}
    if not options.overwrite:
        _require_new(labels.values())
    for image in images:
        check_image(image, card.grid)
    network = to_device(network, options.machine)
    for image, label in tqdm(labels.items(), desc="predict", unit="image", ncols=WIDTH):
        write_labels(label, predict_file(network, card, image), card, read_nifti(image)[1])
    rows = {"images": len(images), "classes": ", ".join(card.classes), "labels": options.output}
    conclude("Predicted", rows)


def _require_new(files: Iterable[Path]) -> None:
    """Raise where a file is there already."""
    there = [file for file in files if file.exists()]
    if there:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise SemiclError(
            f"{there[0]}{others}: is there already; give another --output, or --overwrite to replace what is there"
        )


def _images(source: Path) -> list[Path]:
    if source.is_file():
        if not is_nifti(source):
            raise SemiclError(f"{source}: not a NIfTI file; give a .nii or .nii.gz file, or a folder of them")
        return [source]
    if not source.is_dir():
        raise SemiclError(f"{source}: no such file or folder; give --input a .nii.gz file, or a folder of them")
    images = list(by_case(nifti_files(source)).values())
    if not images:
        raise SemiclError(f"{source}: holds no .nii or .nii.gz file; give --input a folder of images")
    return images
