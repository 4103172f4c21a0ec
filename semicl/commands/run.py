"""`semicl run`: an experiment, from files to the test Dice of each start."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from semicl.commands.evaluate import evaluate
from semicl.commands.finetune import finetune as fine_tune
from semicl.commands.prepare import ready, require_ready
from semicl.commands.pretrain_global import pretrain_global as contrast_globally
from semicl.commands.pretrain_local import pretrain_local as contrast_locally
from semicl.console import on_main_process, say
from semicl.errors import SemiclError
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
from semicl.outputs import output_folder
from semicl.sections import section
from semicl.stage_folder import StageFolder

RESULTS = "results.json"


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
    require_fit(Grid(prepare.patch_size), len(experiment.network.levels))
    with section("prepare", prepare):
        require_ready(source, prepare)
    output_folder(run_options.output, [source.prepared, *([Path(source.data).expanduser()] if source.data else [])])
    _require_same_experiment(run_options)

    from semicl.accelerators import require_accelerator

    require_accelerator(experiment.machine)

    # All that has to be installed is imported before any work.
    from semicl import tcsm, training  # noqa: F401
    from semicl.experiment import conclude_experiment

    with section("prepare", prepare):
        prepared = ready(source, prepare)
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


def _require_same_experiment(options: RunOptions) -> None:
    """Raise where results would be replaced by some that lack splits or starts of theirs, or are no experiment's."""
    path = options.output / RESULTS
    if options.overwrite or not path.exists():
        return
    try:
        before = json.loads(path.read_text())
        same = {*before["splits"]} <= {*options.splits} and {*before["test_dice"]} <= {*options.starts}
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise SemiclError(
            f"{path}: is there already, of other splits or starts; give another --output, or --overwrite to start anew"
        )


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
        whole = EvaluateOptions(
            folder.model, stage.prepared, stage.split, output=folder.test, overwrite=True, machine=experiment.machine
        )
        evaluate(whole)  # replacing what an interrupted one left
