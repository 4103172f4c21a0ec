"""README's table of tested versions: it is that of .ci/tested.json, which takes only runs where all passed."""

from __future__ import annotations

import json
import platform
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
tested: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "tested.py"))


def junit(path: Path, **counts: int) -> Path:
    attributes = " ".join(f'{name}="{number}"' for name, number in counts.items())
    path.write_text(f'<testsuites><testsuite timestamp="2026-11-30T10:00:00" {attributes}></testsuite></testsuites>')
    return path


def test_the_table_of_the_readme_is_that_of_the_record() -> None:
    rows = json.loads((ROOT / ".ci" / "tested.json").read_text())
    text = (ROOT / "README.md").read_text()
    assert text == tested["between"](text, tested["table"](rows))


def test_a_run_is_recorded_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{tested['BEGIN']}old\n{tested['END']}after\n")
    for passed in (10, 20):
        path = junit(tmp_path / "tests.xml", tests=passed + 2, failures=0, errors=0, skipped=2)
        tested["main"](path, tmp_path)
        (row,) = json.loads((tmp_path / ".ci" / "tested.json").read_text())
        assert torch.__version__.startswith(row["torch"])
        assert platform.python_version().startswith(row["python"] + ".")
        assert (row["passed"], row["skipped"], row["date"]) == (passed, 2, "2026-11-30")
        expected = f"before\n{tested['BEGIN']}{tested['table']([row])}{tested['END']}after\n"
        assert (tmp_path / "README.md").read_text() == expected


@pytest.mark.parametrize("counts", [{"failures": 1}, {"errors": 1}, {"tests": 2, "skipped": 2}, {"tests": 0}], ids=str)
def test_a_run_that_failed_is_not_recorded(counts: dict[str, int], tmp_path: Path) -> None:
    path = junit(tmp_path / "tests.xml", **({"tests": 12, "failures": 0, "errors": 0, "skipped": 0} | counts))
    with pytest.raises(SystemExit, match="nothing is recorded"):
        tested["counts"](path)


def test_without_a_run_it_says_which_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"tests\.xml is not there; run `make test`"):
        tested["counts"](tmp_path / "tests.xml")


def test_a_readme_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="not found"):
        tested["between"](f"before {tested['BEGIN']} after", "new")


def test_the_newest_torch_comes_first() -> None:
    old, older = {"torch": "2.9.1", "python": "3.10"}, {"torch": "2.13.0", "python": "3.9"}
    new, coming = {"torch": "2.13.0", "python": "3.10"}, {"torch": "2.15.0rc1", "python": "3.14"}
    assert tested["merged"]([old, older, coming], new) == [coming, new, older, old]
