"""`semicl table` and `semicl search`: the methods of a study side by side, on test or on validation volumes alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semicl.console import conclude
from semicl.data.prepare import require_ready
from semicl.errors import SemiclError, UsageError
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
from semicl.study.alone import alone_in
from semicl.study.plan import Cell, stages_of_methods
from semicl.study.sections import section


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

    from semicl.study.crew import assemble
    from semicl.study.results import collect
    from semicl.study.tables import write_tables

    crew = assemble(source, experiment, study, prepare, stages)
    require_same_study(
        study.output / "table.json", ("table.md", "table.csv", "dice.png"), crew.data, crew.cells, study.overwrite
    )
    with alone_in(study.output):
        crew.train()
        crew.judge()
    rows = collect(crew.cells)
    write_tables(study.output, crew.data, experiment, crew.cells, rows, crew.failed())
    conclude(
        "Study",
        {
            **{f"{row.method}, {100 * row.label_fraction:.3g} %": row.dice["mean"] for row in rows},
            "files": f"{study.output}/table.md, table.csv, table.json, dice.png",
        },
    )
    crew.require_whole("table.json")


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
    from semicl.study.crew import assemble

    crew = assemble(source, experiment, study, prepare, stages)
    require_same_study(study.output / "search.json", ("search.md",), crew.data, crew.cells, study.overwrite)
    with alone_in(study.output):
        crew.train()
    candidates = trained(crew.cells)
    write_search(study.output, crew.data, experiment, crew.cells, candidates, crew.failed())
    conclude(
        "Search, validation Dice",
        {
            **{candidate.title: candidate.dice["mean"] for candidate in candidates},
            "files": f"{study.output}/search.md, search.json",
        },
    )
    crew.require_whole("search.json")


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
