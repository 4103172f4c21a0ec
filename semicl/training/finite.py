"""Training stops at the first step whose loss, gradient or weights are not finite: what follows would be NaN.

All processes that train together stop at the same step, whichever of them met it. The state of the last finished epoch
stays, and nothing that is not finite is ever written.
"""

from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from semicl.errors import SemiclError
from semicl.training.folder import StageFolder
from semicl.training.interruption import end_children, wait_to_be_ended

SMALLEST_SCALE = 1.0
"""Of 16-bit precision, which skips a step whose gradient overflows and tries a smaller scale in the next."""


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
    """End this stage, on all processes; the first one tells why.

    Args:
        trainer: of the stage.
        folder: of the stage.
        what: is not finite.
        done: whether the step that it was found in has been taken already.
    """
    if not trainer.is_global_zero:
        wait_to_be_ended()
    epoch, step = trainer.current_epoch + 1, trainer.global_step + (0 if done else 1)
    if trainer.is_global_zero:
        folder.mark_diverged(epoch, step, what)
        if trainer.world_size > 1:
            end_children()
    where = f"epoch {epoch} of {trainer.max_epochs}, step {step} of {trainer.estimated_stepping_batches}"
    raise SemiclError(
        f"{folder.path}: not finite (NaN or infinity): the {what} of {where}, where training stopped; give a smaller "
        "--schedule.learning_rate, or --machine.precision 32-true, and call it again, a single stage with --resume"
    )


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether no element is NaN or infinite: the largest magnitude is neither."""
    return bool(torch.nn.utils.get_total_norm(tensors, norm_type=float("inf")).isfinite())
