"""`semicl table` and `semicl search`: the methods of a study side by side, on test or on validation volumes alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semicl.console import conclude, say
from semicl.data.prepare import ready, require_ready
from semicl.data.prepared import Prepared
from semicl.errors import SemiclError, UsageError, section
from semicl.files import TO_REPLACE, output_folder
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PrepareOptions,
    SegmentationOptions,
    SourceOptions,
    StudyOptions,
)
from semicl.study.plan import Cell, Job, distinct, plan, stages_of_methods
from semicl.training.setup import require_loggers

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
    stages = {"pretrain_global": pretrain_global, "pretrain_local": pretrain_local, "finetune": finetune}
    check_study(source, study, prepare, stages)

    from semicl.study.jobs import alone_in, opened_executor, run_jobs
    from semicl.study.results import collect
    from semicl.study.tables import write_tables

    prepared, cells = _planned(source, experiment, study, prepare, stages)
    record = study.output / "table.json"
    require_same_study(
        record, ("table.md", "table.csv", "dice.png", "validation.png"), prepared.name, cells, study.overwrite
    )
    with alone_in(study.output), opened_executor(study, experiment.machine) as executor:
        lost = run_jobs(_training(cells), executor)
        tests = [test for cell in cells for test in (cell.test, cell.test_last) if test is not None]
        lost |= run_jobs(distinct(tests), executor)
    rows, failed = collect(cells), failed_cells(cells, lost)
    subjects = {case.name: case.subject for case in prepared.cases}
    write_tables(study.output, prepared.name, experiment, cells, rows, failed, subjects)
    conclude(
        "Study",
        {
            **{f"{row.method}, {100 * row.label_fraction:.3g} %": row.dice["mean"] for row in rows},
            "files": f"{study.output}/table.md, table.csv, table.json, dice.png, validation.png",
        },
    )
    require_whole(failed, len(cells), "table.json")


def search(
    source: SourceOptions,
    experiment: ExperimentOptions,
    study: StudyOptions,
    prepare: PrepareOptions,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
) -> None:
    """Train every cell and write the Dice of the validation volumes; what is done already is skipped.

    Nothing is judged on a test volume, so the options of a study may follow from what is found here. A study into the
    same folder finds the stages that it has in common with the search.

    Raises:
        SemiclError: an option cannot be used, or cells failed: the files hold the others then.
    """
    stages = {"pretrain_global": pretrain_global, "pretrain_local": pretrain_local, "finetune": finetune}
    check_study(source, study, prepare, stages)

    from semicl.study.candidates import trained, write_search
    from semicl.study.jobs import alone_in, opened_executor, run_jobs

    prepared, cells = _planned(source, experiment, study, prepare, stages)
    require_same_study(study.output / "search.json", ("search.md",), prepared.name, cells, study.overwrite)
    with alone_in(study.output), opened_executor(study, experiment.machine) as executor:
        lost = run_jobs(_training(cells), executor)
    candidates, failed = trained(cells), failed_cells(cells, lost)
    write_search(study.output, prepared.name, experiment, cells, candidates, failed)
    conclude(
        "Search, validation Dice",
        {
            **{candidate.title: candidate.dice["mean"] for candidate in candidates},
            "files": f"{study.output}/search.md, search.json",
        },
    )
    require_whole(failed, len(cells), "search.json")


def _planned(
    source: SourceOptions,
    experiment: ExperimentOptions,
    study: StudyOptions,
    prepare: PrepareOptions,
    stages: Mapping[str, Any],
) -> tuple[Prepared, list[Cell]]:
    """The data, prepared where that is not done yet, and the cells of a study."""
    from semicl.models.accelerators import require_accelerator

    require_accelerator(experiment.machine)
    require_loggers(experiment.logger)
    with section("prepare", prepare):
        prepared = ready(source, prepare)
    return prepared, plan(prepared, experiment, study, stages)


def _training(cells: Sequence[Cell]) -> list[Job]:
    """All jobs of training, each once; how many are left is said."""
    jobs = distinct([job for cell in cells for job in cell.training])
    say(f"{len(cells)} cells, {sum(not job.finished for job in jobs)} stages to train.")
    return jobs


def failed_cells(cells: Sequence[Cell], lost: Mapping[Path, str]) -> dict[str, str]:
    """The reason of each cell that failed, by its title, from those of the jobs that did, by folder."""
    jobs = ((cell, job) for cell in cells for job in (*cell.training, *cell.tests, *cell.tests_last))
    return {cell.title: lost[job.folder] for cell, job in jobs if job.folder in lost}


def require_whole(failed: Mapping[str, str], cells: int, file: str) -> None:
    """Raise where cells failed, with the first reasons; a file of this name holds them all.

    Raises:
        SemiclError: cells failed.
    """
    if failed:
        reasons = [f"{title}: {reason}" for title, reason in failed.items()]
        more = [f"and {len(reasons) - NAMED} more, see {file}"] if len(reasons) > NAMED else []
        raise SemiclError(
            f"{len(failed)} of {cells} cells failed ({'; '.join(reasons[:NAMED] + more)}); mend the cause and call "
            "again, which goes on with them"
        )


def check_study(source: SourceOptions, study: StudyOptions, prepare: PrepareOptions, stages: Mapping[str, Any]) -> None:
    """Raise where methods, data or folders cannot be used.

    Raises:
        SemiclError: so it is.
    """
    if not study.methods:
        raise UsageError("--methods is missing; give one or more, as in the config hippocampus-small-study")
    stages_of_methods(study, stages)
    with section("prepare", prepare):
        require_ready(source, prepare)
    output_folder(study.output, [source.prepared, *([Path(source.data)] if source.data else [])])


def require_same_study(record: Path, others: Sequence[str], name: str, cells: Sequence[Cell], overwrite: bool) -> None:
    """Raise where tables would be replaced by some that lack cells of theirs: of another study, or of another's part.

    Args:
        record: the JSON file of the tables.
        others: names of the files beside it, written after it.
        name: of the data.
        cells: of the study.
        overwrite: whether any may be replaced.

    Raises:
        SemiclError: so it is.
    """
    there = [record.with_name(file) for file in (record.name, *others) if record.with_name(file).exists()]
    if overwrite or not there:
        return
    if there[0] == record:
        now = {(name, cell.method, cell.label_fraction, cell.split) for cell in cells}
        if _recorded(record) <= now:
            return
    way_out = TO_REPLACE.format(option="output")
    raise SemiclError(f"{there[0]}: is there already, of cells that are not in this study; {way_out}")


def _recorded(record: Path) -> set[tuple[Any, ...]]:
    """The cells of a record; one of its own where it cannot be read."""
    try:
        content = json.loads(record.read_text())
        return {
            (content["data"], cell["method"], cell["label_fraction"], split["split"])
            for cell in content["cells"]
            for split in cell["splits"]
        }
    except (ValueError, KeyError, TypeError):
        return {()}
