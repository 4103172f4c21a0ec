"""`semicl demo`: the quick tour, the loss against naive code and an experiment on whatever volumes are at hand."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from semicl.commands.following import next_line
from semicl.commands.run import Run
from semicl.config import options
from semicl.errors import UsageError

if TYPE_CHECKING:
    from semicl.study.naive import Comparison

OWN_CONFIGS = {"demo", "demo-quick"}

OF_LOSS = {"loss_only", "quick", "output", "overwrite"}
"""Options of a comparison of the loss alone."""


@options
class Demo(Run):
    """The quick tour, one to four minutes on a CPU: the loss against naive code, a small experiment, a page of both.

    It takes the given data, else a phantom.
    Everything is written in the output folder, the prepared data too. Called again it goes on with what is there.

    Args:
        quick: a few steps of a tiny network: does everything run?
        loss_only: compare the loss alone, in half a minute, and train nothing; --overwrite replaces its picture.
    """

    quick: bool = False
    loss_only: bool = False

    def run(self) -> None:
        from semicl.data.prepare import PHANTOM

        if self.loss_only:
            self._run_loss_only()
            return
        anew = replace(self.prepare, overwrite=self.prepare.overwrite or self.overwrite)  # the folder is the demo's own
        whole = replace(self, data=self.data or PHANTOM, prepared=self.output / "prepared", prepare=anew)
        compared: list[Comparison] = []  # by the first process
        Run.run_after(whole, lambda: compared.append(self._compare()))

        from semicl.console import say
        from semicl.study.page import write_page

        for comparison in compared:
            page = write_page(self.output, comparison, asdict(whole), whole.data == PHANTOM, next_line(self) or "")
            say(f"All of it on one page: {page}")

    def _run_loss_only(self) -> None:
        from semicl.console import on_main_process
        from semicl.files import output_folder
        from semicl.study.page import LOSS

        others = [place for place in self.typed or () if place not in OF_LOSS]
        others += ["config"] if {*self.config} - OWN_CONFIGS else []
        if others:
            raise UsageError(f"--{others[0]} has no effect beside --loss_only, which trains nothing; leave one out")
        output_folder(self.output, [], files=[LOSS], overwrite=self.overwrite)
        if on_main_process():
            self._compare()

    def _compare(self) -> "Comparison":
        """Measure the loss, shown and drawn."""
        from semicl.console import say
        from semicl.evaluation.figures import write_figure
        from semicl.study.naive import SIDES, compare, comparison_figure
        from semicl.study.page import LOSS

        comparison = compare(SIDES[:2] if self.quick else SIDES)
        write_figure(self.output / LOSS, comparison_figure(comparison))
        say(f"The same as a picture: {self.output / LOSS}")
        return comparison

    def following(self) -> Sequence[object]:
        return () if self.loss_only else super().following()
