"""README's table of tested versions: it is that of .ci/tested.json, which takes only runs where all passed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
tested: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "tested.py"))


def junit(path: Path, **counts: int) -> Path:
    attributes = " ".join(f'{name}="{number}"' for name, number in counts.items())
    path.write_text(f'<testsuites><testsuite timestamp="2026-11-30T10:00:00" {attributes}></testsuite></testsuites>')
    return path


def test_the_table_of_the_readme_is_that_of_the_record() -> None:
    rows = json.loads((ROOT / ".ci" / "tested.json").read_text())
    assert rows
    text = (ROOT / "README.md").read_text()
    assert text == tested["between"](text, tested["table"](rows))


def test_skipped_tests_did_not_pass(tmp_path: Path) -> None:
    found = tested["counts"](junit(tmp_path / "tests.xml", tests=12, failures=0, errors=0, skipped=2))
    assert found == {"passed": 10, "skipped": 2, "date": "2026-11-30"}


@pytest.mark.parametrize("counts", [{"failures": 1}, {"errors": 1}, {"tests": 2, "skipped": 2}, {"tests": 0}], ids=str)
def test_a_run_that_failed_is_not_recorded(counts: dict[str, int], tmp_path: Path) -> None:
    path = junit(tmp_path / "tests.xml", **({"tests": 12, "failures": 0, "errors": 0, "skipped": 0} | counts))
    with pytest.raises(SystemExit, match="nothing is recorded"):
        tested["counts"](path)


def test_a_later_run_of_the_same_versions_replaces_the_earlier_one() -> None:
    rows = [{"torch": "2.9.1", "python": "3.10", "passed": 1}, {"torch": "2.13.0", "python": "3.9", "passed": 2}]
    new = {"torch": "2.13.0", "python": "3.10", "passed": 3}
    assert tested["merged"](rows, new) == [new, rows[1], rows[0]]
    assert tested["merged"]([new, *rows], new | {"passed": 4}) == [new | {"passed": 4}, rows[1], rows[0]]
