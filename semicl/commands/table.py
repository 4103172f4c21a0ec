"""`semicl table`."""

from semicl.commands.command import Command, Experiment
from semicl.config import options, part
from semicl.options import ExperimentOptions, SourceOptions, StudyOptions


@options
class Table(Experiment, StudyOptions, Command):
    """A study: methods x label fractions x splits, side by side."""

    def run(self) -> None:
        from semicl.study.study import table

        stages = (self.prepare, self.pretrain_global, self.pretrain_local, self.finetune)
        table(part(SourceOptions, self), part(ExperimentOptions, self), part(StudyOptions, self), *stages)
