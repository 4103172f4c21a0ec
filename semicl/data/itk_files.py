"""NRRD and MetaImage files (.nrrd, .mha), read and written by ITK through MONAI."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from semicl.errors import SemiclError
from semicl.files import replacing


def read_itk(path: Path) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """The array (X, Y, Z), or (X, Y, Z, C) of channels, and a NIfTI image in its place.

    Raises:
        SemiclError: ITK is not installed.
        Exception: whatever damage leads to in ITK.
    """
    _require_itk(path)

    from monai.data.image_reader import ITKReader

    reader = ITKReader()
    array, meta = reader.get_data(reader.read(path))
    volume = nibabel.Nifti1Image(array, np.asarray(meta["affine"], float), dtype=array.dtype)
    volume.header.set_xyzt_units("mm")
    return array, volume


def write_itk(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    """Write label values (X, Y, Z) in the place that an affine (4, 4) in mm tells."""
    from monai.data.image_writer import ITKWriter

    writer: Any = ITKWriter(output_dtype=labels.dtype)
    writer.set_data_array(labels, channel_dim=None)
    writer.set_metadata({"affine": affine, "original_affine": affine, "spatial_shape": labels.shape}, resample=False)
    with replacing(path) as partial:
        writer.write(str(partial))


def _require_itk(path: Path) -> None:
    try:
        import itk  # noqa: F401
    except ModuleNotFoundError as missing:
        raise SemiclError(f"{path}: {missing}; install it: pip install '.[formats]'") from missing
