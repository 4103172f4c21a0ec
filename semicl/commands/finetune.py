"""`semicl finetune`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.options import ExperimentOptions, SegmentationOptions, StageOptions
from semicl.training.folder import StageFolder


@options
class Finetune(ExperimentOptions, SegmentationOptions, StageOptions, Command):
    """Stage 3: cross entropy + Dice on the labelled fraction."""

    section = "finetune"

    def run(self) -> None:
        from semicl.study.estimate import tell_of_stage
        from semicl.training.train import finetune

        parts = (part(SegmentationOptions, self), part(ExperimentOptions, self), part(StageOptions, self))
        tell_of_stage("finetune", *parts)
        finetune(*parts)

    def following(self) -> Sequence[object]:
        # The checkpoint tells its split, and a config's data would be judged instead of that split.
        tuned = StageFolder(self.output)
        return ["evaluate", "--prepared", self.prepared, "--checkpoint", tuned.model, "--output", tuned.test]
