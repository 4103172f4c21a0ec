"""The folder of one stage: what is in it, whether it is finished, and whether it may be written to.

options.json    what the stage was told, and which data it was given, before anything else
last.ckpt       the whole state after the last finished epoch, until the stage is finished
model.ckpt      the weights: of the last epoch, or in fine-tuning of the best validation
logs/           TensorBoard and CSV
progress.json   epochs done, of how many, until the stage is finished
summary.json    written last, so a folder that has it is finished
test/           what `semicl evaluate` found, in an experiment
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicl.errors import SemiclError
from semicl.files import read_json, remove_partial, write_json
from semicl.nested import laid_over

FREE = ("machine", "output", "resume", "overwrite")
"""Options that may differ between a stage and its resumption: they say where it runs, not what it computes."""

DATA = "data"
"""Beside the options: how the data were prepared and split."""


@dataclass(frozen=True)
class StageFolder:
    """A stage's folder."""

    path: Path

    @property
    def model(self) -> Path:
        """The weights."""
        return self.path / "model.ckpt"

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.path / "last.ckpt"

    @property
    def logs(self) -> Path:
        """TensorBoard and CSV."""
        return self.path / "logs"

    @property
    def progress(self) -> Path:
        """How far the stage is."""
        return self.path / "progress.json"

    @property
    def test(self) -> Path:
        """What the test volumes showed."""
        return self.path / "test"

    @property
    def finished(self) -> bool:
        """Whether the stage came to its end."""
        return self._summary.is_file() and self.model.is_file()

    def open(self, options: Mapping[str, Any], defaults: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a stage with these options.

        A stage that was begun before there was one of the options did what that option's default says.

        Raises:
            SemiclError: it holds a stage and neither resume nor overwrite was asked for, or the stage to resume was
                told something else, was given other data, or has options that are not readable.
        """
        if overwrite:
            if self._begun:  # what is in a folder of something else stays
                self._clear()
        elif resume:
            self._compare(options, defaults)
        else:
            self.require_free()
        if self.path.is_dir():
            remove_partial(self.path)
        if not self.finished:
            write_json(self._options, options)

    def require_free(self) -> None:
        """Raise where there is a stage.

        Raises:
            SemiclError: there is.
        """
        if self._summary.is_file() or self.last.is_file():
            state = "a finished stage" if self.finished else "an unfinished stage"
            raise SemiclError(
                f"{self.path}: holds {state}; give --resume to go on with it, --overwrite to start anew, "
                "or another --output"
            )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and remove the state, which nothing needs any more."""
        write_json(self._summary, summary)
        for file in (self.last, self.progress):
            file.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """What `finish` wrote."""
        return dict(read_json(self._summary))

    @property
    def _begun(self) -> bool:
        """Whether there is a stage, however far it came."""
        return any(file.is_file() for file in (self._options, self._summary, self.last))

    @property
    def _summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def _options(self) -> Path:
        return self.path / "options.json"

    def _clear(self) -> None:
        for file in (self._summary, self.last, self.progress, self.model, self._options):
            file.unlink(missing_ok=True)
        for folder in (self.logs, self.test):
            shutil.rmtree(folder, ignore_errors=True)

    def _compare(self, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        if not self._options.is_file():
            return
        now = json.loads(json.dumps(options, default=str))
        before = laid_over(json.loads(json.dumps(defaults, default=str)), self._told())
        given = now.pop(DATA, {})
        for name, old, new in _differences(before.pop(DATA, given), given):  # older versions did not note the data
            raise SemiclError(
                f"{self._options}: the stage was trained on data with {name} {old}, now {new}; prepare them as they "
                "were, give another --output, or --overwrite to start anew"
            )
        for name, old, new in _differences(before, now):
            raise SemiclError(
                f"{self._options}: the stage was told --{name} {old}, now {new}; give the same option, another "
                "--output, or --overwrite to start anew"
            )

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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if prefix == "" and name in FREE:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new
