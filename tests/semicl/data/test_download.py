"""The Decathlon's archive is checked and unpacked once; a failure says what else to do."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from semicl.data import download as module
from semicl.data.download import TASKS, download
from semicl.errors import SemiclError

TASK = TASKS["hippocampus"]


@pytest.fixture
def archive(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task archive on this machine, which MONAI fetches as it would from the Decathlon."""
    path = tmp_path / "server" / f"{TASK}.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(phantom, arcname=TASK)
    monkeypatch.setitem(module.DecathlonDataset.resource, TASK, path.as_uri())
    monkeypatch.setitem(module.DecathlonDataset.md5, TASK, hashlib.md5(path.read_bytes()).hexdigest())
    return path


def test_an_archive_is_fetched_once_and_unpacked(archive: Path, tmp_path: Path) -> None:
    folder = download("hippocampus", tmp_path / "data")
    assert folder == tmp_path / "data" / TASK
    assert (folder / "dataset.json").is_file()
    archive.unlink()
    assert download("hippocampus", tmp_path / "data") == folder


def test_another_archive_than_expected_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.DecathlonDataset.md5, TASK, "0" * 32)
    with pytest.raises(SemiclError, match=r"download failed .*md5 hash check"):
        download("hippocampus", tmp_path / "data")
    assert not (tmp_path / "data" / TASK).exists()


def test_no_network_says_what_else_to_do(archive: Path, tmp_path: Path) -> None:
    archive.unlink()
    with pytest.raises(SemiclError, match=r"download failed .* give its folder as --data"):
        download("hippocampus", tmp_path / "data")
