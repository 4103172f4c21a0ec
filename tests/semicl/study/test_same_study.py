"""What is wrong with a study is told before anything of it is made, and tables of other studies are kept."""

from pathlib import Path

import pytest

from semicl.errors import SemiclError
from semicl.files import write_json
from semicl.study.study import require_same_study
from tests.semicl.study.test_tables import _cell

OTHERS = ("table.md",)
CELLS = [_cell("random", 0), _cell("random", 1), _cell("ours", 0)]


def _record(folder: Path, data: str = "heads", method: str = "random", fraction: float = 0.05, split: int = 1) -> Path:
    cells = [{"method": method, "label_fraction": fraction, "splits": [{"split": 0}, {"split": split}]}]
    write_json(folder / "table.json", {"data": data, "cells": cells})
    (folder / "table.md").touch()
    return folder / "table.json"


def test_a_study_replaces_its_own_tables(tmp_path: Path) -> None:
    require_same_study(tmp_path / "table.json", OTHERS, "heads", CELLS, False)
    require_same_study(_record(tmp_path), OTHERS, "heads", CELLS, False)


@pytest.mark.parametrize("other", [{"data": "hearts"}, {"method": "theirs"}, {"fraction": 0.1}, {"split": 2}])
def test_tables_of_other_cells_are_replaced_only_when_asked_for(tmp_path: Path, other: dict[str, object]) -> None:
    record = _record(tmp_path, **other)  # type: ignore[arg-type]
    with pytest.raises(SemiclError, match=r"table\.json: is there already, of cells that are not in this study; give"):
        require_same_study(record, OTHERS, "heads", CELLS, False)
    require_same_study(record, OTHERS, "heads", CELLS, True)


def test_files_that_are_no_tables_of_a_study_are_kept(tmp_path: Path) -> None:
    (tmp_path / "table.md").touch()
    with pytest.raises(SemiclError, match=r"table\.md: is there already"):
        require_same_study(tmp_path / "table.json", OTHERS, "heads", CELLS, False)
    (tmp_path / "table.json").write_text("mine")
    with pytest.raises(SemiclError, match=r"table\.json: is there already"):
        require_same_study(tmp_path / "table.json", OTHERS, "heads", CELLS, False)
