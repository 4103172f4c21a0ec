"""What a search leaves behind: the Dice of validation volumes, in search.md to read and search.json to compute with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicl.evaluation.metrics import spread
from semicl.files import replacing, write_json
from semicl.options import ExperimentOptions
from semicl.study.plan import Cell, by_row, validation_dice
from semicl.study.results import MADE, as_markdown, conditions, stage_record, study_record, tried_rates
from semicl.training.folder import StageFolder


@dataclass(frozen=True)
class Candidate:
    """One method on one label fraction, over the splits whose training came to an end.

    Args:
        method: its name.
        label_fraction: of the training subjects that have labels.
        cells: those splits.
    """

    method: str
    label_fraction: float
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.method}, {100 * self.label_fraction:.3g} %"

    @property
    def by_split(self) -> dict[int, float]:
        """The best validation Dice of each split, by the best learning rate."""
        return {cell.split: max(map(validation_dice, cell.tunings)) for cell in self.cells}

    @property
    def dice(self) -> dict[str, Any]:
        """Mean and standard deviation over splits of the best validation Dice."""
        return spread(list(self.by_split.values()))


def trained(cells: Sequence[Cell]) -> list[Candidate]:
    """The candidates that have a trained cell, in the order of the cells."""
    finished = [cell for cell in cells if all(job.finished for job in cell.training)]
    return [Candidate(*row, tuple(found)) for row, found in by_row(finished).items()]


def write_search(
    folder: Path,
    name: str,
    experiment: ExperimentOptions,
    cells: Sequence[Cell],
    candidates: Sequence[Candidate],
    failed: Mapping[str, str],
) -> None:
    """Write both.

    Args:
        folder: of the search.
        name: of the data.
        experiment: what the cells share.
        cells: all of them.
        candidates: what was found.
        failed: titles of the cells that were not finished, and why.
    """
    described = [_described(candidate) for candidate in candidates]
    write_json(folder / "search.json", study_record(name, experiment, described, failed))
    with replacing(folder / "search.md") as partial:
        partial.write_text(markdown(name, experiment, cells, candidates), encoding="utf-8")


def markdown(name: str, experiment: ExperimentOptions, cells: Sequence[Cell], candidates: Sequence[Candidate]) -> str:
    """The table to read: a row a method and label fraction, a column a split, and what all have in common."""
    splits = sorted({cell.split for cell in cells})
    lines = [
        "| validation Dice | labels | " + " | ".join(f"split {split}" for split in splits) + " | mean |",
        "|---|---:|" + "---:|" * (len(splits) + 1),
    ]
    by_place = {(candidate.method, candidate.label_fraction): candidate for candidate in candidates}
    for method, fraction in by_row(cells):
        values = _values(by_place.get((method, fraction)), splits)
        lines.append(f"| {as_markdown(method)} | {100 * fraction:.3g} % | {' | '.join(values)} |")
    return "\n".join([*lines, "", _caption(name, experiment, splits, cells), "", *_best(candidates)])


def _values(candidate: Candidate | None, splits: Sequence[int]) -> list[str]:
    """The cells of a row: a split each, then their mean."""
    if candidate is None:
        return ["failed"] * (len(splits) + 1)
    found = candidate.by_split
    mean = f"{candidate.dice['mean']:.3f}"
    return [
        *(f"{found[split]:.3f}" if split in found else "failed" for split in splits),
        mean if len(found) == len(splits) else f"({mean})",
    ]


def _caption(name: str, experiment: ExperimentOptions, splits: Sequence[int], cells: Sequence[Cell]) -> str:
    """What the numbers are and what all of them have in common, in a paragraph."""
    return (
        f"{as_markdown(name)}: the best Dice of the validation volumes in the course of fine-tuning, mean over volumes "
        f"and classes, of split {', '.join(map(str, splits))}{_at_most(cells)}. "
        f"{conditions(experiment, cells, _made(cells))} No network was judged on a test volume."
    )


def _at_most(cells: Sequence[Cell]) -> str:
    """How many validation volumes were used, where that was limited."""
    limits = {job.config["validation_volumes"] for cell in cells for job in cell.tunings}
    told = [*map(str, sorted(limits - {None})), *(["all"] if None in limits else [])]
    return "" if limits == {None} else f", at most {' or '.join(told)} volumes each"


def _made(cells: Sequence[Cell]) -> dict[str, set[str]]:
    """All machines, dates and commits of the stages."""
    summaries = [StageFolder(job.folder).summary() for cell in cells for job in cell.training if job.finished]
    return {line: {str(summary[line]) for summary in summaries} for line in MADE}


def _best(candidates: Sequence[Candidate]) -> list[str]:
    """The best method on each label fraction, among those that came furthest: means over other splits are no match."""
    lines = []
    for fraction in dict.fromkeys(candidate.label_fraction for candidate in candidates):
        column = [candidate for candidate in candidates if candidate.label_fraction == fraction]
        furthest = max((candidate.by_split for candidate in column), key=len)
        rows = [candidate for candidate in column if candidate.by_split.keys() == furthest.keys()]
        best = max(rows, key=lambda candidate: candidate.dice["mean"])
        lines.append(f"- {100 * fraction:.3g} %: best is {as_markdown(best.method)} ({best.dice['mean']:.3f}).")
    return [*lines, ""]


def _described(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON, with each split and each stage."""
    return {
        "method": candidate.method,
        "label_fraction": candidate.label_fraction,
        "validation_dice": candidate.dice,
        "splits": [
            {
                "split": cell.split,
                "learning_rates": tried_rates(cell),
                "stages": [stage_record(job, StageFolder(job.folder).summary()) for job in cell.training],
            }
            for cell in candidate.cells
        ],
    }
