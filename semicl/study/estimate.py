"""How long training will take and how much memory, told before it begins, by a trial of a few steps of each stage."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from semicl.console import Table, on_main_process, say, show
from semicl.files import require_checkpoint
from semicl.options import ExperimentOptions, SegmentationOptions, StageOptions
from semicl.training.inputs import SectionOptions
from semicl.training.setup import StagePlan, plan_stage, set_up

GIBIBYTE = 2**30

FEW = 50
"""Steps of which an estimate would take about as long as themselves."""


@dataclass(frozen=True)
class Planned:
    """A stage that is to be trained.

    Args:
        plan: the stage.
        options: its own.
        epochs: that are left.
    """

    plan: StagePlan
    options: SectionOptions
    epochs: int


def tell_of_stage(name: str, options: SectionOptions, experiment: ExperimentOptions, stage: StageOptions) -> None:
    """Say how long a single stage will take on this machine and how much memory.

    Args:
        name: of the stage.
        options: its own.
        experiment: what all stages share.
        stage: where it reads and writes.

    Raises:
        SemiclError: the stage cannot be trained.
    """
    plan = plan_stage(name, options, experiment, stage)
    if stage.start is not None:
        require_checkpoint(stage.start)
    if stage.overwrite or not plan.folder.finished:
        done = plan.folder.epochs if stage.resume else 0
        tell_estimate([Planned(plan, options, options.schedule.epochs - done)], experiment)


def tell_estimate(stages: Sequence[Planned], experiment: ExperimentOptions, tests: int = 0) -> None:
    """Say how long stages will take on this machine and how much memory, if one device trains them.

    Stages of one name are tried once: splits differ little. Where there are few steps, nothing is tried or said.

    Args:
        stages: to be trained.
        experiment: what they share.
        tests: volumes to be predicted afterwards.

    Raises:
        SemiclError: a stage cannot be trained.
    """
    if experiment.machine.devices > 1 or not on_main_process():
        return

    from semicl.training.train import material
    from semicl.training.trial import STEPS, epoch_steps, trial

    by_name = {each.plan.name: each for each in reversed(stages)}
    epochs = {name: sum(each.epochs for each in stages if each.plan.name == name) for name in by_name}
    made = {
        name: material(set_up(each.plan, experiment, None), each.options, experiment.seed)
        for name, each in by_name.items()
    }
    steps = {name: epochs[name] * epoch_steps(each) for name, each in made.items()}
    if sum(steps.values()) < FEW:
        return
    table = Table("stage", title=f"Estimate, by {STEPS} steps each:", title_justify="left")
    for heading in ("steps", "time", "memory"):
        table.add_column(heading, justify="right")
    seconds, memory, volume = 0.0, 0, 0.0
    for name in sorted(made, key=list(dict.fromkeys(each.plan.name for each in stages)).index):
        found = trial(made[name], experiment.machine)
        of_stage = steps[name] * found.step + _validations(by_name[name], epochs[name]) * found.validation
        count = sum(each.plan.name == name for each in stages)
        told = name if count == 1 else f"{name} ({count} times)"
        table.add_row(told, str(steps[name]), duration(of_stage), f"{found.memory / GIBIBYTE:.1f} GiB")
        seconds, memory, volume = seconds + of_stage, max(memory, found.memory), max(volume, found.validation)
    there = _memory(experiment.machine.accelerator)
    table.add_section()
    whole = duration(seconds + tests * volume)
    table.add_row("all", str(sum(steps.values())), whole, f"{memory / GIBIBYTE:.1f} of {there / GIBIBYTE:.0f} GiB")
    show(table)
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > cores + 1:
        say(
            f"WARNING: other work keeps this machine busy (load {busy:.0f} on {cores} cores), so the time may be far "
            "too long; OMP_NUM_THREADS=1 can make training faster then."
        )
    if memory > there:
        say("WARNING: this is more memory than there is; give a smaller --batch_size or patch, or fewer widths.")


def _validations(planned: Planned, epochs: int) -> int:
    """How many volumes a stage predicts in so many epochs, to pick its weights."""
    if not isinstance(planned.options, SegmentationOptions):
        return 0
    return epochs // planned.options.validate_every * len(planned.plan.inputs.validation)


def _memory(accelerator: str) -> int:
    """Bytes of the GPU, else of this machine."""
    import torch

    if torch.cuda.is_available() and accelerator != "cpu":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
