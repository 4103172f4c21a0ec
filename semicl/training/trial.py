"""A few steps of a stage, to tell how long all of them will take and how much memory; nothing is written."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import DataLoader

from semicl.errors import SemiclError
from semicl.options import MachineOptions
from semicl.training.callbacks import Interruption, resident_peak
from semicl.training.train import Material
from semicl.training.trainer import loaded, quiet

STEPS = 4
"""The first of them, which is slower, is left out of the time."""

GRADIENTS = 2
"""A step holds what it keeps for its backward pass, and at most as much again in gradients; measured: 1.4 to 1.8."""

BATCH_OF_A_CPU = 8
"""A larger batch is tried with so many; its time and memory grow in proportion."""


@dataclass(frozen=True)
class Trial:
    """What a few steps of a stage cost.

    Args:
        step: seconds of a step.
        validation: seconds of a validation volume; 0 for a stage that has none.
        memory: peak, in bytes: of a GPU's allocations, or of the resident set of the process.
    """

    step: float
    validation: float
    memory: int


class _Times(Callback):
    """When each step and each validation volume began and came to its end."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.volumes: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(self._now(pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.steps.append(self._now(pl_module))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.volumes.append(self._now(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.volumes.append(self._now(pl_module))

    @staticmethod
    def _now(module: pl.LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()


class _Saved:
    """The bytes that a step keeps for its backward pass: the most of several steps."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}
        self.peak = 0

    def pack(self, tensor: Tensor) -> Tensor:
        if tensor.is_leaf and tensor.requires_grad:  # weights, whatever the batch is
            return tensor
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(self._storages.values()))
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        self._storages.clear()  # the backward pass has begun
        return tensor


def epoch_steps(made: Material) -> int:
    """Steps of an epoch of a stage on one device."""
    schedule = made.module.schedule
    whole = max(1, len(made.pieces) // schedule.batch_size)
    return schedule.steps_per_epoch or whole


def trial(made: Material, machine: MachineOptions) -> Trial:
    """Train a few steps, validate one volume, and forget both.

    The network is changed by it, and must be made anew for the training itself. The random states that a stage uses
    follow from its seed, so a trial changes no result.

    Args:
        made: the stage, with a network of its own.
        machine: what it runs on: one device.

    Raises:
        SemiclError: a GPU has too little memory.
    """
    quiet()
    stage, times, saved = made.module, _Times(), _Saved()
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=1,
        precision=machine.precision,
        deterministic=machine.deterministic,
        max_epochs=1,
        limit_train_batches=STEPS,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[Interruption(), times],
        plugins=[LightningEnvironment()],
    )
    device = trainer.strategy.root_device
    size = stage.schedule.batch_size
    if epoch_steps(made) == 1:  # one batch of what there is
        size = min(size, len(made.pieces))
    tried = size if device.type == "cuda" else min(size, BATCH_OF_A_CPU)
    stage.schedule = replace(stage.schedule, batch_size=tried)
    alone = replace(machine, workers=0)  # whose start takes longer than the steps
    loader = loaded(made.pieces, made.unlabelled, stage, trainer, alone)
    volumes: Any = None if made.validation is None else DataLoader(made.validation, batch_size=None)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with saved_tensors_hooks(saved.pack, saved.unpack):
            trainer.fit(stage, loader, volumes)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except torch.OutOfMemoryError as error:
        raise SemiclError(
            f"--schedule.batch_size {size} takes more memory than the GPU has; give a smaller one, fewer "
            "--network.widths, or a smaller patch"
        ) from error
    step = float(np.median(np.diff(times.steps)[1 if len(times.steps) > 2 else 0 :]))
    validation = float(np.diff(times.volumes)[0]) if times.volumes else 0.0
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = round(resident_peak() + (size / tried - 1) * GRADIENTS * saved.peak)
    return Trial(step * size / tried, validation, memory)
