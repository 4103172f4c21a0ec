"""Who does the work of a study: its jobs side by side, on the board."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from semicl.console import say
from semicl.data.prepare import ready
from semicl.errors import SemiclError
from semicl.models.accelerators import require_accelerator
from semicl.options import ExperimentOptions, PrepareOptions, SourceOptions, StudyOptions
from semicl.study.board import Board
from semicl.study.capacity import default_jobs
from semicl.study.plan import Cell, Job, distinct, plan
from semicl.study.runner import Progress, run_jobs
from semicl.study.sections import section

NAMED = 3
"""Failed cells whose reason the error tells."""


class Crew:
    """Trains the cells of a study, and judges them when it is told to.

    Args:
        data: the name of the data.
        cells: of the study.
        at_once: jobs at a time, each in a process of its own.
    """

    def __init__(self, data: str, cells: Sequence[Cell], at_once: int) -> None:
        self.data = data
        self.cells = cells
        self._at_once = at_once
        self._threads = max(1, torch.get_num_threads() // at_once)
        self._progress = Progress()
        self._board = Board(cells, self._progress)

    def train(self) -> None:
        """Train every cell; what is done already is skipped."""
        training = distinct([job for cell in self.cells for job in cell.training])
        left = sum(not job.finished for job in training)
        say(
            f"{len(self.cells)} cells, {left} stages to train, {self._at_once} at once with {self._threads} threads "
            "each."
        )
        self._run(training)

    def judge(self) -> None:
        """Judge every trained cell on its test volumes."""
        tests = [cell.test for cell in self.cells]
        self._run(distinct([test for test in tests if test]))

    def failed(self) -> dict[str, str]:
        """The reason of each cell that failed, by its title."""
        return {
            cell.title: self._progress.failed[job.folder]
            for cell in self.cells
            for job in (*cell.training, *cell.tests)
            if job.folder in self._progress.failed
        }

    def require_whole(self, file: str) -> None:
        """Raise where cells failed, with the first reasons; a file of this name holds them all.

        Raises:
            SemiclError: cells failed.
        """
        failed = self.failed()
        if failed:
            reasons = [f"{title}: {reason}" for title, reason in failed.items()]
            more = [f"and {len(reasons) - NAMED} more, see {file}"] if len(reasons) > NAMED else []
            raise SemiclError(
                f"{len(failed)} of {len(self.cells)} cells failed ({'; '.join(reasons[:NAMED] + more)}); mend the "
                "cause and call again, which goes on with them"
            )

    def _run(self, jobs: Sequence[Job]) -> None:
        with self._board:
            run_jobs(jobs, self._at_once, self._threads, self._progress, self._board.look)


def assemble(
    source: SourceOptions,
    experiment: ExperimentOptions,
    study: StudyOptions,
    prepare: PrepareOptions,
    stages: Mapping[str, Any],
) -> Crew:
    """Prepare the data where that is not done yet, and plan the cells.

    Raises:
        SemiclError: an option cannot be used.
    """
    require_accelerator(experiment.machine)
    with section("prepare", prepare):
        prepared = ready(source, prepare)
    cells = plan(prepared, experiment, study, stages)
    return Crew(prepared.name, cells, study.jobs or default_jobs(prepared, experiment, cells))
