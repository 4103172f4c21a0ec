"""`semicl pretrain-global`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.commands.following import after_stage
from semicl.config import options, part
from semicl.options import ExperimentOptions, GlobalContrastOptions, StageOptions


@options
class PretrainGlobal(ExperimentOptions, GlobalContrastOptions, StageOptions, Command):
    """Stage 1: NT-Xent on the encoder, on the images of all training volumes."""

    section = "pretrain_global"

    def run(self) -> None:
        from semicl.study.estimate import tell_of_stage
        from semicl.training.train import pretrain_global

        parts = (part(GlobalContrastOptions, self), part(ExperimentOptions, self), part(StageOptions, self))
        tell_of_stage("pretrain-global", *parts)
        pretrain_global(*parts)

    def following(self) -> Sequence[object]:
        from semicl.commands.pretrain_local import PretrainLocal

        return ["pretrain-local", *after_stage(PretrainLocal, "pretrain-local", self)]
