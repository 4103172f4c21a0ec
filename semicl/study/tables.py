"""What a study leaves behind: table.md to read, table.csv and table.json to compute with, dice.png and
validation.png to look at."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semicl.data.classes import ABSENT
from semicl.evaluation.figures import fractions_figure, validation_figure, write_figure
from semicl.evaluation.measures import MEASURES, known
from semicl.evaluation.metrics import shown
from semicl.files import replacing, write_json
from semicl.options import ExperimentOptions
from semicl.study.plan import Cell
from semicl.study.results import (
    MADE,
    MEMORY,
    SECONDS,
    Differences,
    Found,
    Row,
    as_markdown,
    conditions,
    differences,
    stage_record,
    study_record,
    tried_rates,
)


def write_tables(
    folder: Path,
    name: str,
    experiment: ExperimentOptions,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    failed: Mapping[str, str],
    subjects: Mapping[str, str],
) -> None:
    """Write all five.

    Args:
        folder: of the study.
        name: of the data.
        experiment: what the cells share.
        cells: all of them.
        rows: what was found.
        failed: titles of the cells that were not finished, and why.
        subjects: of the test volumes, by name.
    """
    found = {DICE: differences(rows, subjects), LAST_DICE: differences(rows, subjects, last=True)}
    described = [_described(row, found) for row in rows]
    # First: who finds the others without it knows that they are of somebody else.
    write_json(folder / "table.json", study_record(name, experiment, described, failed))
    with replacing(folder / "table.md") as partial:
        partial.write_text(markdown(name, experiment, cells, rows, found), encoding="utf-8")
    with replacing(folder / "table.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        lines = [_line(row, found) for row in rows]
        writer = csv.DictWriter(file, list(lines[0]) if lines else ["method"])
        writer.writeheader()
        writer.writerows(lines)
    series = {
        method: [(row.label_fraction, row.dice["mean"], row.dice["deviation"]) for row in rows if row.method == method]
        for method in dict.fromkeys(row.method for row in rows)
    }
    if series:
        write_figure(folder / "dice.png", fractions_figure(series, f"{name}, test volumes"))
        write_figure(folder / "validation.png", validation_figure(_histories(rows), f"{name}, validation volumes"))


def _histories(rows: Sequence[Row]) -> dict[str, dict[str, list[list[tuple[int, float]]]]]:
    """By label fraction and method what each validation of each split found."""
    panels: dict[str, dict[str, list[list[tuple[int, float]]]]] = {}
    for row in rows:
        title = f"{100 * row.label_fraction:.3g} % of the labels"
        panels.setdefault(title, {})[row.method] = [found.history for found in row.found]
    return panels


DICE, LAST_DICE = "test Dice", "test Dice, last epoch"
"""Of the weights that validation picked, and of those of the last epoch, where fine-tuning keeps them."""


def markdown(
    name: str,
    experiment: ExperimentOptions,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    found: Mapping[str, Differences],
) -> str:
    """The tables to read: a row a method, a column a label fraction, and under them all that they depend on."""
    fractions = list(dict.fromkeys(cell.label_fraction for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    splits = sorted({cell.split for cell in cells})
    by_place = {(row.method, row.label_fraction): row for row in rows}
    wanted = [DICE, *([LAST_DICE] if any(cell.tests_last for cell in cells) else [])]
    lines = []
    for title in wanted:
        values = {
            (method, fraction): _value(by_place.get((method, fraction)), len(splits), title == LAST_DICE)
            for method in methods
            for fraction in fractions
        }
        lines += _grid(title, methods, fractions, values)
    lines += [_caption(name, experiment, splits, cells, rows), ""]
    for title in wanted:
        if found[title]:
            values = {place: str(each) for place, each in found[title].items()}
            lines += _grid(f"{title}, above {as_markdown(methods[0])}", methods[1:], fractions, values)
    if any(found[title] for title in wanted):
        lines += [_of_differences(found[DICE]), ""]
    return "\n".join(lines + _verdicts(rows, fractions))


def _grid(
    title: str, methods: Sequence[str], fractions: Sequence[float], values: Mapping[tuple[str, float], str]
) -> list[str]:
    """The lines of a table, a dash where there is no value."""
    lines = [
        f"| {title} | " + " | ".join(f"{100 * fraction:.3g} %" for fraction in fractions) + " |",
        "|---|" + "---:|" * len(fractions),
    ]
    for method in methods:
        row = " | ".join(values.get((method, fraction), ABSENT) for fraction in fractions)
        lines.append(f"| {as_markdown(method)} | {row} |")
    return [*lines, ""]


def _value(row: Row | None, splits: int, last: bool) -> str:
    if row is None:
        return "failed"
    evaluations = [found.last if last else found.evaluation for found in row.found]
    found = [evaluation.mean_dice() for evaluation in evaluations if evaluation is not None]
    if not found:
        return "failed"
    text = shown(found) if splits > 1 else f"{np.mean(found):.3f}"
    return text if len(found) == splits else f"{text} ({len(found)} of {splits} splits)"


def _of_differences(found: Differences) -> str:
    """What the numbers of the differences are, in a paragraph."""
    counts = sorted({each.subjects for each in found.values()})
    return (
        f"Differences on the same test volumes, mean over {' or '.join(map(str, counts))} subjects, with the 95 % "
        "bootstrap interval of that mean over subjects. How much two runs of one training differ, by seed or machine, "
        "is no part of the interval."
    )


def _caption(
    name: str, experiment: ExperimentOptions, splits: Sequence[int], cells: Sequence[Cell], rows: Sequence[Row]
) -> str:
    """What the numbers are and all that they depend on, in a paragraph."""
    over = "one split" if len(splits) == 1 else "mean ± standard deviation over the splits"
    made = {line: {answer for row in rows for answer in row.made(line)} for line in MADE}
    kept = any(cell.tests_last for cell in cells)
    picked = "the weights of the first table, the second is of the last epoch's" if kept else "the weights"
    return (
        f"{as_markdown(name)}: Dice of the test volumes, mean over volumes and classes; columns are fractions of the "
        f"labels; {over} ({', '.join(map(str, splits))}). {conditions(experiment, cells, made)} Validation "
        f"picked {picked}; test volumes were judged once{' by each' if kept else ''}. Classes, HD95, seconds and "
        "memory are in table.csv and table.json."
    )


def _verdicts(rows: Sequence[Row], fractions: Sequence[float]) -> list[str]:
    """Which methods are above the first one, for each label fraction, whichever way it came out."""
    lines = []
    for fraction in fractions:
        column = [row for row in rows if row.label_fraction == fraction]
        if len(column) < 2:
            continue
        first, others = column[0], column[1:]
        gains = {row.method: _gains(row, first) for row in others}
        above = [
            f"{as_markdown(method)} ({_told(found)})" for method, found in gains.items() if found and np.mean(found) > 0
        ]
        reference = as_markdown(first.method)
        found = f"above {reference}: {', '.join(above)}" if above else f"no method is above {reference}"
        count = f"; {len(above)} of {len(others)}" if len(others) > 1 else ""
        lines.append(f"- {100 * fraction:.3g} %: {found}{count}.")
    if rows and all(len(row.found) == 1 for row in rows):
        lines.append("- One split and one seed: an illustration, not a benchmark.")
    return [*lines, ""] if lines else []


def _gains(row: Row, first: Row) -> list[float]:
    """What the row is above the first one, in each of the splits that both have."""
    reference = {found.cell.split: found.dice for found in first.found}
    return [found.dice - reference[found.cell.split] for found in row.found if found.cell.split in reference]


def _told(gains: Sequence[float]) -> str:
    """The mean gain, and in how many of the splits there is one, where there are several."""
    splits = f", in {sum(gain > 0 for gain in gains)} of {len(gains)} splits" if len(gains) > 1 else ""
    return f"{np.mean(gains):+.3f}{splits}"


def _line(row: Row, found: Mapping[str, Differences]) -> dict[str, Any]:
    """A row as one flat line."""
    measured = {
        f"{name} {measure} {statistic}": value
        for name, measures in row.per_class().items()
        for measure, statistics in measures.items()
        for statistic, value in statistics.items()
    }
    return {
        "method": row.method,
        "label_fraction": row.label_fraction,
        "splits": " ".join(str(found.cell.split) for found in row.found),
        **measured,
        **{
            f"{title}, difference {name}": value
            for title, differing in _differing(row, found).items()
            for name, value in (differing or dict.fromkeys(("mean", "low", "high", "subjects"))).items()
        },
        SECONDS: _mean_seconds(row),
        MEMORY: max(found.memory for found in row.found),
        **{line: " ".join(row.made(line)) for line in MADE},
        "learning_rate": " ".join(f"{found.tuning.learning_rate:g}" for found in row.found),
        "config": " ".join(found.tuning.config_hash for found in row.found),
    }


def _differing(row: Row, found: Mapping[str, Differences]) -> dict[str, dict[str, Any] | None]:
    """The differences of a row to the first one, by title, as JSON; None where there is none."""
    there = {title: each.get((row.method, row.label_fraction)) for title, each in found.items()}
    return {title: None if each is None else each.as_dict() for title, each in there.items()}


def _described(row: Row, found: Mapping[str, Differences]) -> dict[str, Any]:
    """A row as JSON, with each split and each stage."""
    return {
        "method": row.method,
        "label_fraction": row.label_fraction,
        "dice": row.dice,
        "dice_last_epoch": row.last_dice,
        "differences": _differing(row, found),
        "classes": row.per_class(),
        SECONDS: _mean_seconds(row),
        MEMORY: max(found.memory for found in row.found),
        **{line: row.made(line) for line in MADE},
        "splits": [_split(found) for found in row.found],
    }


def _mean_seconds(row: Row) -> float:
    return round(float(np.mean([found.seconds for found in row.found])), 1)


def _split(found: Found) -> dict[str, Any]:
    """One split of a row."""
    evaluation = found.evaluation
    return {
        "split": found.cell.split,
        "config": found.tuning.config_hash,
        "dice": found.dice,
        "classes": {
            name: {measure: known(evaluation.per_class(measure)[number]) for measure in MEASURES}
            for number, name in enumerate(evaluation.classes)
        },
        "dice_last_epoch": None if found.last is None else found.last.mean_dice(),
        "test_volumes": len(evaluation.names),
        SECONDS: round(found.seconds, 1),
        MEMORY: found.memory,
        "learning_rates": tried_rates(found.cell),
        "stages": [stage_record(job, summary) for job, summary in found.stages],
    }
