"""What every training command does before and after its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_only

from semicl.cases import Case
from semicl.console import conclude, on_main_process, say
from semicl.errors import SemiclError
from semicl.grid import require_fit
from semicl.hashing import short_hash
from semicl.inputs import require_checkpoint
from semicl.options import ExperimentOptions, StageOptions
from semicl.outputs import output_folder
from semicl.prepared import Prepared, read_prepared
from semicl.seen import seen_after, seen_in
from semicl.splits import Split, split_json
from semicl.stage_folder import DATA, StageFolder

if TYPE_CHECKING:
    from semicl.model_card import ModelCard
    from semicl.networks import UNet

SPLIT = "split of hash"
"""Stands beside the options of `semicl prepare`; the hash is of who is in which part, in which order."""


@dataclass(frozen=True)
class StageSetup:
    """A stage that is ready to train: nothing is written yet.

    `labelled` are the cases whose labels it may be trained on.
    """

    prepared: Prepared
    split: Split
    labelled: tuple[Case, ...]
    card: ModelCard
    network: UNet
    folder: StageFolder


def set_up(
    name: str, experiment: ExperimentOptions, stage: StageOptions, label_fraction: float | None = None
) -> StageSetup:
    """Read the prepared folder and make the network, with the weights of `start` or of the seed.

    What can be told without torch, which takes seconds to import, is told before.

    Args:
        name: of the stage.
        experiment: what all stages share.
        stage: where this one reads and writes.
        label_fraction: whose labels it is trained on; None for a stage without labels.

    Raises:
        SemiclError: the accelerator is not there, the prepared folder, the split, the fraction or the checkpoint cannot
            be used, the checkpoint was trained on another split or fraction, the patch does not fit the network, or the
            output folder is taken or one of the inputs.
    """
    prepared = read_prepared(stage.prepared)
    split = prepared.split(stage.split)
    labelled = () if label_fraction is None else split.labelled(label_fraction)
    transductive = experiment.transductive and label_fraction is None
    now = seen_in(prepared.name, stage.split, split, label_fraction, transductive)
    require_fit(prepared.grid, len(experiment.network.levels))
    folder = StageFolder(_output(stage, prepared))
    if on_main_process() and not (stage.resume or stage.overwrite):
        folder.require_free()

    import torch

    from semicl.accelerators import require_accelerator
    from semicl.checkpoints import load_weights
    from semicl.model_card import ModelCard

    require_accelerator(experiment.machine)
    card = ModelCard(name, experiment.network.levels, prepared.classes, prepared.grid, (now,))
    network = card.new_network(experiment.seed)
    if stage.start is not None:
        report = load_weights(network, stage.start)
        if report.classes not in ((), tuple(prepared.classes)):
            raise SemiclError(
                f"{stage.start}: its classifier knows {', '.join(report.classes)}, {stage.prepared} holds "
                f"{', '.join(prepared.classes)}; give a --start of pre-training, or data with the same classes in the "
                "same order"
            )
        card = replace(card, seen=seen_after(report.seen, now, stage.start))
        say(report)
    torch.manual_seed(experiment.seed)  # of the projection heads
    return StageSetup(prepared, split, labelled, card, network, folder)


def _output(stage: StageOptions, prepared: Prepared) -> Path:
    """The folder of the stage, which may not be one that it reads: what is in it would be replaced."""
    inputs = {stage.prepared, *(file.parent for file in prepared.files())}
    if stage.start is not None:
        require_checkpoint(stage.start)
        inputs.add(stage.start.parent)
    return output_folder(stage.output, inputs)


@rank_zero_only
def open_folder(setup: StageSetup, stage: StageOptions, *told: Any) -> None:
    """Make the stage's folder ready.

    Raises:
        SemiclError: it holds a stage that is not to be resumed or overwritten, or that was told something else or
            trained on other data.
    """
    parts = (stage, *told)
    options = {"stage": setup.card.stage} | _flat(parts)
    # A folder may be prepared anew, and a split edited, under the name that it had.
    options[DATA] = setup.prepared.options | {SPLIT: short_hash(split_json(setup.split))}
    setup.folder.open(options, _flat([type(part)() for part in parts]), stage.resume, stage.overwrite)


def _flat(parts: Iterable[Any]) -> dict[str, Any]:
    """The options of several dataclasses beside each other."""
    return {name: value for part in parts for name, value in asdict(part).items()}


def finished_before(setup: StageSetup) -> bool:
    """Whether there is nothing left to do, which is then said."""
    if setup.folder.finished:
        say(f"{setup.folder.path}: finished already, nothing to do.")
    return setup.folder.finished


def images_for_pretraining(split: Split, transductive: bool) -> tuple[Case, ...]:
    """The cases whose images a stage without labels may see: training, and where it is said so, test."""
    if not transductive:
        return split.training
    say(f"TRANSDUCTIVE: pre-training sees the images, not the labels, of {len(split.test)} test volumes.")
    return split.training + split.test


@rank_zero_only
def finish(setup: StageSetup, cases: Sequence[Case], pieces: int, cost: Mapping[str, Any]) -> None:
    """Write the summary of a stage, and show it but for its series, which the logs draw."""
    summary = {
        "stage": setup.card.stage,
        "volumes": len(cases),
        "slices or patches": pieces,
        **cost,
        "weights": str(setup.folder.model),
    }
    setup.folder.finish(summary)
    conclude(setup.card.stage, {name: value for name, value in summary.items() if not isinstance(value, list)})
