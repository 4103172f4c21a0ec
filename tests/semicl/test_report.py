"""The report says what happened, whichever way it went."""

import io

import numpy as np
import pytest
from rich.console import Console

from semicl.evaluate import Evaluation
from semicl.report import comparison_table, evaluation_json, verdict

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


def test_the_table_holds_every_class_and_the_mean() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_table(CLASSES, LOW, HIGH))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["front", "0.400", "0.450", "+0.050"] in rows
    assert ["back", "0.400", "0.450", "+0.050"] in rows
    assert ["mean", "0.400", "0.450", "+0.050"] in rows


def test_json_keeps_each_volume() -> None:
    assert evaluation_json(LOW, CLASSES) == {
        "mean_dice": 0.4,
        "dice_per_class": {"front": 0.4, "back": 0.4},
        "dice_per_volume": {"a": [0.5, 0.6], "b": [0.3, 0.2]},
    }
