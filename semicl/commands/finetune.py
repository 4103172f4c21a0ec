"""`semicl finetune`: cross entropy + Dice on the labelled fraction; validation picks the weights."""

from semicl.classes import without
from semicl.console import say
from semicl.errors import SemiclError
from semicl.options import ExperimentOptions, SegmentationOptions, StageOptions
from semicl.stage_setup import finish, finished_before, open_folder, set_up


def finetune(segmentation: SegmentationOptions, experiment: ExperimentOptions, stage: StageOptions) -> None:
    """Train stage 3 and write its folder; the test volumes are not opened.

    TCSM sees the images, not the labels, of all training volumes too.

    Raises:
        SemiclError: something it needs cannot be used, or the folder is taken.
    """
    setup = set_up("finetune", experiment, stage, experiment.label_fraction)

    from semicl.pieces import ImagePieces, LabelledPieces, Volumes
    from semicl.stages import Segmentation
    from semicl.tcsm import SelfEnsembling
    from semicl.training import train_with_validation

    pieces = LabelledPieces(setup.prepared, setup.labelled)
    labelled = [case for case in setup.split.validation if case.label is not None]
    validation = Volumes(setup.prepared, labelled[: segmentation.validation_volumes])
    judged = validation.classes()
    if not judged:
        names = ", ".join(case.name for case in labelled[: segmentation.validation_volumes])
        raise SemiclError(f"validation cases {names}: hold no foreground; give another --split or --validation_volumes")
    kind: type[Segmentation] = Segmentation
    unlabelled: ImagePieces | None = None
    if segmentation.tcsm.weight > 0:
        kind, unlabelled = SelfEnsembling, ImagePieces(setup.prepared, setup.split.training)
    open_folder(setup, stage, segmentation, experiment)
    if finished_before(setup):
        return
    module = kind(setup.network, segmentation, setup.card, experiment.seed)
    module.judged = judged
    lacking = [name for number, name in enumerate(setup.card.classes) if number not in (0, *judged)]
    if lacking:
        say(without(lacking, "the validation Dice, which picks the weights"))
    title = f"3 fine-tune {'random start' if stage.start is None else 'pre-trained'}"
    cost = train_with_validation(
        module, pieces, validation, segmentation.validate_every, setup.folder, experiment.machine, title, unlabelled
    )
    cost["validation"] = [list(moment) for moment in module.history]
    finish(setup, setup.labelled, len(pieces), cost)
