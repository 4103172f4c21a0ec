"""The live table of a study: a row a method and label fraction, a column a split, read from the stages' folders."""

from collections.abc import Sequence
from types import TracebackType

from rich.live import Live

from semicl.console import Table, say, screen, shown
from semicl.evaluation.measures import read_evaluation
from semicl.files import read_json
from semicl.study.plan import FINETUNE, Cell, Job, by_row, distinct, validation_dice
from semicl.study.runner import Progress
from semicl.training.folder import StageFolder
from semicl.training.stages import VALIDATION_DICE

WORDS = {"pretrain-global": "global", "pretrain-local": "local", FINETUNE: "tune", "evaluate": "test"}


class Board:
    """Shows the cells of a study on a terminal; elsewhere, a line for every job that came to its end."""

    def __init__(self, cells: Sequence[Cell], progress: Progress) -> None:
        self._cells = cells
        self._progress = progress
        self._live = self._new_live()
        self._told = {job.folder for job in self._jobs() if job.finished}

    def __enter__(self) -> "Board":
        self._live = self._new_live()  # one that was stopped would not start as it was
        if self._live.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def _new_live(self) -> Live:
        return Live(
            console=screen(),
            get_renderable=lambda: cells_table(self._cells, self._progress),
            refresh_per_second=1,
        )

    def look(self) -> None:
        """Tell what ended since the last look."""
        for job in self._jobs():
            if job.folder in self._told:
                continue
            if job.folder in self._progress.failed:
                self._tell(job, f"FAILED, {self._progress.failed[job.folder]}")
            elif job.finished and job.folder not in self._progress.running:
                self._tell(job, "done")

    def _jobs(self) -> list[Job]:
        """All that are known to be needed; which test that is shows when training has ended."""
        tests = [cell.test for cell in self._cells]
        return distinct([job for cell in self._cells for job in cell.training] + [test for test in tests if test])

    def _tell(self, job: Job, end: str) -> None:
        self._told.add(job.folder)
        text = f"{job.folder}: {end}"
        if self._live.is_started:
            self._live.console.print(shown(text))
        else:
            say(text)


def cells_table(cells: Sequence[Cell], progress: Progress) -> Table:
    """How far every cell is: a row a method and label fraction, a column a split."""
    splits = sorted({cell.split for cell in cells})
    table = Table("method", "labels", *(f"split {split}" for split in splits))
    for (method, fraction), row in by_row(cells).items():
        by_split = {cell.split: cell for cell in row}
        states = (state(by_split[split], progress) for split in splits)
        table.add_row(method, f"{100 * fraction:.3g} %", *states)
    return table


def state(cell: Cell, progress: Progress) -> str:
    """How far a cell is, in a few words."""
    if any(job.folder in progress.failed for job in (*cell.training, *cell.tests)):
        return "failed"
    test = cell.test
    if test is not None and test.finished:
        return f"done, Dice {read_evaluation(test.folder).mean_dice():.3f}"
    for job in (*cell.training, *cell.tests):
        if job.folder in progress.running:
            return f"{WORDS[job.command]} {_epochs(job)}".rstrip()
    if test is not None:
        return f"trained, validation {max(map(validation_dice, cell.tunings)):.3f}"
    return "waiting"


def _epochs(job: Job) -> str:
    """Epochs done, of how many, and the last validation Dice, where the stage wrote them down yet."""
    path = StageFolder(job.folder).progress
    try:
        content = read_json(path)
    except OSError:  # not there before the first epoch ends, nor after the last
        return ""
    dice = content[VALIDATION_DICE]
    return f"{content['epoch']}/{content['epochs']}" + ("" if dice is None else f", validation {dice:.3f}")
