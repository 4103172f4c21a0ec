"""What the cells of a study found: read from their folders, summed up over splits."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semicl.evaluation.measures import MEASURES, Evaluation, read_evaluation
from semicl.evaluation.metrics import spread
from semicl.options import ExperimentOptions
from semicl.study.plan import BEST, Cell, Job, by_row, validation_dice
from semicl.training.folder import StageFolder

SECONDS = "seconds"
MEMORY = "peak memory (MiB)"
MADE = ("machine", "date", "commit")
"""Lines of a stage's summary that say where it comes from."""


@dataclass(frozen=True)
class Found:
    """A finished cell.

    Args:
        cell: which.
        evaluation: of its test volumes.
        stages: its jobs of training, of fine-tuning the one that validation picked, each with its summary.
        last: the evaluation of the weights of the last epoch, where they are kept.
    """

    cell: Cell
    evaluation: Evaluation
    stages: tuple[tuple[Job, dict[str, Any]], ...]
    last: Evaluation | None = None

    @property
    def tuning(self) -> Job:
        """The fine-tuning that was judged."""
        return self.stages[-1][0]

    @property
    def dice(self) -> float:
        """Mean over test volumes and classes."""
        return self.evaluation.mean_dice()

    @property
    def history(self) -> list[tuple[int, float]]:
        """What each validation of its fine-tuning found: after how many steps, and the Dice."""
        return [(step, dice) for step, dice in self.stages[-1][1]["validation"]]

    @property
    def seconds(self) -> float:
        """Of all its stages, those included that it shares with other cells."""
        return float(sum(summary[SECONDS] for _, summary in self.stages))

    @property
    def memory(self) -> int:
        """The peak of its most demanding stage, in MiB."""
        return int(max(summary[MEMORY] for _, summary in self.stages))

    def made(self, line: str) -> list[str]:
        """What the summaries of its stages say in a line of `MADE`, each answer once."""
        return sorted({str(summary[line]) for _, summary in self.stages})


@dataclass(frozen=True)
class Row:
    """One method on one label fraction, over the splits that came to an end."""

    method: str
    label_fraction: float
    found: tuple[Found, ...]

    @property
    def dice(self) -> dict[str, Any]:
        """Mean and standard deviation over splits of the mean Dice."""
        return spread([found.dice for found in self.found])

    @property
    def last_dice(self) -> dict[str, Any] | None:
        """The same of the weights of the last epoch; None where a split has kept none."""
        found = [found.last.mean_dice() for found in self.found if found.last is not None]
        return spread(found) if len(found) == len(self.found) else None

    def per_class(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For every class, and for the mean over classes, each measure's mean and deviation over splits."""
        evaluations = [found.evaluation for found in self.found]
        per_class = {
            name: {m: spread([e.per_class(m)[number] for e in evaluations]) for m in MEASURES}
            for number, name in enumerate(evaluations[0].classes)
        }
        return per_class | {"mean": {m: spread([e.per_case(m).mean() for e in evaluations]) for m in MEASURES}}

    def made(self, line: str) -> list[str]:
        """As of `Found`, over the splits."""
        return sorted({answer for found in self.found for answer in found.made(line)})


def collect(cells: Sequence[Cell]) -> list[Row]:
    """The rows of a study that have a finished cell, in the order of its cells.

    Raises:
        SemiclError: the results of a finished cell are damaged.
    """
    judged = [cell for cell in cells if cell.test is not None and cell.test.finished]
    return [Row(*row, tuple(map(_found, found))) for row, found in by_row(judged).items()]


def study_record(
    name: str, experiment: ExperimentOptions, rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]
) -> dict[str, Any]:
    """A study as JSON: what its cells share, its rows, and the titles of the cells that failed, with the reasons."""
    shared = {"data": name, "levels": experiment.network.levels, "seed": experiment.seed}
    return {**shared, "cells": list(rows), "failed": dict(failed)}


def as_markdown(name: str) -> str:
    """A name in a text of markdown, shown as it is."""
    return re.sub(r"([\\`*<|])", r"\\\1", " ".join(name.split()))


def tried_rates(cell: Cell) -> list[dict[str, Any]]:
    """What a finished cell's fine-tuning reached on the validation volumes, by each of its learning rates."""
    return [
        {"learning_rate": job.learning_rate, "config": job.config_hash, BEST: validation_dice(job)}
        for job in cell.tunings
    ]


