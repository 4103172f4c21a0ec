"""`semicl pretrain-local`: local contrast on encoder and decoder, from a global checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semicl.errors import SemiclError
from semicl.options import ExperimentOptions, LocalContrastOptions, StageOptions
from semicl.stage_setup import (
    StageSetup,
    finish,
    finished_before,
    images_for_pretraining,
    open_folder,
    set_up,
)

if TYPE_CHECKING:
    from semicl.pieces import LabelledPieces


def pretrain_local(contrast: LocalContrastOptions, experiment: ExperimentOptions, stage: StageOptions) -> None:
    """Train stage 2 and write its folder.

    The supervised form sees the labelled fraction alone. The self-supervised form sees the images of all training
    volumes and opens no label file.

    Raises:
        SemiclError: something it needs cannot be used, the fraction has no foreground, or the folder is taken.
    """
    setup = set_up("pretrain-local", experiment, stage, experiment.label_fraction if contrast.loss.supervised else None)

    from semicl.pieces import ImagePieces
    from semicl.stages import SelfSupervisedLocalContrast, SupervisedLocalContrast
    from semicl.training import train

    if contrast.loss.supervised:
        cases = setup.labelled
        pieces: LabelledPieces | ImagePieces = _anchored(setup)
        kind: type[SupervisedLocalContrast | SelfSupervisedLocalContrast] = SupervisedLocalContrast
    else:
        cases = images_for_pretraining(setup.split, experiment.transductive)
        pieces, kind = ImagePieces(setup.prepared, cases), SelfSupervisedLocalContrast
    open_folder(setup, stage, contrast, experiment)
    if finished_before(setup):
        return
    module = kind(setup.network, contrast, setup.card, experiment.seed)
    cost = train(module, pieces, setup.folder, experiment.machine, "2 local contrast")
    finish(setup, cases, len(pieces), cost)


def _anchored(setup: StageSetup) -> LabelledPieces:
    """The slices or patches of the labelled fraction that hold an anchor."""
    from semicl.pieces import LabelledPieces, has_foreground

    pieces = LabelledPieces(setup.prepared, setup.labelled)
    pieces.keep(has_foreground)
    if len(pieces) == 0:
        names = ", ".join(case.name for case in setup.labelled)
        raise SemiclError(f"labelled cases {names}: hold no foreground; give another --split or --label_fraction")
    return pieces
