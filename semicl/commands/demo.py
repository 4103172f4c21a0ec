"""`semicl demo`: the quick tour, an experiment on whatever volumes are at hand."""

from dataclasses import replace
from pathlib import Path

from semicl.data.prepare import PHANTOM
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PrepareOptions,
    RunOptions,
    SegmentationOptions,
    SourceOptions,
)
from semicl.study.experiment import run

HIPPOCAMPUS = Path("../shared/data/Task04_Hippocampus")


def demo(
    source: SourceOptions,
    experiment: ExperimentOptions,
    run_options: RunOptions,
    prepare: PrepareOptions,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
) -> None:
    """Run the experiment on the given data, else on the hippocampus cases beside the project, else on a phantom.

    Everything is written in the output folder, the prepared data too. Called again it goes on with what is there.

    Raises:
        SemiclError: what `semicl run` raises.
    """
    data = source.data or (str(HIPPOCAMPUS) if HIPPOCAMPUS.is_dir() else PHANTOM)
    here = SourceOptions(data, run_options.output / "prepared")
    anew = replace(prepare, overwrite=prepare.overwrite or run_options.overwrite)  # the folder is the demo's own
    run(here, experiment, run_options, anew, pretrain_global, pretrain_local, finetune)
