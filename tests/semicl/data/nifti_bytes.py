"""NIfTI files as bytes, whose headers are altered without a library's care."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

OFFSETS = {nibabel.Nifti1Header: 348, nibabel.Nifti2Header: 540}


def header_of(content: bytes) -> nibabel.Nifti1Header:
    """The header of an uncompressed file, as it is stored; altered in place it is still another object."""
    kind = nibabel.Nifti2Header if int.from_bytes(content[:4], "little") == 540 else nibabel.Nifti1Header
    return kind(content[: OFFSETS[kind]], endianness="<", check=False)


def with_fields(content: bytes, **fields: Any) -> bytes:
    """An uncompressed little-endian file with other values in its header."""
    header = header_of(content)
    for name, value in fields.items():
        header.structarr[name] = value
    return header.binaryblock + content[len(header.binaryblock) :]


def alter(path: Path, **fields: Any) -> Path:
    """Change the header of a file, .nii or .nii.gz, in place."""
    packed = path.suffix == ".gz"
    content = path.read_bytes()
    changed = with_fields(gzip.decompress(content) if packed else content, **fields)
    path.write_bytes(gzip.compress(changed, 1, mtime=0) if packed else changed)
    return path


def write_placed(path: Path, volume: np.ndarray, affine: np.ndarray, sform: int = 1, qform: int = 1) -> Path:
    """Write a volume with its affine as sform and as qform, of these codes, in millimeters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path
