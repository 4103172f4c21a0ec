"""How far a stage is: one progress bar, with the time left, and a small file for whoever watches from outside."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ProgressBar
from tqdm import tqdm

from semicl.console import WIDTH
from semicl.files import write_json
from semicl.training.stages import LOSS, VALIDATION_DICE


class StageProgress(ProgressBar):
    """Counts the optimiser steps of a whole stage, where Lightning's own bar starts anew with every epoch."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._shown: dict[str, str] = {}
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Nothing to do: the bar exists only while a stage trains."""

    def enable(self) -> None:
        """Nothing to do: the bar exists only while a stage trains."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._bar = tqdm(
                total=int(trainer.estimated_stepping_batches),
                initial=trainer.global_step,
                desc=self._title,
                unit="step",
                ncols=WIDTH,
                file=sys.stderr,
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if self._bar is not None:
            self._shown[LOSS] = f"{float(outputs['loss']):.3f}"
            self._advance(1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shown["Dice"] = f"{float(trainer.callback_metrics[VALIDATION_DICE]):.3f}"
        self._advance(0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _advance(self, steps: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(steps)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class ProgressFile(Callback):
    """Writes after every epoch how many are done, of how many, and the last validation Dice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        history = getattr(pl_module, "history", [])  # of fine-tuning alone
        dice = history[-1][1] if history else None
        write_json(
            self._path, {"epoch": trainer.current_epoch + 1, "epochs": trainer.max_epochs, VALIDATION_DICE: dice}
        )
