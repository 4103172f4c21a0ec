"""No output is an input, whatever the two are called, and what exists is replaced only when that is asked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semicl.errors import SemiclError
from semicl.files import output_file, output_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a file that a command reads."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.nii.gz").write_text("scan")
    return tmp_path / "data"


def _link_of_file(data: Path) -> tuple[Path, Path]:
    (data.parent / "link.nii.gz").symlink_to(data / "scan.nii.gz")
    return data / "scan.nii.gz", data.parent / "link.nii.gz"


def _input_is_a_link(data: Path) -> tuple[Path, Path]:
    (data.parent / "list").mkdir()
    (data.parent / "list" / "scan.nii.gz").symlink_to(data / "scan.nii.gz")
    return data.parent / "list" / "scan.nii.gz", data / "scan.nii.gz"


def _link_of_a_link(data: Path) -> tuple[Path, Path]:
    (data.parent / "one").symlink_to(data / "scan.nii.gz")
    (data.parent / "two").symlink_to(data.parent / "one")
    return data.parent / "two", data.parent / "one"


def _hard_link(data: Path) -> tuple[Path, Path]:
    os.link(data / "scan.nii.gz", data.parent / "other.nii.gz")
    return data / "scan.nii.gz", data.parent / "other.nii.gz"


def _link_of_folder(data: Path) -> tuple[Path, Path]:
    (data.parent / "alias").symlink_to(data)
    return data / "scan.nii.gz", data.parent / "alias" / "scan.nii.gz"


def _dots(data: Path) -> tuple[Path, Path]:
    return data / "scan.nii.gz", data / ".." / "data" / "." / "scan.nii.gz"


WAYS = [_link_of_file, _input_is_a_link, _link_of_a_link, _hard_link, _link_of_folder, _dots]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_an_input_is_refused(
    data: Path, way: Callable[[Path], tuple[Path, Path]], overwrite: bool
) -> None:
    read, written = way(data)
    with pytest.raises(SemiclError, match="which is read and would be replaced; give another --output"):
        output_file(written, [read], overwrite=overwrite)
    with pytest.raises(SemiclError, match="which is read and would be replaced; give another --output"):
        output_folder(written.parent, [read], files=[written.name], overwrite=overwrite)
    assert (data / "scan.nii.gz").read_text() == "scan"


def test_names_that_differ_in_capitals_alone_are_told_by_the_file_system(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names are the same in capitals, as on most disks of macOS and Windows, the system answers for both."""

    def as_one(stat: Callable[..., Any]) -> Callable[..., Any]:
        def answer(path: Any, **how: Any) -> Any:
            return stat(type(path)(str(path).replace("SCAN", "scan")) if isinstance(path, str | Path) else path, **how)

        return answer

    # By pathlib's way to it, and by that of os.path, which Path.exists takes from Python 3.14 on.
    monkeypatch.setattr(Path, "stat", as_one(Path.stat))
    monkeypatch.setattr(os, "stat", as_one(os.stat))
    with pytest.raises(SemiclError, match="which is read and would be replaced"):
        output_file(data / "SCAN.nii.gz", [data / "scan.nii.gz"], overwrite=True)


@pytest.mark.parametrize("alias", ["data", "data/../data", "alias"])
def test_a_folder_that_is_read_is_refused(data: Path, alias: str) -> None:
    (data.parent / "alias").symlink_to(data)
    with pytest.raises(SemiclError, match="which is read and would be written to; give another --prepared"):
        output_folder(data.parent / alias, [data], option="prepared")
    output_folder(data / "inside", [data])  # replaces nothing


def test_what_exists_is_replaced_only_when_that_is_asked_for(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    words = r"a \(and 1 more\): is there already; give another --output, or --overwrite to replace what is there"
    with pytest.raises(SemiclError, match=words):
        output_folder(tmp_path, [data], files=["a", "b", "c"])
    with pytest.raises(SemiclError, match=r"b: is there already"):
        output_file(tmp_path / "b", [data], overwrite=False)
    assert output_folder(tmp_path, [data], files=["a", "b", "c"], overwrite=True) == tmp_path
    assert output_file(tmp_path / "c", [data / "missing"], overwrite=False) == tmp_path / "c"
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_written_is_told_before(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = data / "scan.nii.gz"
    with pytest.raises(SemiclError, match=r"scan\.nii\.gz: is no folder"):
        output_folder(scan / "deep" / "er", [])
    with pytest.raises(SemiclError, match=r"scan\.nii\.gz: is no folder"):
        output_folder(scan, [])
    with pytest.raises(SemiclError, match="data: is a folder; give --output the name of a file"):
        output_file(data, [], overwrite=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != data)  # who is root may write anywhere
    with pytest.raises(SemiclError, match="data: cannot be written; give another --output"):
        output_folder(data / "new", [])
