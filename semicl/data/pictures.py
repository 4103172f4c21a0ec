"""2-D images: PNG, TIFF, JPEG and BMP files, as volumes of one slice whose pixels are squares of 1 mm."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from semicl.errors import SemiclError
from semicl.files import replacing

AFFINE = np.diag([1.0, -1.0, 1.0, 1.0])
"""Columns run to the right, rows from front to back, so that a picture is drawn as it is shown elsewhere."""

GREY = ("1", "L", "I", "I;16", "F")


def read_picture(path: Path, channels: bool = False) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """The array (columns, rows, 1), or (columns, rows, 1, 3) of colours, and a NIfTI image in its place.

    Args:
        path: the file.
        channels: whether colours are channels; else a palette's numbers are what is meant, as in a mask.

    Raises:
        SemiclError: it holds several pictures.
        Exception: whatever damage leads to in Pillow.
    """
    with Image.open(path) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise SemiclError(f"{path}: holds {frames} pictures; give one picture a file")
        numbers = picture.mode in GREY or (picture.mode == "P" and not channels)
        array = np.asarray(picture if numbers else picture.convert("RGB"))
    array = (array.astype(np.uint8) if array.dtype == bool else array).swapaxes(0, 1)
    array = array[:, :, None]  # before the colours
    volume = nibabel.Nifti1Image(array, AFFINE, dtype=array.dtype)
    volume.header.set_xyzt_units("mm")
    return array, volume


def write_picture(path: Path, labels: np.ndarray) -> None:
    """Write label values (columns, rows, 1), in 8 bits where they hold them, else in 16."""
    values = labels[:, :, 0].swapaxes(0, 1)
    picture = Image.fromarray(np.ascontiguousarray(values.astype(np.uint8 if values.max() < 256 else np.uint16)))
    with replacing(path) as partial:
        picture.save(partial)
