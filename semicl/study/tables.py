"""What a study leaves behind: table.md to read, table.csv and table.json to compute with, dice.png to look at."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semicl.evaluation.figures import fractions_figure, write_figure
from semicl.evaluation.measures import MEASURES, known
from semicl.evaluation.metrics import shown
from semicl.files import replacing, write_json
from semicl.options import ExperimentOptions
from semicl.study.plan import Cell
from semicl.study.results import (
    MADE,
    MEMORY,
    SECONDS,
    Found,
    Row,
    as_markdown,
    conditions,
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
) -> None:
    """Write all four.

    Args:
        folder: of the study.
        name: of the data.
        experiment: what the cells share.
        cells: all of them.
        rows: what was found.
        failed: titles of the cells that were not finished, and why.
    """
    described = [_described(row) for row in rows]
    # First: who finds the others without it knows that they are of somebody else.
    write_json(folder / "table.json", study_record(name, experiment, described, failed))
    with replacing(folder / "table.md") as partial:
        partial.write_text(markdown(name, experiment, cells, rows), encoding="utf-8")
    with replacing(folder / "table.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        lines = [_line(row) for row in rows]
        writer = csv.DictWriter(file, list(lines[0]) if lines else ["method"])
        writer.writeheader()
        writer.writerows(lines)
    series = {
        method: [(row.label_fraction, row.dice["mean"], row.dice["deviation"]) for row in rows if row.method == method]
        for method in dict.fromkeys(row.method for row in rows)
    }
    if series:
        write_figure(folder / "dice.png", fractions_figure(series, f"{name}, test volumes"))


def markdown(name: str, experiment: ExperimentOptions, cells: Sequence[Cell], rows: Sequence[Row]) -> str:
    """The table to read: a row a method, a column a label fraction, and under it all that it depends on."""
    fractions = list(dict.fromkeys(cell.label_fraction for cell in cells))
    splits = sorted({cell.split for cell in cells})
    by_place = {(row.method, row.label_fraction): row for row in rows}
    lines = [
        "| test Dice | " + " | ".join(f"{100 * fraction:.3g} %" for fraction in fractions) + " |",
        "|---|" + "---:|" * len(fractions),
    ]
    for method in dict.fromkeys(cell.method for cell in cells):
        values = (_value(by_place.get((method, fraction)), len(splits)) for fraction in fractions)
        lines.append(f"| {as_markdown(method)} | " + " | ".join(values) + " |")
    lines += ["", _caption(name, experiment, splits, cells, rows), ""]
    return "\n".join(lines + _verdicts(rows, fractions))


def _value(row: Row | None, splits: int) -> str:
    if row is None:
        return "failed"
    found = [found.dice for found in row.found]
    text = shown(found) if splits > 1 else f"{np.mean(found):.3f}"
    return text if len(row.found) == splits else f"{text} ({len(row.found)} of {splits} splits)"


def _caption(
    name: str, experiment: ExperimentOptions, splits: Sequence[int], cells: Sequence[Cell], rows: Sequence[Row]
) -> str:
    """What the numbers are and all that they depend on, in a paragraph."""
    over = "one split" if len(splits) == 1 else "mean ± standard deviation over the splits"
    made = {line: {answer for row in rows for answer in row.made(line)} for line in MADE}
    return (
        f"{as_markdown(name)}: Dice of the test volumes, mean over volumes and classes; columns are fractions of the "
        f"labels; {over} ({', '.join(map(str, splits))}). {conditions(experiment, cells, made)} Validation "
        "picked the weights; test volumes were judged once. Classes, HD95, seconds and memory are in table.csv and "
        "table.json."
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


def _line(row: Row) -> dict[str, Any]:
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
        SECONDS: _mean_seconds(row),
        MEMORY: max(found.memory for found in row.found),
        **{line: " ".join(row.made(line)) for line in MADE},
        "learning_rate": " ".join(f"{found.tuning.learning_rate:g}" for found in row.found),
        "config": " ".join(found.tuning.config_hash for found in row.found),
    }


def _described(row: Row) -> dict[str, Any]:
    """A row as JSON, with each split and each stage."""
    return {
        "method": row.method,
        "label_fraction": row.label_fraction,
        "dice": row.dice,
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
        "test_volumes": len(evaluation.names),
        SECONDS: round(found.seconds, 1),
        MEMORY: found.memory,
        "learning_rates": tried_rates(found.cell),
        "stages": [stage_record(job, summary) for job, summary in found.stages],
    }
