"""`semicl evaluate`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.options import EvaluateOptions


@options
class Evaluate(EvaluateOptions, Command):
    """Dice, HD95 and surface distance of a checkpoint or of label files, per case and class."""

    def run(self) -> None:
        from semicl.evaluation.evaluate import evaluate

        evaluate(part(EvaluateOptions, self))

    def following(self) -> Sequence[object]:
        if self.checkpoint is None:
            return ()
        return ["predict", "--checkpoint", self.checkpoint, "--input", "FILE_OR_FOLDER"]
