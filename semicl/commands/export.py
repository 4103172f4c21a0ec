"""`semicl export`."""

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.options import ExportOptions


@options
class Export(ExportOptions, Command):
    """A fine-tuned network as a MONAI bundle."""

    def run(self) -> None:
        from semicl.evaluation.bundle import export

        export(part(ExportOptions, self))
