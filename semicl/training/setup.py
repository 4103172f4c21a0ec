"""What every training command does before and after its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_only

from semicl.console import conclude, on_main_process, say
from semicl.data.cases import Case
from semicl.data.classes import folded
from semicl.data.grid import require_fit
from semicl.data.prepared import Prepared, read_prepared
from semicl.data.splits import Split
from semicl.errors import SemiclError
from semicl.files import laid_over, output_folder, require_checkpoint
from semicl.models.lineage import Seen, seen_after, seen_in
from semicl.options import ExperimentOptions, StageOptions
from semicl.training.folder import DATA, StageFolder
from semicl.training.inputs import (
    FILES,
    SectionOptions,
    StageInputs,
    data_seen,
    decisive_options,
    sees_labels,
    stage_inputs,
)

if TYPE_CHECKING:
    from semicl.models.checkpoint import ModelCard
    from semicl.models.unet import UNet


@dataclass(frozen=True)
class StagePlan:
    """A stage that can be trained, as far as can be told without torch, which takes seconds to import.

    Args:
        name: of the stage.
        prepared: the data.
        split: of the data.
        inputs: the cases that it sees.
        seen: the same, as its checkpoint will tell.
        folder: of the stage.
        told: what its result depends on, but for the weights that it starts with.
        defaults: of the options.
    """

    name: str
    prepared: Prepared
    split: Split
    inputs: StageInputs
    seen: Seen
    folder: StageFolder
    told: dict[str, Any]
    defaults: dict[str, Any]


@dataclass(frozen=True)
class StageSetup(StagePlan):
    """A stage that is ready to train, with its network and its card: nothing is written yet."""

    card: ModelCard
    network: UNet


def plan_stage(name: str, options: SectionOptions, experiment: ExperimentOptions, stage: StageOptions) -> StagePlan:
    """Read the prepared folder and check what can be checked without torch and the weights of `start`.

    Args:
        name: of the stage.
        options: its own.
        experiment: what all stages share.
        stage: where this one reads and writes.

    Raises:
        SemiclError: the prepared folder, the split or the fraction cannot be used, the patch does not fit the network,
            or the output folder is taken or one of the inputs.
    """
    require_loggers(experiment.logger)
    prepared = read_prepared(stage.prepared)
    split = prepared.split(stage.split)
    inputs = stage_inputs(options, experiment, split)
    labels = sees_labels(options)
    now = seen_in(
        prepared.name,
        stage.split,
        split,
        experiment.label_fraction if labels else None,
        experiment.transductive and not labels,
        inputs.trained_on,
    )
    require_fit(prepared.grid, len(experiment.network.levels))
    folder = StageFolder(_output(stage, prepared))
    if on_main_process() and not (stage.resume or stage.overwrite):
        folder.require_free()
    told = {"stage": name, "split": stage.split} | decisive_options(options, experiment)
    told[DATA] = data_seen(prepared, split, inputs, labels)
    defaults = asdict(type(options)()) | asdict(ExperimentOptions())
    return StagePlan(name, prepared, split, inputs, now, folder, told, defaults)


def require_loggers(loggers: Sequence[str]) -> None:
    """Raise where the package of a logger is missing.

    Raises:
        SemiclError: so it is.
    """
    for name in loggers:
        if name != "csv" and find_spec(name) is None:
            raise SemiclError(f"--logger {name}: {name} is not installed; pip install {name}, or give other loggers")


def set_up(plan: StagePlan, experiment: ExperimentOptions, start: Path | None) -> StageSetup:
    """Make the network of a planned stage, with the weights of `start` or of the seed.

    Raises:
        SemiclError: the accelerator is not there, or the checkpoint cannot be used, knows other classes, or was trained
            on another split or fraction.
    """
    if start is not None:
        require_checkpoint(start)

    import torch

    from semicl.models.accelerators import require_accelerator
    from semicl.models.checkpoint import ModelCard, load_weights

    require_accelerator(experiment.machine)
    prepared = plan.prepared
    levels = experiment.network.levels
    data = (prepared.classes, prepared.grid, (plan.seen,), prepared.channels, prepared.merged)
    card = ModelCard(plan.name, levels, *data)
    network = card.new_network(experiment.seed)
    if start is not None:
        report = load_weights(network, start)
        if report.classes and [*map(folded, report.classes[1:])] != [*map(folded, list(prepared.classes)[1:])]:
            raise SemiclError(
                f"{start}: its classifier knows {', '.join(report.classes)}, {prepared.folder} holds "
                f"{', '.join(prepared.classes)}; give a --start of pre-training, or data with the same classes in the "
                "same order"
            )
        card = replace(card, seen=seen_after(report.seen, plan.seen, start))
        say(report)
    torch.manual_seed(experiment.seed)  # of the projection heads
    told = told_with_start(plan.told, start)
    return StageSetup(**(vars(plan) | {"told": told}), card=card, network=network)


def _output(stage: StageOptions, prepared: Prepared) -> Path:
    """The folder of the stage, which may not be one that it reads: what is in it would be replaced."""
    inputs = {stage.prepared, *(file.parent for file in prepared.files())}
    if stage.start is not None:
        inputs.add(stage.start.parent)
    return output_folder(stage.output, inputs)


def told_with_start(told: Mapping[str, Any], start: Path | None) -> dict[str, Any]:
    """What a stage depends on, the weights that it starts with included.

    Raises:
        SemiclError: the checkpoint cannot be read.
    """
    weights = None
    if start is not None:
        from semicl.models.checkpoint import weights_hash

        weights = weights_hash(start)
    return laid_over(told, {DATA: {FILES: {"starting weights of hash": weights}}})


@rank_zero_only
def open_folder(setup: StageSetup, stage: StageOptions, retrain: bool = False) -> None:
    """Make the stage's folder ready.

    Args:
        setup: the stage.
        stage: whether to resume or to overwrite.
        retrain: whether a stage to resume starts anew where its files have changed.

    Raises:
        SemiclError: it holds a stage that is not to be resumed or overwritten, or that was told something else or
            trained on other data.
    """
    reason = setup.folder.open(setup.told, setup.defaults, stage.resume, stage.overwrite, retrain)
    if reason is not None:
        say(f"{setup.folder.path}: starts anew: {reason}.")


def finished_before(setup: StageSetup) -> bool:
    """Whether there is nothing left to do, which is then said; the first process decides for all."""
    import torch

    found: list[Any] = [setup.folder.finished]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(found)
    if found[0]:
        say(f"{setup.folder.path}: finished already, nothing to do.")
    return bool(found[0])


def tell_of_test_images(plan: StagePlan) -> None:
    """Say where a stage without labels sees the images of test volumes."""
    seen = set(plan.inputs.images) & set(plan.split.test)
    if seen:
        say(f"TRANSDUCTIVE: pre-training sees the images, not the labels, of {len(seen)} test cases.")


@rank_zero_only
def finish(setup: StageSetup, cases: Sequence[Case], pieces: int, cost: Mapping[str, Any]) -> None:
    """Write the summary of a stage, and show it but for its series, which the logs draw."""
    summary = {
        "stage": setup.card.stage,
        "volumes": len(cases),
        "slices or patches": pieces,
        **cost,
        "weights": setup.folder.model.name,
    }
    setup.folder.finish(summary)
    shown = {name: value for name, value in summary.items() if not isinstance(value, list)}
    conclude(setup.card.stage, shown | {"weights": setup.folder.model})
