"""`semicl demo`: the quick tour, the loss against naive code and an experiment on whatever volumes are at hand."""

from collections.abc import Sequence
from dataclasses import asdict, replace

from semicl.commands.following import next_line
from semicl.commands.run import Run
from semicl.config import options, part
from semicl.options import RunOptions, SourceOptions


@options
class Demo(Run):
    """The quick tour, a few minutes on a CPU: the loss against naive code, a small experiment, and a page of both.

    It takes the given data, else a phantom.
    Everything is written in the output folder, the prepared data too. Called again it goes on with what is there.

    Args:
        quick: a few steps of a tiny network: does everything run?
        loss_only: compare the loss alone, in half a minute, and train nothing.
    """

    quick: bool = False
    loss_only: bool = False

    def run(self) -> None:
        from semicl.console import on_main_process, say
        from semicl.data.prepare import PHANTOM
        from semicl.files import output_folder
        from semicl.study.experiment import require_possible

        anew = replace(self.prepare, overwrite=self.prepare.overwrite or self.overwrite)  # the folder is the demo's own
        whole = replace(self, data=self.data or PHANTOM, prepared=self.output / "prepared", prepare=anew)
        if self.loss_only:
            output_folder(self.output, [])
        else:
            require_possible(part(SourceOptions, whole), part(RunOptions, whole), anew)

        from semicl.evaluation.figures import write_figure
        from semicl.study.naive import SIDES, compare, comparison_figure
        from semicl.study.page import LOSS, write_page

        comparison = compare(SIDES[:2] if self.quick else SIDES) if on_main_process() else None
        if comparison is not None:
            picture = self.output / LOSS
            write_figure(picture, comparison_figure(comparison))
            say(f"The same as a picture: {picture}")
        if self.loss_only:
            return
        Run.run(whole)
        if comparison is not None:
            page = write_page(self.output, comparison, asdict(whole), whole.data == PHANTOM, next_line(self) or "")
            say(f"All of it on one page: {page}")

    def following(self) -> Sequence[object]:
        return () if self.loss_only else super().following()
