"""Whether what a command reads is there: told at once, since torch takes seconds to import."""

import zipfile
from pathlib import Path

from semicl.errors import SemiclError

MODEL = "model.ckpt"
"""The name of a stage's weights."""

CHECKPOINT = "give the model.ckpt that a stage of semicl wrote, or run that stage again"


def require_checkpoint(path: Path) -> None:
    """Raise where a file is no checkpoint; whether a network can be made of it is found when it is loaded.

    Raises:
        SemiclError: there is no such file, or it is a folder or of another kind.
    """
    if path.is_dir():
        inside = path / MODEL
        raise SemiclError(f"{path}: is a folder; give {inside if inside.is_file() else f'the {MODEL} of a stage'}")
    if not path.is_file():
        raise SemiclError(f"{path}: no such checkpoint; run the stage that writes it first")
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"  # as torch wrote them before its 1.6, and some others do
    if not pickled and not zipfile.is_zipfile(path):
        raise SemiclError(f"{path}: not readable as a checkpoint; {CHECKPOINT}")
