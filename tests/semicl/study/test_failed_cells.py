"""What failed is told by the cells it belongs to."""

from pathlib import Path

import pytest

from semicl.errors import SemiclError
from semicl.study.plan import Cell, Job
from semicl.study.study import NAMED, failed_cells, require_whole


def _cell(method: str) -> Cell:
    tune = Job("finetune", Path(method), {}, (), None, "0" * 8)
    return Cell(method, 0.05, 0, (), (tune,), (Job("evaluate", tune.folder / "test", {}, (), tune, "0" * 8),))


CELLS = [_cell(method) for method in ("random", *"abcde")]


def _failed(*methods: str) -> dict[str, str]:
    return failed_cells(CELLS, {Path(method): f"no memory for {method}" for method in methods})


def test_a_failed_cell_tells_the_reason() -> None:
    assert _failed("b") == {"b, 0.05 of the labels, split 0": "no memory for b"}
    with pytest.raises(SemiclError, match=r"^1 of 6 cells failed \(b, 0.05 of .*: no memory for b\); mend the cause"):
        require_whole(_failed("b"), 6, "table.json")


def test_the_first_few_reasons_are_told() -> None:
    with pytest.raises(SemiclError, match=r"no memory for c; and 2 more, see table.json\)") as caught:
        require_whole(_failed(*"abcde"), 6, "table.json")
    assert str(caught.value).count("no memory") == NAMED


def test_a_whole_study_raises_nothing() -> None:
    require_whole(_failed(), 6, "table.json")
