"""The folder of one stage: what is in it, whether it is finished, and whether it may be written to.

options.json    what the stage depends on: options that can change its result, and its data; before anything else
last.ckpt       the whole state after the last finished epoch, until the stage is finished
model.ckpt      the weights: of the last epoch, or in fine-tuning of the best validation
model-last.ckpt the weights of the last epoch of fine-tuning, where they are wanted too
logs/           TensorBoard and CSV, and runs.json, the runs of wandb and mlflow
progress.json   epochs done, of how many, until the stage is finished
diverged.json   the step that was not finite, where training stopped
summary.json    written last and removed before anything is trained: a folder that has it and the weights is finished
test/           what `semicl evaluate` found, in an experiment
test-last/      the same of model-last.ckpt, in a study
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from semicl.errors import SemiclError
from semicl.files import MODEL, laid_over, read_json, remove_partial, write_json
from semicl.training.inputs import FILES

DATA = "data"
"""Beside the options: how the data were prepared and split, and, under `FILES`, what is in the files."""


_WRITTEN_BELOW = (
    "test/cases.csv",
    "test/results.json",
    "test-last/cases.csv",
    "test-last/results.json",
    "logs/tensorboard/version_*/events.out.tfevents.*",
    "logs/*/version_*/hparams.yaml",
    "logs/csv/version_*/metrics.csv",
    "logs/runs.json",
)
"""Files that semicl and its loggers write in folders of a stage's folder."""


