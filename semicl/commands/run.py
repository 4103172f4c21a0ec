"""`semicl run`: an experiment, from files to the test Dice of each start."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from semicl.accelerators import require_accelerator
from semicl.commands.evaluate import evaluate
from semicl.commands.finetune import finetune as fine_tune
from semicl.commands.prepare import prepare as make_ready
from semicl.commands.prepare import prepared_before
from semicl.commands.pretrain_global import pretrain_global as contrast_globally
from semicl.commands.pretrain_local import pretrain_local as contrast_locally
from semicl.console import on_main_process, say
from semicl.experiment import conclude_experiment
from semicl.grid import Grid, require_fit
from semicl.options import (
    EvaluateOptions,
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PrepareOptions,
    RunOptions,
    SegmentationOptions,
    SourceOptions,
    StageOptions,
)
from semicl.sections import section
from semicl.stage_folder import StageFolder


def run(
    source: SourceOptions,
    experiment: ExperimentOptions,
    run_options: RunOptions,
    prepare: PrepareOptions,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
) -> None:
    """Prepare, pre-train, fine-tune from each start and evaluate, for each split; what is done already is skipped.

    Raises:
        SemiclError: what any of the stages raises.
    """
    require_accelerator(experiment.machine)
    require_fit(Grid(prepare.patch_size), len(experiment.network.levels))
    with section("prepare", prepare):
        prepared = prepared_before(source, prepare) or make_ready(source, prepare)
    tuned: dict[str, list[StageFolder]] = {start: [] for start in run_options.starts}
    for split in run_options.splits:
        folder = run_options.output / f"split-{split}"
        stage = StageOptions(
            source.prepared, split, folder, resume=not run_options.overwrite, overwrite=run_options.overwrite
        )
        checkpoints = _checkpoints(folder)
        if set(run_options.starts) != {"random"}:
            with section("pretrain_global", pretrain_global):
                contrast_globally(pretrain_global, experiment, replace(stage, output=folder / "pretrain-global"))
        if "pretrained" in run_options.starts:
            local = replace(stage, output=folder / "pretrain-local", start=checkpoints["global"])
            with section("pretrain_local", pretrain_local):
                contrast_locally(pretrain_local, experiment, local)
        for start in run_options.starts:
            output = folder / f"finetune-{start}"
            with section("finetune", finetune):
                fine_tune(finetune, experiment, replace(stage, output=output, start=checkpoints[start]))
            tuned[start].append(StageFolder(output))
        if on_main_process():
            _evaluate(experiment, stage, [folders[-1] for folders in tuned.values()])
    if on_main_process():
        conclude_experiment(run_options.output, prepared, run_options.splits, tuned)


def _checkpoints(folder: Path) -> Mapping[str, Path | None]:
    """What each start takes its weights from."""
    return {
        "random": None,
        "global": StageFolder(folder / "pretrain-global").model,
        "pretrained": StageFolder(folder / "pretrain-local").model,
    }


def _evaluate(experiment: ExperimentOptions, stage: StageOptions, tuned: list[StageFolder]) -> None:
    """Judge the fine-tuned networks of a split on its test volumes, after all training on that split."""
    for folder in tuned:
        if (folder.test / "results.json").is_file():
            say(f"{folder.test}: evaluated already, nothing to do.")
            continue
        evaluate(
            EvaluateOptions(folder.model, stage.prepared, stage.split, output=folder.test, machine=experiment.machine)
        )
