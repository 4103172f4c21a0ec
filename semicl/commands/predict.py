"""`semicl predict`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.data.nifti_names import is_label
from semicl.options import PredictOptions


@options
class Predict(PredictOptions, Command):
    """Labels of new images, in each one's own format and geometry."""

    def run(self) -> None:
        from semicl.evaluation.predict import predict

        predict(part(PredictOptions, self))

    def following(self) -> Sequence[object]:
        if is_label(self.output) and not self.output.is_dir():
            return ["evaluate", "--checkpoint", self.checkpoint[0], "--data", "LABELLED_FOLDER"]
        return ["evaluate", "--predictions", self.output, "--data", "LABELLED_FOLDER"]
