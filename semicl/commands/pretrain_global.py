"""`semicl pretrain-global`: NT-Xent on the encoder, on the images of all training volumes."""

from semicl.options import ExperimentOptions, GlobalContrastOptions, StageOptions
from semicl.training.setup import finish, finished_before, open_folder, plan_stage, set_up, tell_of_test_images


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
