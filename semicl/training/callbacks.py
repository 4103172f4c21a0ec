"""What Lightning calls beside a stage: cost, finite steps, progress, validation pictures."""

import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from semicl.console import progress_bar
from semicl.data.datasets import LabelledVolume
from semicl.errors import SemiclError
from semicl.evaluation.figures import predictions_figure
from semicl.files import write_json
from semicl.training.folder import StageFolder
from semicl.training.interruption import take_signals
from semicl.training.stages import LOSS, VALIDATION_DICE, Segmentation

MEBIBYTE = 2**20


class Cost(Callback):
    """Seconds of training and the peak of memory.

    On a GPU the peak is that of torch's allocations while the stage trains. On a CPU it is that of the resident set of
    the process since it began: what else the process did before counts too, but a stage alone in its process, as
    `semicl table` runs it, counts itself.
    """

    def __init__(self) -> None:
        self._seconds_before = 0.0
        self._peak_before = 0
        self._start = time.perf_counter()
        self._device = torch.device("cpu")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()
        self._device = trainer.strategy.root_device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    @property
    def seconds(self) -> float:
        """Of training, up to now."""
        return self._seconds_before + time.perf_counter() - self._start

    @property
    def peak_bytes(self) -> int:
        """Of memory, up to now."""
        cuda = self._device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self._device) if cuda else resident_peak()
        return max(self._peak_before, now)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_bytes": self.peak_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before = state_dict["seconds"]
        self._peak_before = state_dict["peak_bytes"]

    def summary(self) -> dict[str, Any]:
        """As lines of a stage's summary."""
        return {"seconds": round(self.seconds, 1), "peak memory (MiB)": round(self.peak_bytes / MEBIBYTE)}


def resident_peak() -> int:
    """The highest resident set of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


SMALLEST_SCALE = 1.0
"""Of 16-bit precision, which skips a step whose gradient overflows and tries a smaller scale in the next."""


class Interruption(Callback):
    """Puts the handlers of `semicl.training.interruption` back.

    Lightning's own of SIGTERM waits for the other processes inside the handler, which can block them all.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        take_signals()


class FiniteSteps(Callback):
    """Looks at every step: at the loss and the gradient before the weights move, at the weights after."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self._loss_is_finite = True

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._loss_is_finite = bool(loss.isfinite())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        skips = scaler is not None and scaler.get_scale() >= SMALLEST_SCALE
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        finite = self._loss_is_finite and (skips or _are_finite(gradients))
        if not _on_all(trainer, finite):
            _stop(trainer, self._folder, "gradient" if _on_all(trainer, self._loss_is_finite) else "loss")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        weights = [each for each in pl_module.state_dict().values() if each.is_floating_point()]
        if not _on_all(trainer, _are_finite(weights)):
            _stop(trainer, self._folder, "weights", done=True)


def _on_all(trainer: pl.Trainer, finite: bool) -> bool:
    """Whether it is finite on every process."""
    return bool(trainer.strategy.reduce_boolean_decision(finite, all=True))


def _stop(trainer: pl.Trainer, folder: StageFolder, what: str, done: bool = False) -> NoReturn:
    """End this stage, on all processes at the same step; the first one notes it.

    Args:
        trainer: of the stage.
        folder: of the stage.
        what: is not finite.
        done: whether the step that it was found in has been taken already.
    """
    epoch, step = trainer.current_epoch + 1, trainer.global_step + (0 if done else 1)
    if trainer.is_global_zero:
        folder.mark_diverged(epoch, step, what)
    where = f"epoch {epoch} of {trainer.max_epochs}, step {step} of {trainer.estimated_stepping_batches}"
    raise SemiclError(
        f"{folder.path}: not finite (NaN or infinity): the {what} of {where}, where training stopped; give a smaller "
        "--schedule.learning_rate, or --machine.precision 32-true, and call it again, a single stage with --resume"
    )


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether no element is NaN or infinite: the largest magnitude is neither."""
    return bool(torch.nn.utils.get_total_norm(tensors, norm_type=float("inf")).isfinite())


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
            steps = int(trainer.estimated_stepping_batches)
            self._bar = progress_bar(total=steps, initial=trainer.global_step, desc=self._title, unit="step")

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


PICTURED = 3
"""Volumes in a picture."""


class ValidationPictures(Callback):
    """Draws the first validation volumes, each time they are validated."""

    def __init__(self) -> None:
        self._volumes: list[tuple[LabelledVolume, Tensor]] = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.is_global_zero and len(self._volumes) < PICTURED:
            volume = LabelledVolume(batch.name, batch.image[0].cpu(), batch.label.cpu())
            self._volumes.append((volume, outputs))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Segmentation)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and self._volumes:
                figure = predictions_figure(
                    {volume.name: volume.image for volume, _ in self._volumes},
                    {
                        "truth": {volume.name: volume.label for volume, _ in self._volumes},
                        "prediction": {volume.name: prediction for volume, prediction in self._volumes},
                    },
                    list(pl_module.card.classes),
                )
                logger.experiment.add_figure("validation", figure, trainer.global_step)
        self._volumes.clear()
