"""`semicl pretrain-local`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.commands.following import after_stage
from semicl.config import options, part
from semicl.options import ExperimentOptions, LocalContrastOptions, StageOptions


@options
class PretrainLocal(ExperimentOptions, LocalContrastOptions, StageOptions, Command):
    """Stage 2: local contrast on encoder and decoder, on the labelled fraction."""

    section = "pretrain_local"

    def run(self) -> None:
        from semicl.study.estimate import tell_of_stage
        from semicl.training.train import pretrain_local

        parts = (part(LocalContrastOptions, self), part(ExperimentOptions, self), part(StageOptions, self))
        tell_of_stage("pretrain-local", *parts)
        pretrain_local(*parts)

    def following(self) -> Sequence[object]:
        from semicl.commands.finetune import Finetune

        return ["finetune", *after_stage(Finetune, "finetune-pretrained", self)]
