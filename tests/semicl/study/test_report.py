"""The report says what happened, whichever way it went."""

import io

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from semicl.evaluation.measures import Evaluation
from semicl.study.report import comparison_table, history_table, history_title, verdict


def _evaluation(*dice: list[float]) -> Evaluation:
    values = np.array(dice)
    return Evaluation(("a", "b"), ("front", "back"), values, np.zeros_like(values), np.zeros_like(values))


LOW = _evaluation([0.5, 0.6], [0.3, 0.2])
HIGH = _evaluation([0.7, 0.8], [0.2, 0.1])


@pytest.mark.parametrize(
    ("random", "pretrained", "expected"),
    [
        (LOW, HIGH, "raised the mean Dice by 0.050; it was better on 1 of 2"),
        (HIGH, LOW, "lowered the mean Dice by 0.050; it was better on 1 of 2"),
        (LOW, LOW, "did not change the mean Dice by 0.000; it was better on 0 of 2"),
    ],
)
def test_the_verdict_follows_the_numbers(random: Evaluation, pretrained: Evaluation, expected: str) -> None:
    assert expected in verdict([random], [pretrained])


def test_a_single_volume_is_not_counted() -> None:
    low, high = (
        Evaluation(("a",), case.classes, case.dice[:1], case.hd95[:1], case.surface[:1]) for case in (LOW, HIGH)
    )
    text = verdict([low], [high])
    assert text.startswith("Pre-training raised the Dice of the only test case by 0.200. One case, one split and one")
    assert "1 of 1" not in text


def test_only_a_single_split_is_called_an_illustration() -> None:
    assert "One split" in verdict([LOW], [HIGH])
    assert "One split" not in verdict([LOW, LOW], [HIGH, HIGH])
    assert "on 2 of 4 test cases" in verdict([LOW, LOW], [HIGH, HIGH])


def _rows(table: Table) -> list[list[str]]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return [line.replace("│", " ").split() for line in console.export_text().splitlines()]


def test_the_table_holds_every_class_and_the_mean() -> None:
    rows = _rows(comparison_table({"random": [LOW], "pre-trained": [HIGH]}))
    assert ["front", "0.400", "0.450"] in rows
    assert ["back", "0.400", "0.450"] in rows
    assert ["mean", "0.400", "0.450"] in rows


def test_several_splits_have_a_deviation() -> None:
    rows = _rows(comparison_table({"random": [LOW, HIGH]}))
    assert ["mean", "0.425", "±", "0.025"] in rows


def test_the_history_holds_every_start() -> None:
    rows = _rows(history_table({"random": [(10, 0.1), (20, 0.6)], "pre-trained": [(10, 0.5), (20, 0.7)]}))
    assert ["random", "0.100", "0.600"] in rows
    assert ["pre-trained", "0.500", "0.700"] in rows


def test_a_long_history_shows_its_first_and_last_moments() -> None:
    history = [(step, step / 100) for step in range(1, 41)]
    rows = _rows(history_table({"random": history}))
    (values,) = [row for row in rows if row[:1] == ["random"]]
    assert (values[1], values[-1], len(values)) == ("0.010", "0.400", 7)
    assert history_title(0, 40) == "Validation while fine-tuning, split 0 (6 of 40 validations):"
    assert history_title(0, 6) == "Validation while fine-tuning, split 0:"


def test_a_class_that_no_label_holds_is_shown_as_such_and_left_out() -> None:
    missing = _evaluation([0.5, np.nan], [0.3, np.nan])
    rows = _rows(comparison_table({"random": [missing], "pre-trained": [HIGH]}))
    assert ["back", "-", "0.450"] in rows
    assert ["mean", "0.400", "0.450"] in rows
    rows = _rows(comparison_table({"random": [missing, HIGH]}))
    assert ["back", "0.450", "±", "-"] in rows
    assert "raised the mean Dice by 0.050" in verdict([missing], [_evaluation([0.5, np.nan], [0.4, np.nan])])
