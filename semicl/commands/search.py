"""`semicl search`."""

from semicl.commands.command import Command, Experiment
from semicl.config import options, part
from semicl.options import ExperimentOptions, SourceOptions, StudyOptions


@options
class Search(Experiment, StudyOptions, Command):
    """A study on validation volumes alone, for choosing options."""

    def run(self) -> None:
        from semicl.study.study import search

        stages = (self.prepare, self.pretrain_global, self.pretrain_local, self.finetune)
        search(part(SourceOptions, self), part(ExperimentOptions, self), part(StudyOptions, self), *stages)
