"""The report says what happened, whichever way it went."""

import io

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from semicl.evaluate import Evaluation
from semicl.report import comparison_table, evaluation_json, history_table, verdict

CLASSES = ("background", "front", "back")
LOW = Evaluation(("a", "b"), np.array([[0.5, 0.6], [0.3, 0.2]]))
HIGH = Evaluation(("a", "b"), np.array([[0.7, 0.8], [0.2, 0.1]]))


@pytest.mark.parametrize(
    ("random", "pretrained", "expected"),
    [
        (LOW, HIGH, "raised the mean Dice by 0.050; it was better on 1 of 2"),
        (HIGH, LOW, "lowered the mean Dice by 0.050; it was better on 1 of 2"),
        (LOW, LOW, "did not change the mean Dice by 0.000; it was better on 0 of 2"),
    ],
)
def test_the_verdict_follows_the_numbers(random: Evaluation, pretrained: Evaluation, expected: str) -> None:
    assert expected in verdict(random, pretrained)


def _rows(table: Table) -> list[list[str]]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return [line.replace("│", " ").split() for line in console.export_text().splitlines()]


def test_the_table_holds_every_class_and_the_mean() -> None:
    rows = _rows(comparison_table(CLASSES, LOW, HIGH))
    assert ["front", "0.400", "0.450", "+0.050"] in rows
    assert ["back", "0.400", "0.450", "+0.050"] in rows
    assert ["mean", "0.400", "0.450", "+0.050"] in rows


def test_the_history_holds_both_starts() -> None:
    rows = _rows(history_table([(10, 0.1), (20, 0.6)], [(10, 0.5), (20, 0.7)]))
    assert ["random", "start", "0.100", "0.600"] in rows
    assert ["pre-trained", "0.500", "0.700"] in rows


def test_json_keeps_each_volume() -> None:
    assert evaluation_json(LOW, CLASSES) == {
        "mean_dice": 0.4,
        "dice_per_class": {"front": 0.4, "back": 0.4},
        "dice_per_volume": {"a": [0.5, 0.6], "b": [0.3, 0.2]},
    }
