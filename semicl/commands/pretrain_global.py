"""`semicl pretrain-global`: NT-Xent on the encoder, on the images of all training volumes."""

from semicl.options import ExperimentOptions, GlobalContrastOptions, StageOptions
from semicl.stage_setup import finish, finished_before, images_for_pretraining, open_folder, set_up


def pretrain_global(contrast: GlobalContrastOptions, experiment: ExperimentOptions, stage: StageOptions) -> None:
    """Train stage 1 and write its folder; no label file is opened.

    Raises:
        SemiclError: something it needs cannot be used, or the folder is taken.
    """
    setup = set_up("pretrain-global", experiment, stage)

    from semicl.pieces import ImagePieces
    from semicl.stages import GlobalContrast
    from semicl.training import train

    cases = images_for_pretraining(setup.split, experiment.transductive)
    pieces = ImagePieces(setup.prepared, cases)
    open_folder(setup, stage, contrast, experiment)
    if finished_before(setup):
        return
    module = GlobalContrast(setup.network, contrast, setup.card, experiment.seed)
    cost = train(module, pieces, setup.folder, experiment.machine, "1 global contrast")
    finish(setup, cases, len(pieces), cost)
