"""`semicl prepare`."""

from collections.abc import Sequence
from dataclasses import replace

from semicl.commands.command import Command
from semicl.commands.following import words_of
from semicl.config import options, part
from semicl.console import say
from semicl.options import PrepareOptions, SourceOptions


@options
class Prepare(PrepareOptions, SourceOptions, Command):
    """Find cases, check every file, make splits and a cache."""

    section = "prepare"

    def run(self) -> None:
        from semicl.data.prepare import prepare, tell_levels

        prepared = prepare(part(SourceOptions, self), part(PrepareOptions, self))
        tell_levels(prepared.grid)
        say(
            "`semicl run` takes its configs' network, batches and epochs; without a config it chooses them by the data "
            "and the device, and tells time and memory before it trains (docs/run.md)."
        )

    def following(self) -> Sequence[object]:
        from semicl.commands.run import Run

        as_now = replace(part(PrepareOptions, self), overwrite=False)
        return ["run", *words_of(Run, self.config, [], vars(part(SourceOptions, self)) | {"prepare": as_now})]
