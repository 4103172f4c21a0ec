"""What the numbers of a study depend on, in words for under its table."""

from collections.abc import Collection, Mapping, Sequence

from semicl.options import ExperimentOptions
from semicl.study.plan import Cell
from semicl.study.results import MADE


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
