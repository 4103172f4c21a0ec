"""`semicl run`: an experiment, from files to the test Dice of each start."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semicl.console import on_main_process, say
from semicl.data.file_states import cases_hash
from semicl.data.grid import Grid, require_fit
from semicl.data.prepare import ready, require_ready
from semicl.data.prepared import Prepared
from semicl.data.splits import Split
from semicl.errors import SemiclError, section
from semicl.evaluation.evaluate import evaluate, evaluated_on, judged
from semicl.files import output_folder, remove_partial
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
from semicl.study.estimate import Planned, tell_estimate
from semicl.training.folder import DATA, StageFolder
from semicl.training.inputs import SectionOptions, split_seen
from semicl.training.setup import plan_stage, require_loggers, told_with_start
from semicl.training.together import first_process_first
from semicl.training.train import anchored, judged_classes
from semicl.training.train import finetune as fine_tune
from semicl.training.train import pretrain_global as contrast_globally
from semicl.training.train import pretrain_local as contrast_locally

RESULTS = "results.json"


@dataclass(frozen=True)
class _Step:
    """One stage of one split.

    Args:
        command: its name.
        section: of the options.
        train: its function.
        options: its own.
        stage: where it reads and writes.
        after: the stage whose weights it starts with.
    """

    command: str
    section: str
    train: Callable[..., None]
    options: SectionOptions
    stage: StageOptions
    after: "_Step | None"

    @property
    def folder(self) -> StageFolder:
        return StageFolder(self.stage.output)


def run(
    source: SourceOptions,
    experiment: ExperimentOptions,
    run_options: RunOptions,
    prepare: PrepareOptions,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
    begin: Callable[[], object] | None = None,
) -> None:
    """Prepare, pre-train, fine-tune from each start and evaluate, for each split; what is done already is skipped.

    All that can be checked is checked before the first step, when `begin` is called by the first process. A stage whose
    files have changed since is trained again.

    Raises:
        SemiclError: what any of the stages raises.
    """
    require_fit(Grid(prepare.patch_size), len(experiment.network.levels))
    require_possible(source, run_options, prepare)
    require_loggers(experiment.logger)

    from semicl.models.accelerators import require_accelerator

    require_accelerator(experiment.machine)

    # All that has to be installed is imported before any work.
    from semicl.study.report import conclude_experiment
    from semicl.training import tcsm, trainer  # noqa: F401

    sections = (pretrain_global, pretrain_local, finetune)
    steps = {split: _steps(source.prepared, run_options, split, *sections) for split in run_options.splits}
    with section("prepare", prepare), first_process_first():
        prepared = ready(source, prepare, partial(_require_trained_on, steps))
    if on_main_process():
        remove_partial(run_options.output)
    to_train: list[Planned] = []
    plans = [
        f"split {split}: {', '.join(_planned(found, experiment, prepared, to_train))}" for split, found in steps.items()
    ]
    say("To do, " + "; ".join(plans) + ".")
    if begin is not None and on_main_process():
        begin()
    tests = [case for split in run_options.splits for case in prepared.split(split).test if case.label is not None]
    tell_estimate(to_train, experiment, len(tests) * len(run_options.starts))
    for split, found in steps.items():
        for step in found:
            with section(step.section, step.options):
                step.train(step.options, experiment, step.stage, retrain=True)
        if on_main_process():
            _evaluate(experiment, prepared, split, _tuned(found))
    if on_main_process():
        by_split = map(_tuned, steps.values())
        tuned = dict(zip(map(str, run_options.starts), map(list, zip(*by_split, strict=True)), strict=True))
        conclude_experiment(run_options.output, prepared, run_options.splits, tuned)


def require_possible(source: SourceOptions, run_options: RunOptions, prepare: PrepareOptions) -> None:
    """Raise where an experiment cannot be run, as far as that can be told before torch is imported.

    Raises:
        SemiclError: a split is missing, the data cannot be used, or the output is an input or of another experiment.
    """
    _require_splits(source.prepared, run_options.splits, prepare.repeats)
    with section("prepare", prepare):
        require_ready(source, prepare)
    output_folder(run_options.output, [source.prepared, *([Path(source.data).expanduser()] if source.data else [])])
    _require_same_experiment(run_options)


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


def _steps(
    prepared: Path,
    run_options: RunOptions,
    split: int,
    pretrain_global: GlobalContrastOptions,
    pretrain_local: LocalContrastOptions,
    finetune: SegmentationOptions,
) -> list[_Step]:
    """The stages of a split in their order, fine-tuning from each start at the end."""

    def step(name: str, train: Callable[..., None], options: SectionOptions, after: _Step | None = None) -> _Step:
        command = name.partition("finetune")[1] or name
        stage = StageOptions(
            prepared,
            split,
            run_options.output / f"split-{split}" / name,
            after.folder.model if after else None,
            resume=not run_options.overwrite,
            overwrite=run_options.overwrite,
        )
        return _Step(command, command.replace("-", "_"), train, options, stage, after)

    from_start: dict[str, _Step | None] = {"random": None}
    if set(run_options.starts) != {"random"}:
        from_start["global"] = step("pretrain-global", contrast_globally, pretrain_global)
    if "pretrained" in run_options.starts:
        from_start["pretrained"] = step("pretrain-local", contrast_locally, pretrain_local, from_start["global"])
    tuning = [step(f"finetune-{start}", fine_tune, finetune, from_start[start]) for start in run_options.starts]
    return [*(each for each in from_start.values() if each), *tuning]


def _require_trained_on(steps: Mapping[int, Sequence[_Step]], splits: Sequence[Split]) -> None:
    """Raise where a stage that is begun was trained on another split than the one to be made of this number."""
    for number, found in steps.items():
        for step in found:
            if number < len(splits) and step.folder.begun and not step.stage.overwrite:
                step.folder.reason_to_start_anew({DATA: split_seen(splits[number])}, {}, retrain=True)


def _tuned(steps: Sequence[_Step]) -> list[StageFolder]:
    """The folders of fine-tuning."""
    return [step.folder for step in steps if step.command == "finetune"]


def _planned(
    steps: Sequence[_Step], experiment: ExperimentOptions, prepared: Prepared, to_train: list[Planned]
) -> Iterator[str]:
    """What is to be done in each stage of a split, in words; what is to be trained is added to a list.

    Raises:
        SemiclError: a stage cannot be trained, or its folder holds one that was told something else.
    """
    trained: set[Path] = set()
    for step in steps:
        with section(step.section, step.options):
            plan = plan_stage(step.command, step.options, experiment, step.stage)
            if isinstance(step.options, LocalContrastOptions) and step.options.loss.supervised:
                anchored(plan)
            if isinstance(step.options, SegmentationOptions):
                judged_classes(plan)
            follows = step.after is not None and step.after.folder.path in trained
            told = plan.told if follows else told_with_start(plan.told, step.stage.start)
            word = _to_do(plan.folder, told, plan.defaults, step.stage.overwrite)
        if word != "done":
            trained.add(plan.folder.path)
            done = plan.folder.epochs if word.startswith("from epoch") else 0
            to_train.append(Planned(plan, step.options, step.options.schedule.epochs - done))
        elif follows:
            word = f"as {step.after.folder.path.name} turns out" if step.after else word
        yield f"{plan.folder.path.name} {word}"
    if not any(case.label is not None for case in prepared.split(steps[0].stage.split).test):
        raise SemiclError(
            f"{prepared.folder}: no test case of split {steps[0].stage.split} has a label; give another --splits"
        )


def _to_do(folder: StageFolder, told: dict[str, Any], defaults: dict[str, Any], overwrite: bool) -> str:
    if overwrite or not folder.begun:
        return "from the start"
    reason = folder.reason_to_start_anew(told, defaults, retrain=True)
    if reason is not None:
        return f"anew ({reason})"
    return "done" if folder.finished else f"from epoch {folder.epochs + 1}"


def _require_splits(prepared: Path, splits: Sequence[int], repeats: int) -> None:
    """Raise where a split is neither among those that are made nor there already, made by hand."""
    missing = [number for number in splits if number >= repeats and not Prepared.split_file(prepared, number).is_file()]
    if missing:
        raise SemiclError(
            f"--splits takes numbers of splits, from 0 to {repeats - 1}, got {json.dumps(missing)}; give others, or "
            f"--prepare.repeats {max(missing) + 1}"
        )


def _evaluate(experiment: ExperimentOptions, prepared: Prepared, split: int, tuned: Sequence[StageFolder]) -> None:
    """Judge the fine-tuned networks of a split on its test volumes, after all training on that split."""
    cases = [case for case in prepared.split(split).test if case.label is not None]
    known = cases_hash(cases, prepared.source, prepared.states)
    for folder in tuned:
        if evaluated_on(folder.test) == judged(folder.model, known):
            say(f"{folder.test}: evaluated already, nothing to do.")
            continue
        whole = EvaluateOptions(
            folder.model, prepared.folder, split, output=folder.test, overwrite=True, machine=experiment.machine
        )
        evaluate(whole)  # replacing what an interrupted one left, or what was found on other files
