"""The three stages as functions: pre-training by global and by local contrast, and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
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
from semicl.training.inputs import SectionOptions
from semicl.training.setup import (
    StagePlan,
    StageSetup,
    finish,
    finished_before,
    open_folder,
    plan_stage,
    set_up,
    tell_of_test_images,
)

if TYPE_CHECKING:
    from semicl.data.cases import Case
    from semicl.data.datasets import ImagePieces, LabelledPieces, Volumes
    from semicl.training.stages import Stage


@dataclass(frozen=True)
class Material:
    """What a stage trains, and on what.

    Args:
        module: the stage.
        pieces: slices or patches.
        cases: that they are of.
        unlabelled: slices or patches that go beside them.
        validation: volumes that pick the weights; None for a contrastive stage.
    """

    module: Stage
    pieces: ImagePieces | LabelledPieces
    cases: tuple[Case, ...]
    unlabelled: ImagePieces | None = None
    validation: Volumes | None = None


def material(setup: StageSetup, options: SectionOptions, seed: int) -> Material:
    """What a stage that is set up trains, and on what.

    Args:
        setup: the stage.
        options: its own.
        seed: of its batches and views.

    Raises:
        SemiclError: the labelled fraction or the validation volumes have no foreground, or the cache is damaged.
    """
    from semicl.data.datasets import ImagePieces, LabelledPieces, Volumes, is_known
    from semicl.training.fixmatch import WeakToStrong
    from semicl.training.stages import (
        GlobalContrast,
        Segmentation,
        SelfSupervisedLocalContrast,
        SupervisedLocalContrast,
    )
    from semicl.training.tcsm import SelfEnsembling

    inputs, network, card = setup.inputs, setup.network, setup.card
    if isinstance(options, SegmentationOptions):
        labelled = LabelledPieces(setup.prepared, inputs.labelled)
        if card.ignores:
            labelled.keep(is_known)
        validation = Volumes(setup.prepared, inputs.validation)
        judged = judged_classes(setup)
        unlabelled = ImagePieces(setup.prepared, inputs.images) if inputs.images else None
        kind: type[Segmentation] = Segmentation
        if options.tcsm.weight > 0:
            kind = SelfEnsembling
        elif options.fixmatch.weight > 0:
            kind = WeakToStrong
        module = kind(network, options, card, seed)
        module.judged = judged
        return Material(module, labelled, inputs.labelled, unlabelled, validation)
    if isinstance(options, LocalContrastOptions) and options.loss.supervised:
        return Material(SupervisedLocalContrast(network, options, card, seed), anchored(setup), inputs.labelled)
    contrast: Stage
    if isinstance(options, LocalContrastOptions):
        contrast = SelfSupervisedLocalContrast(network, options, card, seed)
    else:
        contrast = GlobalContrast(network, options, card, seed)
    return Material(contrast, ImagePieces(setup.prepared, inputs.images), inputs.images)


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
    _pretrain("pretrain-global", "1 global contrast", contrast, experiment, stage, retrain)


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
    _pretrain("pretrain-local", "2 local contrast", contrast, experiment, stage, retrain)


def _pretrain(
    name: str,
    title: str,
    contrast: GlobalContrastOptions | LocalContrastOptions,
    experiment: ExperimentOptions,
    stage: StageOptions,
    retrain: bool,
) -> None:
    setup = set_up(plan_stage(name, contrast, experiment, stage), experiment, stage.start)

    from semicl.training.trainer import train

    tell_of_test_images(setup)
    made = material(setup, contrast, experiment.seed)
    open_folder(setup, stage, retrain)
    if finished_before(setup):
        return
    cost = train(made.module, made.pieces, setup.folder, experiment.machine, title, experiment.logger)
    finish(setup, made.cases, len(made.pieces), cost)


def anchored(plan: StagePlan) -> LabelledPieces:
    """The slices or patches of the labelled fraction that hold an anchor.

    Raises:
        SemiclError: none does.
    """
    from semicl.data.datasets import LabelledPieces, has_foreground

    pieces = LabelledPieces(plan.prepared, plan.inputs.labelled, around_foreground=1.0)
    pieces.keep(has_foreground)
    if len(pieces) == 0:
        names = ", ".join(case.name for case in plan.inputs.labelled)
        raise SemiclError(f"labelled cases {names}: hold no foreground; give another --split or --label_fraction")
    return pieces


def finetune(
    segmentation: SegmentationOptions, experiment: ExperimentOptions, stage: StageOptions, retrain: bool = False
) -> None:
    """Train stage 3 and write its folder; the test volumes are not opened.

    TCSM sees the images, not the labels, of all training volumes too, FixMatch those of the unlabelled ones.

    Args:
        segmentation: the stage.
        experiment: what all stages share.
        stage: where it reads and writes.
        retrain: whether a stage to resume starts anew where its files have changed.

    Raises:
        SemiclError: something it needs cannot be used, or the folder is taken.
    """
    setup = set_up(plan_stage("finetune", segmentation, experiment, stage), experiment, stage.start)

    from semicl.data.datasets import LabelledPieces, Volumes
    from semicl.training.stages import Segmentation
    from semicl.training.trainer import train_with_validation

    made = material(setup, segmentation, experiment.seed)
    module, inputs = made.module, setup.inputs
    assert isinstance(module, Segmentation)
    assert isinstance(made.pieces, LabelledPieces)
    assert made.validation is not None
    open_folder(setup, stage, retrain)
    if finished_before(setup):
        return
    held = Volumes(setup.prepared, inputs.labelled).classes()
    names = {number: name for number, name in enumerate(setup.card.classes) if number > 0}
    say(f"{len(inputs.labelled)} labelled cases: {', '.join(f'{names[k]} in {held[k]}' for k in names)}.")
    lacking, unlearned = ([names[k] for k in names if k not in found] for found in (module.judged, held))
    if unlearned:
        say(
            f"WARNING: no labelled training case holds {', '.join(unlearned)}, which so cannot be learned; give "
            "another --split or a larger --label_fraction."
        )
    if lacking:
        say(without(lacking, "the validation Dice, which picks the weights"))
    title = f"3 fine-tune {'random start' if stage.start is None else 'pre-trained'}"
    cost = train_with_validation(
        module,
        made.pieces,
        made.validation,
        segmentation.validate_every,
        setup.folder,
        experiment.machine,
        title,
        made.unlabelled,
        segmentation.keep_last,
        experiment.logger,
    )
    cost["validation"] = [list(moment) for moment in module.history]
    finish(setup, inputs.labelled, len(made.pieces), cost)


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
