"""`semicl table`: a study, methods x label fractions x splits, from one config to one table."""

from semicl.console import conclude
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
from semicl.study.early import check_study, require_same_study


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
