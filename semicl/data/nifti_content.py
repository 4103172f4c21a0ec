"""What a NIfTI file holds, read to its last byte, by which a compressed file tells whether it is whole."""

import gzip
from functools import partial
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from semicl.errors import SemiclError

BLOCK = 2**20


def read_content(path: Path) -> tuple[np.ndarray, nibabel.Nifti1Image, Any]:
    """The array of a NIfTI file, its image, and its header as the file holds it: nibabel mends some fields.

    Raises:
        SemiclError: no single volume, or a header that contradicts the rest of the file.
        Exception: whatever other damage leads to in nibabel.
    """
    kind = type(nibabel.load(path))
    if not issubclass(kind, nibabel.Nifti1Image):
        raise SemiclError(f"{path}: holds no volume; give one NIfTI volume a file")
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        stored = kind.header_class.from_fileobj(file, check=False)
        if stored["vox_offset"] < stored.single_vox_offset:
            begin = int(stored["vox_offset"])
            raise SemiclError(f"{path}: its voxels begin at byte {begin} (vox_offset), in its header; export it again")
        volume = kind.from_stream(file)
        array = np.asarray(volume.dataobj)
        _read_to_the_end(path, file, volume.dataobj)
    return array, volume, stored


def _read_to_the_end(path: Path, file: BufferedIOBase, voxels: Any) -> None:
    """Read what is after the voxels: the checksum of a compressed file, and nothing else.

    Raises:
        SemiclError: there is more, so that the header tells of fewer voxels than were written.
        Exception: the compressed file is damaged.
    """
    file.seek(voxels.offset + prod(voxels.shape) * voxels.dtype.itemsize)
    rest = sum(map(len, iter(partial(file.read, BLOCK), b"")))
    if rest:
        shape = " x ".join(map(str, voxels.shape))
        raise SemiclError(
            f"{path}: its header tells of {shape} voxels, and more follows them ({rest} B); copy or download it again"
        )
