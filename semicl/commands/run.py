"""`semicl run`."""

from collections.abc import Sequence

from semicl.commands.command import Command, Experiment
from semicl.config import options, part
from semicl.options import ExperimentOptions, RunOptions, SourceOptions
from semicl.training.folder import StageFolder


@options
class Run(Experiment, RunOptions, Command):
    """All stages from one config, skipping what is done already."""

    def run(self) -> None:
        from semicl.study.experiment import run

        stages = (self.prepare, self.pretrain_global, self.pretrain_local, self.finetune)
        run(part(SourceOptions, self), part(ExperimentOptions, self), part(RunOptions, self), *stages)

    def following(self) -> Sequence[object]:
        tuned = self.output / f"split-{self.splits[0]}" / f"finetune-{self.starts[-1]}"
        return ["predict", "--checkpoint", StageFolder(tuned).model, "--input", "FILE_OR_FOLDER"]