def stage_record(job: Job, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A finished stage as JSON: what it was told, and its summary."""
    return {"command": job.command, "config": job.config_hash, "options": job.config} | dict(summary)


def _found(cell: Cell) -> Found:
    test = cell.test
    assert test is not None
    tuning = next(job for job, other in zip(cell.tunings, cell.tests, strict=True) if other is test)
    stages = ((job, StageFolder(job.folder).summary()) for job in (*cell.pretraining, tuning))
    last = cell.test_last
    kept = read_evaluation(last.folder) if last is not None and last.finished else None
    return Found(cell, read_evaluation(test.folder), tuple(stages), kept)


RESAMPLES = 10_000
COVERED = (0.025, 0.975)
"""Quantiles of the means of resampled subjects: an interval of 95 %."""


@dataclass(frozen=True)
class Difference:
    """How far one method's Dice is above another's on the same test volumes.

    Args:
        mean: over subjects, of each the mean over its volumes, and over the splits in which it is tested.
        interval: 95 % bootstrap interval of it, subjects resampled; how runs of one training differ is no part of it.
        subjects: their number.
    """

    mean: float
    interval: tuple[float, float]
    subjects: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"mean": self.mean, "low": self.interval[0], "high": self.interval[1], "subjects": self.subjects}


Differences = Mapping[tuple[str, float], Difference]
"""By method and label fraction."""


def difference(row: Row, first: Row, subjects: Mapping[str, str], last: bool = False) -> Difference | None:
    """The paired difference of two rows over the splits that both have; None where there is none.

    Args:
        row: whose Dice is above where the difference is positive.
        first: what it is compared with.
        subjects: of the volumes, by name; one without is a subject of its own.
        last: by the weights of the last epoch.
    """
    reference = {found.cell.split: _dice_by_name(found, last) for found in first.found}
    of_subject: dict[str, list[float]] = {}
    for found in row.found:
        before = reference.get(found.cell.split, {})
        for name, dice in _dice_by_name(found, last).items():
            if name in before:
                of_subject.setdefault(subjects.get(name, name), []).append(dice - before[name])
    if not of_subject:
        return None
    means = np.array([np.mean(each) for each in of_subject.values()])
    drawn = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(1), COVERED)
    return Difference(float(means.mean()), (float(low), float(high)), len(means))


def differences(rows: Sequence[Row], subjects: Mapping[str, str], last: bool = False) -> Differences:
    """The differences of rows to the first one on the same label fraction, where there are any.

    Args: as of `difference`.
    """
    first: dict[float, Row] = {}
    for row in rows:
        first.setdefault(row.label_fraction, row)
    others = (row for row in rows if row is not first[row.label_fraction])
    found = {
        (row.method, row.label_fraction): difference(row, first[row.label_fraction], subjects, last) for row in others
    }
    return {place: each for place, each in found.items() if each is not None}


def _dice_by_name(found: Found, last: bool) -> dict[str, float]:
    """The Dice of each test volume, mean over classes."""
    evaluation = found.last if last else found.evaluation
    if evaluation is None:
        return {}
    return dict(zip(evaluation.names, evaluation.per_case("dice").tolist(), strict=True))


def conditions(experiment: ExperimentOptions, cells: Sequence[Cell], made: Mapping[str, Collection[str]]) -> str:
    """Network, schedules, seed, machine, date and commit, in a few sentences.

    Args:
        experiment: what the cells share.
        cells: all of them.
        made: all machines, dates and commits that occur.
    """
    where = [f"{line.capitalize()}: {'; '.join(sorted(made[line]))}." for line in MADE if made[line]]
    unlabelled = any("label_fraction" not in job.config for cell in cells for job in cell.pretraining)
    seen = ["TRANSDUCTIVE: pre-training saw the images, not the labels, of the test volumes."]
    return " ".join(
        [
            f"Network {'-'.join(map(str, experiment.network.levels))}, precision {experiment.machine.precision}, "
            f"epochs {_epochs(cells)}, learning rate of fine-tuning {_rates(cells)}, seed {experiment.seed}.",
            *where,
            *(seen if experiment.transductive and unlabelled else []),
        ]
    )


def _epochs(cells: Sequence[Cell]) -> str:
    """The epochs of every stage, all numbers that occur."""
    seen: dict[str, set[int]] = {}
    for cell in cells:
        for job in cell.training:
            seen.setdefault(job.command, set()).add(job.config["schedule"]["epochs"])
    return ", ".join(f"{'/'.join(map(str, sorted(numbers)))} ({command})" for command, numbers in seen.items())


def _rates(cells: Sequence[Cell]) -> str:
    """The learning rates that were tried."""
    text = ", ".join(f"{rate:g}" for rate in sorted({job.learning_rate for cell in cells for job in cell.tunings}))
    several = any(len(cell.tunings) > 1 for cell in cells)
    return f"{text}, of which validation picked one for each cell" if several else text
