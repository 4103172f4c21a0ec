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
        from semicl.training.train import finetune

        finetune(part(SegmentationOptions, self), part(ExperimentOptions, self), part(StageOptions, self))

    def following(self) -> Sequence[object]:
        # The checkpoint tells its split, and a config's data would be judged instead of that split.
        tuned = StageFolder(self.output)
        return ["evaluate", "--prepared", self.prepared, "--checkpoint", tuned.model, "--output", tuned.test]
