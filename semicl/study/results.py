"""What the cells of a study found: read from their folders, summed up over splits."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """

    cell: Cell
    evaluation: Evaluation
    stages: tuple[tuple[Job, dict[str, Any]], ...]

    @property
    def tuning(self) -> Job:
        """The fine-tuning that was judged."""
        return self.stages[-1][0]

    @property
    def dice(self) -> float:
        """Mean over test volumes and classes."""
        return self.evaluation.mean_dice()

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
    return Found(cell, read_evaluation(test.folder), tuple(stages))


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
