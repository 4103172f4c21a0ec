"""Folders of cases to read: a small phantom, written once, and the real cases where they are at hand."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from semicl.cli import main
from semicl.data.cases import Case
from semicl.data.grid import Grid
from semicl.data.phantom import CLASSES, write_phantom
from semicl.data.prepare import prepare
from semicl.data.prepared import Prepared
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import PrepareOptions, SourceOptions

REPOSITORY = Path(__file__).resolve().parents[2]
OWN_DATA = os.environ.get("SEMICL_DATA", "")
"""The default of --data in the environment that the tests were called in; they themselves have none."""

SUBJECTS = 10
PATCH_SIZE = (32, 32)
LEVELS = (4, 6, 8)
TINY = ("--network.widths", "4", "6", "8", "--network.centre", "None", "--channels", "8")
"""Options of a network that trains in a second."""


@pytest.fixture(autouse=True)
def _no_data_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMICL_DATA", raising=False)


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


@pytest.fixture(scope="session")
def prepared(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The phantom made ready as slices of 32 x 32, not to be changed."""
    folder = tmp_path_factory.mktemp("prepared") / "phantom"
    return prepare(SourceOptions(str(phantom), folder), PrepareOptions(patch_size=PATCH_SIZE, resize=True, repeats=2))


@pytest.fixture
def own_prepared(prepared: Prepared, tmp_path: Path) -> Path:
    """A copy of the prepared folder that the test may damage."""
    return shutil.copytree(prepared.folder, tmp_path / "prepared")


@pytest.fixture
def card() -> ModelCard:
    """The card of a tiny network for the phantom's classes."""
    return ModelCard("finetune", LEVELS, {name: value for value, name in enumerate(CLASSES)}, Grid(PATCH_SIZE))


@pytest.fixture
def network(card: ModelCard) -> UNet:
    """A tiny network with random weights."""
    return card.new_network(seed=0)


@pytest.fixture
def checkpoint(card: ModelCard, network: UNet, tmp_path: Path) -> Path:
    """A checkpoint of the tiny network, as fine-tuning leaves it."""
    path = tmp_path / "finetune" / "model.ckpt"
    path.parent.mkdir()
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "semicl": card.to_dict()}, path)
    return path


@pytest.fixture
def hippocampus() -> Path:
    """The real cases, where the environment names them."""
    folder = Path(OWN_DATA)
    if folder.name != "Task04_Hippocampus":
        pytest.skip("SEMICL_DATA does not name a folder Task04_Hippocampus of the Decathlon")
    return folder


def run_command(*words: object) -> int:
    """Run a command in this process; returns the exit code."""
    return main([str(word) for word in words])


def error_of(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    """Run a command that must fail with one box, the last thing written; return its text, which is a line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100000")
        assert run_command(*words) == code
    written = capsys.readouterr().err.rstrip("\n").split("\n")
    assert [line for line in written if "Traceback" in line] == []
    (top,) = [at for at, line in enumerate(written) if line.startswith("╭─ Error ─")]
    line, _ = written[top + 1 :]
    return line.strip("│ ")


def box_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command whose options must be answered in one box; return its text in a line."""
    assert run_command(*words) == 2
    written = capsys.readouterr().err
    assert "Traceback" not in written
    return unboxed(written)


def unboxed(written: str) -> str:
    """What was written, without the lines of boxes, in a line."""
    return " ".join("".join(" " if "\u2500" <= each <= "\u257f" else each for each in written).split())


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    return dict(torch.load(path, weights_only=True)["state_dict"])


def same_weights(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit."""
    one, other = weights(first), weights(second)
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def write_nifti(path: Path, volume: ArrayLike, affine: ArrayLike | None = None) -> Path:
    """Write a volume of any shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume), np.eye(4) if affine is None else affine), path)
    return path


def write_colours(path: Path) -> None:
    """Write an RGB volume."""
    write_nifti(path, np.zeros((4, 5, 6), [("R", np.uint8), ("G", np.uint8), ("B", np.uint8)]))


def write_case(folder: Path, image: ArrayLike, label: ArrayLike, affine: ArrayLike | None = None) -> Case:
    """Write one image and label pair, of any shapes."""
    files = (
        write_nifti(folder / f"{kind}.nii.gz", volume, affine)
        for kind, volume in zip(("image", "label"), (image, label), strict=True)
    )
    return Case("case_1", "subject 1", *files)


def cut_off(path: Path) -> None:
    """Leave a file with a good header and half of its data."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_schedule(epochs: int = 1, batch_size: int = 16, learning_rate: float = 1e-3) -> Sequence[str]:
    """Options of a schedule."""
    words = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    return [word for name, value in words.items() for word in (f"--schedule.{name}", str(value))]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The networks of these tests are too small for two threads: on a busy machine they would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _semicl_is_found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The shell finds `semicl`, wherever these tests run, so that commands tell the next one by this name."""
    program = tmp_path_factory.mktemp("bin") / "semicl"
    program.touch(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        yield


def preparing(plain: Path, *more: object) -> list[object]:
    """The command that prepares a plain folder of the phantom, shrunk to slices of 32 x 32, beside it."""
    words = [
        "prepare",
        "--data",
        plain,
        "--prepared",
        plain.parent / "p",
        "--patch_size",
        32,
        32,
        "--repeats",
        1,
        "--resize",
    ]
    return [*words, "--scans_per_subject", 2, *more]
