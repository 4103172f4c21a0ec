"""The tables say what was found, whichever way it came out."""

from pathlib import Path

import numpy as np
import pytest

from semicl.evaluation.measures import Evaluation
from semicl.options import ExperimentOptions, NetworkOptions
from semicl.study.plan import Cell, Job
from semicl.study.results import Found, Row
from semicl.study.tables import markdown

EXPERIMENT = ExperimentOptions(network=NetworkOptions((4, 8), None))


def _cell(method: str, split: int, fraction: float = 0.05) -> Cell:
    config = {"schedule": {"epochs": 7, "learning_rate": 1e-3}}
    tune = Job("finetune", Path(f"{method}-{split}"), config, (), None, "0" * 8)
    return Cell(method, fraction, split, (), (tune,), (Job("evaluate", tune.folder / "test", {}, (), tune, "0" * 8),))


def _found(method: str, split: int, dice: float, fraction: float = 0.05) -> Found:
    values = np.array([[dice - 0.1, dice + 0.1], [dice, dice]])
    evaluation = Evaluation(("a", "b"), ("front", "back"), values, 10 * values, values)
    summary = {"seconds": 2.5, "peak memory (MiB)": 300, "commit": "c0ffee", "date": "2026-01-01", "machine": "mine"}
    cell = _cell(method, split, fraction)
    return Found(cell, evaluation, ((cell.tunings[0], summary),))


def _rows(**dice: list[float]) -> list[Row]:
    return [
        Row(method, 0.05, tuple(_found(method, split, value) for split, value in enumerate(values)))
        for method, values in dice.items()
    ]


def _text(rows: list[Row], methods: tuple[str, ...], splits: int) -> str:
    return markdown("heads", EXPERIMENT, [_cell(method, split) for method in methods for split in range(splits)], rows)


def test_a_row_is_the_mean_over_splits() -> None:
    (row,) = _rows(random=[0.5, 0.7])
    assert row.dice == pytest.approx({"mean": 0.6, "deviation": 0.1})
    assert row.per_class()["front"]["dice"] == pytest.approx({"mean": 0.55, "deviation": 0.1})
    assert row.per_class()["mean"]["hd95"] == {"mean": 6.0, "deviation": 1.0}


def test_the_deviation_is_that_over_splits() -> None:
    text = _text(_rows(random=[0.5, 0.7], ours=[0.8, 0.8]), ("random", "ours"), 2)
    assert "| test Dice | 5 % |" in text
    assert "| random | 0.600 ± 0.100 |" in text
    assert "| ours | 0.800 ± 0.000 |" in text
    for words in (
        "mean ± standard deviation over the splits (0, 1). Network 4-8, precision 32-true, epochs 7 (finetune), ",
        "learning rate of fine-tuning 0.001, seed 0. Machine: mine. Date: 2026-01-01. Commit: c0ffee. ",
    ):
        assert words in text


def test_what_is_missing_is_said() -> None:
    text = _text(_rows(random=[0.5]), ("random", "ours"), 2)
    assert "| random | 0.500 ± - (1 of 2 splits) |" in text
    assert "| ours | failed |" in text


@pytest.mark.parametrize(
    ("dice", "verdict"),
    [
        ({"random": [0.5], "ours": [0.6], "other": [0.4]}, "- 5 %: above random: ours (+0.100); 1 of 2."),
        ({"random": [0.5], "ours": [0.5], "other": [0.4]}, "- 5 %: no method is above random; 0 of 2."),
    ],
)
def test_the_verdict_follows_the_numbers(dice: dict[str, list[float]], verdict: str) -> None:
    text = _text(_rows(**dice), tuple(dice), 1)
    assert verdict in text
    assert "One split and one seed: an illustration" in text


def test_the_verdict_counts_the_splits() -> None:
    text = _text(_rows(random=[0.5, 0.6, 0.7], ours=[0.8, 0.5, 0.8]), ("random", "ours"), 3)
    assert "- 5 %: above random: ours (+0.100, in 2 of 3 splits)." in text


def test_the_gain_is_over_the_splits_that_both_have() -> None:
    rows = _rows(random=[0.5, 0.9], ours=[0.6])
    assert "- 5 %: above random: ours (+0.100)." in _text(rows, ("random", "ours"), 2)


def test_several_splits_are_no_illustration() -> None:
    assert "illustration" not in _text(_rows(random=[0.5, 0.6], ours=[0.5, 0.6]), ("random", "ours"), 2)


def test_names_are_no_markup() -> None:
    rows = [*_rows(**{"a|b": [0.5]}), *_rows(**{"*c* <b>`": [0.6]})]
    text = _text(rows, ("a|b", "*c* <b>`"), 1)
    assert r"| a\|b | 0.500 |" in text
    assert r"| \*c\* \<b>\` | 0.600 |" in text
    assert r"above a\|b: \*c\* \<b>\` (+0.100)" in text


def test_a_class_that_no_label_holds_is_left_out() -> None:
    (row,) = _rows(random=[0.5, 0.7])
    row.found[0].evaluation.dice[:, 1] = np.nan
    assert row.per_class()["back"]["dice"] == {"mean": pytest.approx(0.75), "deviation": None}
    assert row.dice["mean"] == pytest.approx((0.45 + 0.7) / 2)
    row.found[1].evaluation.dice[:, 1] = np.nan
    assert row.per_class()["back"]["dice"] == {"mean": None, "deviation": None}
    assert row.per_class()["mean"]["dice"]["mean"] == row.dice["mean"] == pytest.approx(0.55)
