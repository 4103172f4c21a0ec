"""What the commands of `semicl` have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, ClassVar, TypeVar

import tyro

from semicl.config import configured, of_command, options, read_config
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PrepareOptions,
    SegmentationOptions,
    SourceOptions,
)


@options
class Command(ABC):
    """A command: its options, and what it does with them.

    Args:
        config: a YAML file of options, or the name of a shipped one; several may be given, each over those before it,
            and the command line wins over all.
    """

    config: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE|NAME")] = ()

    section: ClassVar[str | None] = None
    """Its own section in a config of `semicl run`; None for a command that takes all sections."""

    @abstractmethod
    def run(self) -> None:
        """Do it.

        Raises:
            SemiclError: something that it needs cannot be used.
        """

    def following(self) -> Sequence[object]:
        """The words of the next command; none after a command that is the last."""
        return ()


C = TypeVar("C", bound=Command)


@options
class Experiment(ExperimentOptions, SourceOptions):
    """What an experiment and a study have in common: data, what all stages share, and each stage's own options.

    Args:
        prepare: how cases are made ready.
        pretrain_global: stage 1.
        pretrain_local: stage 2.
        finetune: stage 3.
    """

    prepare: PrepareOptions = PrepareOptions()
    pretrain_global: GlobalContrastOptions = GlobalContrastOptions()
    pretrain_local: LocalContrastOptions = LocalContrastOptions()
    finetune: SegmentationOptions = SegmentationOptions()


OF_RUN = {field.name for field in fields(Experiment)} | {"output", "splits", "starts", "overwrite"}
"""Options and sections of `semicl run`, whose configs every command takes."""


def with_configs(kind: type[C], names: Sequence[str]) -> C:
    """The options of a command by its configs alone.

    Raises:
        UsageError: a config cannot be read, holds a key that is unknown, or a value that an option does not take.
    """
    return configured(kind, names, lambda name: of_command(read_config(name), kind, kind.section, OF_RUN, name))
