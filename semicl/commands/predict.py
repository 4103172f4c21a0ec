"""`semicl predict`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.options import PredictOptions


@options
class Predict(PredictOptions, Command):
    """NIfTI in, NIfTI out, in the case's own geometry."""

    def run(self) -> None:
        from semicl.evaluation.predict import predict

        predict(part(PredictOptions, self))

    def following(self) -> Sequence[object]:
        return ["evaluate", "--checkpoint", self.checkpoint, "--data", "LABELLED_FOLDER"]
