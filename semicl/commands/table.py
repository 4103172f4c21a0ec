"""`semicl table`: a study, methods x label fractions x splits, from one config to one table."""

import torch

from semicl.accelerators import require_accelerator
from semicl.commands.prepare import prepare as make_ready
from semicl.commands.prepare import prepared_before
from semicl.console import conclude, say
from semicl.errors import SemiclError
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PrepareOptions,
    SegmentationOptions,
    SourceOptions,
    StudyOptions,
)
from semicl.sections import section
from semicl.study.alone import alone_in
from semicl.study.board import Board
from semicl.study.capacity import default_jobs
from semicl.study.plan import Cell, distinct, plan
from semicl.study.results import collect
from semicl.study.runner import Progress, run_jobs
from semicl.study.tables import failed_cells, write_tables

NAMED = 3
"""Failed cells whose reason the error tells."""


def table(
    source: SourceOptions,
    experiment: ExperimentOptions,
    study: StudyOptions,
    prepare: PrepareOptions,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
) -> None:
    """Train every cell, then judge each on its test volumes, and write the table; what is done already is skipped.

    No test volume is opened before all training has come to an end, so that nothing in a study can follow from one.

    Raises:
        SemiclError: an option cannot be used, or cells failed: the table holds the others then.
    """
    require_accelerator(experiment.machine)
    with section("prepare", prepare):
        prepared = prepared_before(source, prepare) or make_ready(source, prepare)
    stages = {"pretrain_global": pretrain_global, "pretrain_local": pretrain_local, "finetune": finetune}
    cells = plan(prepared, experiment, study, stages)
    at_once = study.jobs or default_jobs(prepared, experiment, cells)
    threads = max(1, torch.get_num_threads() // at_once)
    training = distinct([job for cell in cells for job in cell.training])
    left = sum(not job.finished for job in training)
    say(f"{len(cells)} cells, {left} stages to train, {at_once} at once with {threads} threads each.")
    progress = Progress()
    with alone_in(study.output), Board(cells, progress) as board:
        run_jobs(training, at_once, threads, progress, board.look)
        tests = [cell.test for cell in cells]
        run_jobs(distinct([test for test in tests if test]), at_once, threads, progress, board.look)
    rows = collect(cells)
    write_tables(study.output, prepared.name, experiment, cells, rows, progress)
    conclude(
        "Study",
        {
            **{f"{row.method}, {100 * row.label_fraction:.3g} %": row.dice["mean"] for row in rows},
            "files": f"{study.output}/table.md, table.csv, table.json, dice.png",
        },
    )
    _require_whole(cells, failed_cells(cells, progress))


def _require_whole(cells: list[Cell], failed: dict[str, str]) -> None:
    """Raise where cells failed, with the first reasons; table.json has them all."""
    if failed:
        reasons = [f"{title}: {reason}" for title, reason in failed.items()]
        more = [f"and {len(reasons) - NAMED} more, see table.json"] if len(reasons) > NAMED else []
        raise SemiclError(
            f"{len(failed)} of {len(cells)} cells failed ({'; '.join(reasons[:NAMED] + more)}); mend the cause and "
            "call again, which goes on with them"
        )
