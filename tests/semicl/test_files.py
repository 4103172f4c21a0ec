"""Files are replaced whole or not at all."""

from pathlib import Path

import pytest

from semicl.files import replacing


def test_a_finished_file_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]
    assert path.read_text() == "whole"


def test_a_failed_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("hal")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
