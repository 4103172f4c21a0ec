"""`semicl pretrain-local`: local contrast on encoder and decoder, from a global checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semicl.errors import SemiclError
from semicl.options import ExperimentOptions, LocalContrastOptions, StageOptions
from semicl.training.setup import (
    StagePlan,
    finish,
    finished_before,
    open_folder,
    plan_stage,
    set_up,
    tell_of_test_images,
)

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
