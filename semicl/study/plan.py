"""What a study consists of: its cells, and the jobs they share.

A job is one command of `semicl`: a stage of pre-training, fine-tuning, or the evaluation on the test volumes. The
name of a stage's folder ends in a hash of everything that decides its result: the options that can change it, what it
sees of the data, and the job it starts from. So cells that have a stage in common share its folder, and a changed
option or a corrected file leads to another folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semicl.config import structured
from semicl.data.file_states import cases_hash
from semicl.data.grid import require_fit
from semicl.data.prepared import Prepared
from semicl.data.splits import Split
from semicl.errors import SemiclError
from semicl.evaluation.evaluate import CASES, evaluated_on
from semicl.files import laid_over, short_hash
from semicl.options import (
    PRETRAINING,
    EvaluateOptions,
    ExperimentOptions,
    MethodOptions,
    SegmentationOptions,
    StageOptions,
    StudyOptions,
)
from semicl.training.folder import StageFolder
from semicl.training.inputs import data_seen, decisive_options, sees_labels, stage_inputs

FINETUNE = "finetune"
BEST = "best validation Dice"
"""Line of fine-tuning's summary."""


@dataclass(frozen=True)
class Job:
    """One command, and the folder that it fills.

    Args:
        command: of `semicl`.
        folder: its output.
        config: its options, written beside the output as config.json, which the command takes too.
        call: the arguments of the command's function.
        after: the job whose result it needs.
        config_hash: of everything that decides its result.
        cases: of an evaluation, the hash of the cases that it judges on.
    """

    command: str
    folder: Path
    config: Mapping[str, Any]
    call: tuple[Any, ...]
    after: "Job | None"
    config_hash: str
    cases: str | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        if self.command == "evaluate":
            return (evaluated_on(self.folder) or {}).get(CASES) == self.cases
        return StageFolder(self.folder).finished

    @property
    def learning_rate(self) -> float:
        """Of a stage of training."""
        return float(self.config["schedule"]["learning_rate"])

    @property
    def log(self) -> Path:
        """What the command printed."""
        return self.folder / "output.txt"


@dataclass(frozen=True)
class Cell:
    """One method on one label fraction of one split.

    Args:
        method: its name.
        label_fraction: of the training subjects that have labels.
        split: its number.
        pretraining: the jobs before fine-tuning, in order.
        tunings: fine-tuning, by each of the learning rates.
        tests: the evaluation of each of them, only one of which is ever run.
        tests_last: the same of the weights of the last epoch, where fine-tuning keeps them.
    """

    method: str
    label_fraction: float
    split: int
    pretraining: tuple[Job, ...]
    tunings: tuple[Job, ...]
    tests: tuple[Job, ...]
    tests_last: tuple[Job, ...] = ()

    @property
    def training(self) -> tuple[Job, ...]:
        """All jobs but the tests."""
        return (*self.pretraining, *self.tunings)

    @property
    def test(self) -> Job | None:
        """The evaluation of the fine-tuning that was best on the validation volumes, once all of them are finished."""
        if not all(job.finished for job in self.tunings):
            return None
        return max(self.tests, key=lambda test: validation_dice(_after(test)))

    @property
    def test_last(self) -> Job | None:
        """The evaluation of the last epoch of the same fine-tuning, where its weights are kept."""
        test = self.test
        return self.tests_last[self.tests.index(test)] if test is not None and self.tests_last else None

    @property
    def title(self) -> str:
        """What the cell is called in messages."""
        return f"{self.method}, {self.label_fraction:.3g} of the labels, split {self.split}"


def validation_dice(tuning: Job) -> float:
    """The best that a finished fine-tuning reached on the validation volumes."""
    return float(StageFolder(tuning.folder).summary()[BEST])


def _after(test: Job) -> Job:
    assert test.after is not None
    return test.after


def plan(
    prepared: Prepared, experiment: ExperimentOptions, study: StudyOptions, stages: Mapping[str, Any]
) -> list[Cell]:
    """The cells of a study, in the order of its methods.

    Args:
        prepared: the data.
        experiment: what all cells share.
        study: methods, label fractions, splits.
        stages: options of every stage, by section, that the methods start from.

    Raises:
        SemiclError: a method changes an option that does not exist or to a value that it does not take, a split is
            missing, a label fraction yields no case, the patch does not fit the network, or the options ask for what a
            study cannot do.
    """
    if experiment.machine.devices > 1:
        raise SemiclError(
            f"--machine.devices takes 1 in a study, got {experiment.machine.devices}: cells run side by side, in "
            "processes of their own; give --jobs"
        )
    require_fit(prepared.grid, len(experiment.network.levels))
    fractions = study.label_fractions or (experiment.label_fraction,)
    rates = study.learning_rates
    told = stages_of_methods(study, stages)
    places = {split: _Place(prepared, experiment, study.output, split, prepared.split(split)) for split in study.splits}
    return [
        places[split].cell(name, chosen, fraction, rates)
        for name, chosen in told.items()
        for fraction in fractions
        for split in study.splits
    ]


