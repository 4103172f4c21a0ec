"""Folders of cases to read: a small phantom, written once, and the real cases where they are at hand."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from semicl.cases import Case
from semicl.phantom import write_phantom

REPOSITORY = Path(__file__).resolve().parents[2]
SUBJECTS = 10


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Decathlon folder of 10 subjects and 20 cases, not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, SUBJECTS, seed=0)
    return folder


@pytest.fixture
def own_phantom(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that the test may damage."""
    return shutil.copytree(phantom, tmp_path / "phantom")


@pytest.fixture
def hippocampus() -> Path:
    """The real cases beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
    if not folder.is_dir():
        pytest.skip("the Decathlon's Task04_Hippocampus is not in ../shared/data")
    return folder


def write_case(folder: Path, image: ArrayLike, label: ArrayLike, affine: ArrayLike | None = None) -> Case:
    """Write one image and label pair, of any shapes."""
    case = Case("case_1", "subject 1", folder / "image.nii.gz", folder / "label.nii.gz")
    for path, volume in ((case.image, image), (case.label, label)):
        nibabel.save(nibabel.Nifti1Image(np.asarray(volume), np.eye(4) if affine is None else affine), path)
    return case


def cut_off(path: Path) -> None:
    """Leave a file with a good header and half of its data."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The networks of these tests are too small for two threads: on a busy machine they would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
