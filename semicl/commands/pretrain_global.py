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
        from semicl.training.train import pretrain_global

        pretrain_global(part(GlobalContrastOptions, self), part(ExperimentOptions, self), part(StageOptions, self))

    def following(self) -> Sequence[object]:
        from semicl.commands.pretrain_local import PretrainLocal

        return ["pretrain-local", *after_stage(PretrainLocal, "pretrain-local", self)]
