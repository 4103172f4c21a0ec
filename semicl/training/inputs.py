"""What the result of a stage depends on: the content of the files that it sees, and the options that can change it.

A stage that sees no label does not depend on one, nor on how many there are. Where the files lie, how many splits were
made, and how many processes read them, changes no result.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from semicl.data.cases import Case
from semicl.data.prepared import Prepared
from semicl.data.splits import Split, split_json
from semicl.errors import SemiclError
from semicl.files import short_hash
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    SegmentationOptions,
)

SectionOptions = GlobalContrastOptions | LocalContrastOptions | SegmentationOptions
"""Options of one stage of training."""

FILES = "files"
"""Of a stage's data, what follows from the files alone and not from options."""


@dataclass(frozen=True)
class StageInputs:
    """The cases that a stage sees.

    Args:
        images: whose images it is trained on without their labels.
        labelled: whose images and labels it is trained on.
        validation: whose images and labels pick its weights.
    """

    images: tuple[Case, ...] = ()
    labelled: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()

    @property
    def trained_on(self) -> tuple[Case, ...]:
        """All whose images move its weights, each once."""
        return tuple(dict.fromkeys((*self.images, *self.labelled)))


def sees_labels(options: SectionOptions) -> bool:
    """Whether a stage is trained on labels, so that the label fraction matters to it."""
    if isinstance(options, LocalContrastOptions):
        return options.loss.supervised
    return isinstance(options, SegmentationOptions)


def stage_inputs(options: SectionOptions, experiment: ExperimentOptions, split: Split) -> StageInputs:
    """The cases of a split that a stage with these options sees.

    Raises:
        SemiclError: the label fraction yields no case, or leaves none to a stage that needs unlabelled ones, or no
            validation case has a label, or the network lacks the level that the local term takes its points of.
    """
    if not sees_labels(options):
        return StageInputs(images=split.training + (split.test if experiment.transductive else ()))
    if isinstance(options, SegmentationOptions):
        _require_level(options, experiment)
    labelled = split.labelled(experiment.label_fraction)
    if not isinstance(options, SegmentationOptions):
        return StageInputs(labelled=labelled)
    validation = tuple(case for case in split.validation if case.label is not None)[: options.validation_volumes]
    if not validation:
        raise SemiclError("no validation case of the split has a label, by which weights are picked; give another one")
    return StageInputs(_unlabelled(options, experiment, split, labelled), labelled, validation)


def _require_level(options: SegmentationOptions, experiment: ExperimentOptions) -> None:
    levels = len(experiment.network.levels)
    if options.local_weight > 0 and options.local_level >= levels:
        raise SemiclError(
            f"--local_scale {options.local_scale} takes points of the network's level {options.local_level + 1}, of "
            f"which there are {levels}; give a smaller one, or more --network.widths"
        )


def _unlabelled(
    options: SegmentationOptions, experiment: ExperimentOptions, split: Split, labelled: tuple[Case, ...]
) -> tuple[Case, ...]:
    """The training cases whose images alone fine-tuning sees: with TCSM all of them, with FixMatch the unlabelled."""
    if options.tcsm.weight > 0:
        return split.training
    if options.fixmatch.weight == 0:
        return ()
    others = tuple(case for case in split.training if case not in labelled)
    if not others:
        raise SemiclError(
            f"--label_fraction {experiment.label_fraction:g} leaves no training volume without a label, which "
            "--fixmatch.weight needs; give a smaller --label_fraction, or --fixmatch.weight 0"
        )
    return others


def decisive_options(options: SectionOptions, experiment: ExperimentOptions) -> dict[str, Any]:
    """The options of a stage and of its experiment that can change its result."""
    shared = asdict(experiment)
    del shared["logger"], shared["transductive" if sees_labels(options) else "label_fraction"]
    shared["machine"] = {name: shared["machine"][name] for name in ("devices", "precision")}
    return asdict(options) | shared


def data_seen(prepared: Prepared, split: Split, inputs: StageInputs, labels: bool) -> dict[str, Any]:
    """What a stage sees of the data, made ready as it was, as JSON.

    Args:
        prepared: the data.
        split: that the cases are from; who is held out matters to what may be judged.
        inputs: the cases.
        labels: whether the stage sees classes.
    """
    files: dict[str, Any] = {
        "images of hash": short_hash(_contents(prepared, (*inputs.images, *inputs.labelled), "image"))
    }
    if labels:
        files["labels of hash"] = short_hash(_contents(prepared, inputs.labelled, "label"))
        files["classes"] = prepared.classes
        if prepared.merged:
            files["merged"] = {str(value): counts_as for value, counts_as in prepared.merged.items()}
    grid = asdict(prepared.grid) | ({"channels": prepared.channels} if prepared.channels > 1 else {})
    files["voxel size"] = grid.pop("voxel_size")  # a median over the files
    grid["sliding_window"] = prepared.is_cut  # which changes nothing where no image is larger than a patch
    if prepared.is_cut:
        grid["patches"] = "random"
    if inputs.validation:
        kinds = ("image", "label")
        files["validation of hash"] = short_hash([_contents(prepared, inputs.validation, kind) for kind in kinds])
    return {**grid, **split_seen(split), FILES: files}


def split_seen(split: Split) -> dict[str, str]:
    """What a stage's data tell of the split: who is in which part."""
    return {"split of hash": short_hash(split_json(split))}


def _contents(prepared: Prepared, cases: Iterable[Case], kind: str) -> list[tuple[str, ...]]:
    """Name and content of the image, or of the label, of each case, in their order."""
    files = ((case.name, (case.image, *case.more) if kind == "image" else (case.label,)) for case in cases)
    return [(name, *(prepared.content(file) for file in each if file is not None)) for name, each in files]
