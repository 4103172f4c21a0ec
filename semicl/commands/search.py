"""`semicl search`: the methods of a study side by side on validation volumes, for choosing among them."""

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
