"""`semicl prepare`."""

from collections.abc import Sequence

from semicl.commands.command import Command
from semicl.commands.following import stage_words
from semicl.config import options, part
from semicl.options import PrepareOptions, SourceOptions


@options
class Prepare(PrepareOptions, SourceOptions, Command):
    """Find cases, check every file, make splits and a cache."""

    section = "prepare"

    def run(self) -> None:
        from semicl.data.prepare import prepare

        prepare(part(SourceOptions, self), part(PrepareOptions, self))

    def following(self) -> Sequence[object]:
        from semicl.commands.pretrain_global import PretrainGlobal

        output = f"runs/{self.prepared.resolve().name}/pretrain-global"
        places = ["--prepared", self.prepared, "--output", output]
        return ["pretrain-global", *stage_words(PretrainGlobal, self.config, places, {})]
