"""The tables say what was found, whichever way it came out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semicl.evaluation.measures import Evaluation
from semicl.options import ExperimentOptions, NetworkOptions
from semicl.study.plan import Cell, Job
from semicl.study.results import Found, Row, difference, differences
from semicl.study.tables import DICE, LAST_DICE, markdown

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
    cells = [_cell(method, split) for method in methods for split in range(splits)]
    return markdown("heads", EXPERIMENT, cells, rows, {DICE: differences(rows, {}), LAST_DICE: {}})


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


def _row(method: str, *splits: dict[str, float]) -> Row:
    """A row by the Dice of the test volumes of each split; the last epoch's are 0.1 lower."""
    found = []
    for split, volumes in enumerate(splits):
        values = np.array([[dice - 0.05, dice + 0.05] for dice in volumes.values()])
        names = (tuple(volumes), ("front", "back"))
        evaluation, last = (Evaluation(*names, dice, dice, dice) for dice in (values, values - 0.1))
        found.append(Found(_cell(method, split), evaluation, (), last))
    return Row(method, 0.05, tuple(found))


def test_differences_are_paired_by_volume_and_averaged_over_a_subject() -> None:
    first = _row("random", {"a": 0.5, "b": 0.9, "c": 0.1}, {"a": 0.6, "d": 0.3})
    # In another order, with a split that the first one has not, and twice a volume of one subject.
    row = _row("ours", {"c": 0.2, "b": 0.7, "a": 0.6}, {"a": 0.7, "d": 0.8}, {"d": 0.0})
    found = difference(row, first, {"a": "s", "b": "s"})
    assert found is not None
    assert found.mean == pytest.approx(np.mean([np.mean([0.1, -0.2, 0.1]), 0.1, 0.5]))
    assert found.subjects == 3
    assert pytest.approx(found.interval[0], abs=1e-9) == 0
    assert found.interval[1] == pytest.approx(0.5)
    alone = difference(row, first, {})
    assert alone is not None
    assert (alone.mean, alone.subjects) == (pytest.approx(np.mean([0.1, -0.2, 0.1, 0.5])), 4)
    last = difference(row, first, {}, last=True)
    assert last is not None
    assert last.mean == pytest.approx(alone.mean)
    assert difference(_row("other", {"z": 0.1}), first, {}) is None


def test_the_interval_is_that_of_the_mean_over_subjects() -> None:
    gains = np.random.default_rng(1).normal(0.02, 0.05, 400)
    names = [f"v{number}" for number in range(400)]
    first = _row("random", dict.fromkeys(names, 0.5))
    row = _row("ours", dict(zip(names, (0.5 + gains).tolist(), strict=True)))
    found = difference(row, first, {})
    assert found is not None
    reach = 1.96 * gains.std() / np.sqrt(400)
    assert found.interval == pytest.approx((gains.mean() - reach, gains.mean() + reach), abs=0.1 * reach)
    # Two volumes of each subject, which differ from the first alike, tell no more than one.
    doubled = [_row(each.method, _twice(each)) for each in (row, first)]
    pairs = {f"{name}{side}": name for name in names for side in "lr"}
    assert difference(*doubled, pairs) == found
    wrong = difference(*doubled, {})
    assert wrong is not None
    assert np.ptp(wrong.interval) < 0.8 * np.ptp(found.interval)


def _twice(row: Row) -> dict[str, float]:
    """The volumes of a row of one split, each as two of a subject."""
    (found,) = row.found
    volumes = zip(found.evaluation.names, found.evaluation.per_case("dice").tolist(), strict=True)
    return {f"{name}{side}": dice for name, dice in volumes for side in "lr"}


def test_the_table_tells_differences_and_the_last_epoch() -> None:
    rows = [_row("random", {"a": 0.5, "b": 0.5}), _row("ours", {"a": 0.6, "b": 0.6})]
    kept = [replace(_cell(row.method, 0), tests_last=_cell(row.method, 0).tests) for row in rows]
    both = {DICE: differences(rows, {}), LAST_DICE: differences(rows, {}, last=True)}
    text = markdown("heads", EXPERIMENT, kept, rows, both)
    for line in (
        "| test Dice | 5 % |\n|---|---:|\n| random | 0.500 |\n| ours | 0.600 |\n",
        "| test Dice, last epoch | 5 % |\n|---|---:|\n| random | 0.400 |\n| ours | 0.500 |\n",
        "| test Dice, above random | 5 % |\n|---|---:|\n| ours | +0.100 [+0.100, +0.100] |\n",
        "| test Dice, last epoch, above random | 5 % |\n|---|---:|\n| ours | +0.100 [+0.100, +0.100] |\n",
        "mean over 2 subjects, with the 95 % bootstrap interval",
        "is of the last epoch's; test volumes were judged once by each.",
    ):
        assert line in text
    plain = markdown("heads", EXPERIMENT, [_cell(row.method, 0) for row in rows], rows, both)
    assert "last epoch" not in plain
    assert "Validation picked the weights; test volumes were judged once. " in plain
