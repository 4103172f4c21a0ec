"""`semicl run`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Annotated, Any

import tyro
from typing_extensions import Self

from semicl.commands.command import Command, Experiment
from semicl.config import options, part, read_config, structured
from semicl.console import say
from semicl.files import laid_over
from semicl.options import ExperimentOptions, RunOptions, SourceOptions
from semicl.training.folder import StageFolder

NOT_KEPT = {"overwrite", "prepare.overwrite", "output"}
"""Options that are of one call alone."""


@options
class Run(Experiment, RunOptions, Command):
    """All stages from one config, skipping what is done already; without a config, as suits the data and the device.

    The defaults that are shown are those with a config.

    Args:
        typed: places of the options that the command line gives; None: it is called by other code, which gives all.
    """

    typed: Annotated[tuple[str, ...] | None, tyro.conf.Suppress] = None

    def run(self) -> None:
        self.run_after(lambda: None)

    def run_after(self, first: Callable[[], object]) -> None:
        """Run the experiment; what comes first is done by one process, when all that can be checked is checked."""
        from semicl.study.choice import choices, nested, prepared_as, write_choices
        from semicl.study.experiment import require_possible, run

        source, experiment = part(SourceOptions, self), part(RunOptions, self)
        if self.typed is None or self.config:
            whole, content = self, dict[str, Any]()
            named = [*(self.typed or ()), *(key for name in self.config for key in read_config(name))]
            if self.config and not any(place.split(".")[0] == "network" for place in named):
                channels = " x ".join(map(str, self.network.levels))
                say(
                    f"Network: the paper's, {channels} channels, for a GPU, as the config names none. Without --config "
                    "network and schedule are chosen by the data and the device."
                )
        else:
            told = {place: reduce(getattr, place.split("."), self) for place in self.typed if place not in NOT_KEPT}
            as_prepared = {} if self.prepare.overwrite else prepared_as(self.prepared)
            require_possible(source, experiment, self._with(nested(as_prepared | told)).prepare)
            accelerator = self.machine.accelerator
            content = choices(source, self.prepare, accelerator, self.output, as_prepared, told, self.overwrite)
            whole = self._with(content)
        stages = (whole.prepare, whole.pretrain_global, whole.pretrain_local, whole.finetune)

        def begin() -> None:
            if content:
                write_choices(content, self.output)
            first()

        run(source, part(ExperimentOptions, whole), experiment, *stages, begin)

    def _with(self, content: Mapping[str, Any]) -> Self:
        return structured(type(self), laid_over(asdict(self), content))

    def following(self) -> Sequence[object]:
        tuned = self.output / f"split-{self.splits[0]}" / f"finetune-{self.starts[-1]}"
        return ["predict", "--checkpoint", StageFolder(tuned).model, "--input", "FILE_OR_FOLDER"]
