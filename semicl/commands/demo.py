"""`semicl demo`: the quick tour, an experiment on whatever volumes are at hand."""

from dataclasses import replace

from semicl.commands.run import Run
from semicl.config import options


@options
class Demo(Run):
    """The quick tour, a few minutes on a CPU.

    It takes the given data, else a phantom.
    Everything is written in the output folder, the prepared data too. Called again it goes on with what is there.

    Args:
        quick: a few steps of a tiny network: does everything run?
    """

    quick: bool = False

    def run(self) -> None:
        from semicl.data.prepare import PHANTOM

        data = self.data or PHANTOM
        anew = replace(self.prepare, overwrite=self.prepare.overwrite or self.overwrite)  # the folder is the demo's own
        Run.run(replace(self, data=data, prepared=self.output / "prepared", prepare=anew))