@dataclass(frozen=True)
class StageFolder:
    """A stage's folder."""

    path: Path

    @property
    def model(self) -> Path:
        """The weights."""
        return self.path / MODEL

    @property
    def model_last(self) -> Path:
        """The weights of the last epoch, where fine-tuning keeps them."""
        return self.path / "model-last.ckpt"

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.path / "last.ckpt"

    @property
    def logs(self) -> Path:
        """TensorBoard and CSV."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """The runs of services that log the stage."""
        return self.logs / "runs.json"

    @property
    def progress(self) -> Path:
        """How far the stage is."""
        return self.path / "progress.json"

    @property
    def diverged(self) -> Path:
        """The step that was not finite."""
        return self.path / "diverged.json"

    @property
    def test(self) -> Path:
        """What the test volumes showed."""
        return self.path / "test"

    @property
    def test_last(self) -> Path:
        """What they showed of the weights of the last epoch."""
        return self.path / "test-last"

    @property
    def finished(self) -> bool:
        """Whether the stage came to its end."""
        return self._summary.is_file() and self.model.is_file()

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from, or nothing left to do."""
        return self._summary.is_file() or self.last.is_file()

    @property
    def epochs(self) -> int:
        """How many are done of an unfinished stage."""
        return int(read_json(self.progress)["epoch"]) if self.progress.is_file() else 0

    def open(
        self, told: Mapping[str, Any], defaults: Mapping[str, Any], resume: bool, overwrite: bool, retrain: bool = False
    ) -> str | None:
        """Make the folder ready for a stage.

        A stage that was begun before there was one of the options did what that option's default says.

        Args:
            told: what the stage depends on.
            defaults: of the options.
            resume: go on with an unfinished stage.
            overwrite: start anew.
            retrain: with resume, start anew where the files are no more those that the stage was trained on.

        Returns:
            Why it starts anew although it is resumed; None where it does not.

        Raises:
            SemiclError: it holds a stage and neither resume nor overwrite was asked for, or the stage to resume was
                told something else, was given other data, or has options that are not readable.
        """
        reason = None
        if resume and self.begun:
            reason = self.reason_to_start_anew(told, defaults, retrain)
        elif not (resume or overwrite):
            self.require_free()
        if reason is not None or (overwrite and (self.begun or self._options.is_file())):
            self._clear()
        remove_partial(self.path, self.test, self.test_last)
        if self.finished:
            self._remove_state()
        else:
            self._summary.unlink(missing_ok=True)  # of weights that are not there any more
            write_json(self._options, told)
        return reason

    def require_free(self) -> None:
        """Raise where there is a stage.

        Raises:
            SemiclError: there is.
        """
        if self.begun:
            way_out = "--overwrite to start anew, or another --output"
            if self.finished:
                raise SemiclError(f"{self.path}: holds a finished stage; give {way_out}")
            raise SemiclError(f"{self.path}: holds an unfinished stage; give --resume to go on with it, {way_out}")

    def reason_to_start_anew(
        self, told: Mapping[str, Any], defaults: Mapping[str, Any], retrain: bool = False
    ) -> str | None:
        """Why a stage that is begun cannot go on, but may start anew unasked; None where it goes on or is finished.

        Args and raises: as of `open`.
        """
        if not self._options.is_file():
            return None
        now = json.loads(json.dumps(told, default=str))
        before = laid_over(json.loads(json.dumps(defaults, default=str)), self._told())
        given, noted = now.pop(DATA, {}), before.pop(DATA, {})
        files = list(_differences(noted.pop(FILES, {}), given.pop(FILES, {}), noted_only=True))
        data = list(_differences(noted, given, noted_only=True))
        options = list(_differences(before, now))
        if self.last.is_file() and self.diverged.is_file() and (options or data or files):
            return "what it is told now differs from what it diverged with"
        for name, old, new in options:
            raise SemiclError(
                f"{self._options}: the stage was told --{name} {old}, now {new}; give the same option, another "
                "--output, or --overwrite to start anew"
            )
        for name, old, new in (*data, *([] if retrain else files)):
            raise SemiclError(
                f"{self._options}: the stage was trained on data with {name} {old}, now {new}; prepare them as they "
                "were, or give another --output for these, or --overwrite to start anew"
            )
        changed = ", ".join(name.removesuffix(" of hash") for name, *_ in files)
        return f"changed since it was trained: {changed}" if files else None

    def mark_diverged(self, epoch: int, step: int, what: str) -> None:
        """Note which step was not finite, so that the stage may start anew with other options."""
        write_json(self.diverged, {"epoch": epoch, "step": step, "not finite": what})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and remove the state, which nothing needs any more."""
        write_json(self._summary, summary)
        self._remove_state()

    def summary(self) -> dict[str, Any]:
        """What `finish` wrote."""
        return dict(read_json(self._summary))

    @property
    def _summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def _options(self) -> Path:
        return self.path / "options.json"

    def _remove_state(self) -> None:
        """Remove what a finished stage needs no more."""
        for file in (self.last, self.progress, self.diverged):
            file.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what semicl writes, by name, and the folders that this empties."""
        state = (self.last, self.progress, self.diverged)
        for file in (self._summary, *state, self.model, self.model_last, self._options):
            file.unlink(missing_ok=True)
        place = self.path.resolve()
        for file in [file for pattern in _WRITTEN_BELOW for file in self.path.glob(pattern)]:
            if not file.parent.resolve().is_relative_to(place):  # in a linked folder, which is another's
                continue
            file.unlink()
            with suppress(OSError):  # not empty yet
                for folder in takewhile(lambda folder: folder != self.path, file.parents):
                    folder.rmdir()

    def _told(self) -> dict[str, Any]:
        """The options that the stage was begun with."""
        way_out = "give --overwrite to start anew, or another --output"
        try:
            told = read_json(self._options)
        except ValueError as error:
            raise SemiclError(f"{self._options}: damaged ({error}); {way_out}") from error
        if not isinstance(told, dict):
            raise SemiclError(f"{self._options}: damaged (no mapping of options); {way_out}")
        return told


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "", noted_only: bool = False
) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of what differs; what counts no more, or was not noted by an older version, does not."""
    for name, new in now.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and not noted_only:
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new and (name in before or not noted_only):
            yield f"{prefix}{name}", old, new