def by_row(cells: Sequence[Cell]) -> dict[tuple[str, float], list[Cell]]:
    """The cells of each method and label fraction, a row of a table, in their order."""
    rows: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.method, cell.label_fraction), []).append(cell)
    return rows


def stages_of_methods(study: StudyOptions, stages: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of the stages of each method that a study takes.

    Raises:
        SemiclError: a method changes an option that does not exist, or to a value that it does not take, or one that
            the study decides for all methods.
    """
    chosen = {name: _stages_of(name, method, stages) for name, method in study.taken.items()}
    for name, method in study.taken.items():
        if study.learning_rates is not None and "learning_rate" in (method.finetune.get("schedule") or {}):
            raise SemiclError(
                f"--methods.{name}.finetune.schedule.learning_rate has no effect beside --learning_rates, which every "
                "method tries; leave one of them out"
            )
    return chosen


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each once, in their order."""
    return list({job.folder: job for job in jobs}.values())


@dataclass(frozen=True)
class _Place:
    """Where the cells of one split are made."""

    prepared: Prepared
    experiment: ExperimentOptions
    output: Path
    number: int
    split: Split

    def cell(self, method: str, stages: Mapping[str, Any], fraction: float, rates: tuple[float, ...] | None) -> Cell:
        jobs: list[Job] = []
        for section, options in stages.items():
            if section != FINETUNE:
                jobs.append(self._stage(method, section, options, fraction, jobs[-1] if jobs else None))
        tunings = tuple(
            self._stage(method, FINETUNE, options, fraction, jobs[-1] if jobs else None)
            for options in _by_rates(stages[FINETUNE], rates)
        )
        tests, tests_last = ([self._test(tuned, last) for tuned in tunings] for last in (False, True))
        kept = tests_last if stages[FINETUNE].keep_last else ()
        return Cell(method, fraction, self.number, tuple(jobs), tunings, tuple(tests), tuple(kept))

    def _stage(self, method: str, section: str, options: Any, fraction: float, after: Job | None) -> Job:
        # A stage without labels is told no fraction, so that the cells of all fractions share it.
        labelled = sees_labels(options)
        experiment = replace(self.experiment, label_fraction=fraction)
        shared = asdict(experiment)
        del shared["label_fraction"]
        config = asdict(options) | shared | ({"label_fraction": fraction} if labelled else {})
        command = section.replace("_", "-")
        inputs = stage_inputs(options, experiment, self.split)
        data = data_seen(self.prepared, self.split, inputs, labelled)
        decisive = decisive_options(options, experiment)
        number = short_hash(command, decisive, data, after.config_hash if after else None)
        name = f"{command}-{_plain(method)}-{number}" if section == FINETUNE else f"{command}-{number}"
        folder = self.output / f"split-{self.number}" / (f"labels-{fraction:g}" if labelled else "no-labels") / name
        start = StageFolder(after.folder).model if after else None
        stage = StageOptions(self.prepared.folder, self.number, folder, start, resume=True)
        return Job(command, folder, config, (options, experiment, stage), after, number)

    def _test(self, tuned: Job, last: bool) -> Job:
        folder, machine = StageFolder(tuned.folder), self.experiment.machine
        model, output = (folder.model_last, folder.test_last) if last else (folder.model, folder.test)
        # An interrupted evaluation may have left one of its files.
        whole = EvaluateOptions(
            model, self.prepared.folder, self.number, output=output, overwrite=True, machine=machine
        )
        cases = [case for case in self.split.test if case.label is not None]
        judged_on = cases_hash(cases, self.prepared.source, self.prepared.states)
        config = {"machine": asdict(machine), "overwrite": True}
        return Job("evaluate", output, config, (whole,), tuned, tuned.config_hash, judged_on)


def _stages_of(name: str, method: MethodOptions, stages: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method's stages, in their order."""
    chosen = [section for section in PRETRAINING if section in method.stages]
    return {
        section: _changed(name, section, stages[section], getattr(method, section)) for section in (*chosen, FINETUNE)
    }


def _changed(method: str, section: str, options: Any, changes: Mapping[str, Any]) -> Any:
    """The options of a stage with a method's changes, checked as if they had been given so."""
    return structured(type(options), laid_over(asdict(options), changes), f"--methods.{method}.{section}.")


def _by_rates(options: SegmentationOptions, rates: tuple[float, ...] | None) -> list[SegmentationOptions]:
    """Fine-tuning by each learning rate, or by its own."""
    return [
        replace(options, schedule=replace(options.schedule, learning_rate=rate))
        for rate in rates or (options.schedule.learning_rate,)
    ]


def _plain(name: str) -> str:
    """A method's name as a part of a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
