"""The three stages as functions: pre-training by global and by local contrast, and fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semicl.console import say
from semicl.data.classes import without
from semicl.errors import SemiclError
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    SegmentationOptions,
    StageOptions,
)
from semicl.training.setup import (
    StagePlan,
    finish,
    finished_before,
    open_folder,
    plan_stage,
    set_up,
    tell_of_test_images,
)


def pretrain_global(
    contrast: GlobalContrastOptions, experiment: ExperimentOptions, stage: StageOptions, retrain: bool = False
) -> None:
    """Train stage 1 and write its folder; no label file is opened.

    Args:
        contrast: the stage.
        experiment: what all stages share.
        stage: where it reads and writes.
        retrain: whether a stage to resume starts anew where its files have changed.

    Raises:
        SemiclError: something it needs cannot be used, or the folder is taken.
    """
    setup = set_up(plan_stage("pretrain-global", contrast, experiment, stage), experiment, stage.start)

    from semicl.data.datasets import ImagePieces
    from semicl.training.stages import GlobalContrast
    from semicl.training.trainer import train

    tell_of_test_images(setup)
    pieces = ImagePieces(setup.prepared, setup.inputs.images)
    open_folder(setup, stage, retrain)
    if finished_before(setup):
        return
    module = GlobalContrast(setup.network, contrast, setup.card, experiment.seed)
    cost = train(module, pieces, setup.folder, experiment.machine, "1 global contrast")
    finish(setup, setup.inputs.images, len(pieces), cost)


if TYPE_CHECKING:
    from semicl.data.datasets import LabelledPieces


def pretrain_local(
    contrast: LocalContrastOptions, experiment: ExperimentOptions, stage: StageOptions, retrain: bool = False
) -> None:
    """Train stage 2 and write its folder.

    The supervised form sees the labelled fraction alone. The self-supervised form sees the images of all training
    volumes and opens no label file.

    Args:
        contrast: the stage.
        experiment: what all stages share.
        stage: where it reads and writes.
        retrain: whether a stage to resume starts anew where its files have changed.

    Raises:
        SemiclError: something it needs cannot be used, the fraction has no foreground, or the folder is taken.
    """
    setup = set_up(plan_stage("pretrain-local", contrast, experiment, stage), experiment, stage.start)

    from semicl.data.datasets import ImagePieces
    from semicl.training.stages import SelfSupervisedLocalContrast, SupervisedLocalContrast
    from semicl.training.trainer import train

    if contrast.loss.supervised:
        cases = setup.inputs.labelled
        pieces: LabelledPieces | ImagePieces = anchored(setup)
        kind: type[SupervisedLocalContrast | SelfSupervisedLocalContrast] = SupervisedLocalContrast
    else:
        tell_of_test_images(setup)
        cases = setup.inputs.images
        pieces, kind = ImagePieces(setup.prepared, cases), SelfSupervisedLocalContrast
    open_folder(setup, stage, retrain)
    if finished_before(setup):
        return
    module = kind(setup.network, contrast, setup.card, experiment.seed)
    cost = train(module, pieces, setup.folder, experiment.machine, "2 local contrast")
    finish(setup, cases, len(pieces), cost)


def anchored(plan: StagePlan) -> LabelledPieces:
    """The slices or patches of the labelled fraction that hold an anchor.

    Raises:
        SemiclError: none does.
    """
    from semicl.data.datasets import LabelledPieces, has_foreground

    pieces = LabelledPieces(plan.prepared, plan.inputs.labelled)
    pieces.keep(has_foreground)
    if len(pieces) == 0:
        names = ", ".join(case.name for case in plan.inputs.labelled)
        raise SemiclError(f"labelled cases {names}: hold no foreground; give another --split or --label_fraction")
    return pieces


def finetune(
    segmentation: SegmentationOptions, experiment: ExperimentOptions, stage: StageOptions, retrain: bool = False
) -> None:
    """Train stage 3 and write its folder; the test volumes are not opened.

    TCSM sees the images, not the labels, of all training volumes too.

    Args:
        segmentation: the stage.
        experiment: what all stages share.
        stage: where it reads and writes.
        retrain: whether a stage to resume starts anew where its files have changed.

    Raises:
        SemiclError: something it needs cannot be used, or the folder is taken.
    """
    setup = set_up(plan_stage("finetune", segmentation, experiment, stage), experiment, stage.start)

    from semicl.data.datasets import ImagePieces, LabelledPieces, Volumes
    from semicl.training.stages import Segmentation
    from semicl.training.tcsm import SelfEnsembling
    from semicl.training.trainer import train_with_validation

    inputs = setup.inputs
    pieces = LabelledPieces(setup.prepared, inputs.labelled)
    validation = Volumes(setup.prepared, inputs.validation)
    judged = judged_classes(setup)
    kind: type[Segmentation] = Segmentation
    unlabelled: ImagePieces | None = None
    if segmentation.tcsm.weight > 0:
        kind, unlabelled = SelfEnsembling, ImagePieces(setup.prepared, inputs.images)
    open_folder(setup, stage, retrain)
    if finished_before(setup):
        return
    module = kind(setup.network, segmentation, setup.card, experiment.seed)
    module.judged = judged
    held = Volumes(setup.prepared, inputs.labelled).classes()
    names = {number: name for number, name in enumerate(setup.card.classes) if number > 0}
    say(f"{len(inputs.labelled)} labelled cases: {', '.join(f'{names[k]} in {held[k]}' for k in names)}.")
    lacking, unlearned = ([names[k] for k in names if k not in found] for found in (judged, held))
    if unlearned:
        say(
            f"WARNING: no labelled training case holds {', '.join(unlearned)}, which so cannot be learned; give "
            "another --split or a larger --label_fraction."
        )
    if lacking:
        say(without(lacking, "the validation Dice, which picks the weights"))
    title = f"3 fine-tune {'random start' if stage.start is None else 'pre-trained'}"
    cost = train_with_validation(
        module, pieces, validation, segmentation.validate_every, setup.folder, experiment.machine, title, unlabelled
    )
    cost["validation"] = [list(moment) for moment in module.history]
    finish(setup, inputs.labelled, len(pieces), cost)


def judged_classes(plan: StagePlan) -> list[int]:
    """Numbers of the classes that the validation volumes hold, by which weights are picked.

    Raises:
        SemiclError: there is none.
    """
    from semicl.data.datasets import Volumes

    judged = list(Volumes(plan.prepared, plan.inputs.validation).classes())
    if not judged:
        names = ", ".join(case.name for case in plan.inputs.validation)
        raise SemiclError(f"validation cases {names}: hold no foreground; give another --split or --validation_volumes")
    return judged
