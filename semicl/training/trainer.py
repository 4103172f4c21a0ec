"""Running a stage with Lightning: batches, checkpoints, logs, progress, resumption, and what it cost."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import SimpleProfiler
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from semicl.console import say
from semicl.data.datasets import Draw, ImagePieces, LabelledPieces, Repeated, Volumes
from semicl.models.checkpoint import AtomicCheckpointIO, MovableCheckpoint, picked_validation
from semicl.options import ExperimentOptions, MachineOptions
from semicl.training.callbacks import (
    Cost,
    FiniteSteps,
    Interruption,
    ProgressFile,
    StageProgress,
    ValidationPictures,
)
from semicl.training.folder import StageFolder
from semicl.training.loggers import opened_loggers
from semicl.training.provenance import provenance
from semicl.training.stages import VALIDATION_DICE, Segmentation, Stage

QUIETED = (
    ".*does not have many workers.*",  # mapped slices are at hand: worker processes would only add copies
    ".*Checkpoint directory .* exists and is not empty.*",  # semicl.training.folder decides what may be there
    ".*isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own affair
    ".*Experiment logs directory .* exists.*",
    ".*smaller than the logging interval.*",
    ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`.*",  # the first steps of 16-bit precision find its scale
)

LOGGERS = ExperimentOptions().logger


class Measured(SimpleProfiler):
    """Lightning's profiler, asked for two numbers."""

    def seconds(self, action: str) -> float:
        """Time spent in all actions whose name holds this word."""
        return sum(sum(times) for name, times in self.recorded_durations.items() if action in name)


def train(
    stage: Stage,
    pieces: ImagePieces | LabelledPieces,
    folder: StageFolder,
    machine: MachineOptions,
    title: str,
    loggers: Sequence[str] = LOGGERS,
) -> dict[str, Any]:
    """Train a contrastive stage to the end of its schedule and write its last weights.

    It goes on from `last.ckpt` where the folder holds one.

    Returns:
        What it cost (seconds, peak memory, images a second, the share of time spent waiting for data) and where and
        by which code it was made.
    """
    quiet()
    with opened_loggers(loggers, folder) as opened:
        trainer, measured = _trainer(stage, folder, machine, opened, [StageProgress(title)])
        _fit(trainer, stage, folder, loaded(pieces, None, stage, trainer, machine))
    trainer.save_checkpoint(folder.model, weights_only=True)
    return _account(stage, trainer, measured)


def train_with_validation(
    stage: Segmentation,
    pieces: LabelledPieces,
    validation: Volumes,
    validate_every: int,
    folder: StageFolder,
    machine: MachineOptions,
    title: str,
    unlabelled: ImagePieces | None = None,
    keep_last: bool = False,
    loggers: Sequence[str] = LOGGERS,
) -> dict[str, Any]:
    """Train the segmentation stage and write the weights with the best Dice on the validation volumes.

    With `keep_last` those of the last epoch are written too.

    Where there are unlabelled pieces, every step gets a batch of them beside its labelled one. Pieces of either kind
    that are too few for the steps of an epoch are repeated in it.

    Returns:
        As `train`, and the epoch and the validation Dice of the weights that were written.
    """
    best = MovableCheckpoint(
        dirpath=folder.path,
        filename=folder.model.stem,
        monitor=VALIDATION_DICE,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )
    callbacks = [StageProgress(title), ValidationPictures(), best]
    quiet()
    with opened_loggers(loggers, folder) as opened:
        trainer, measured = _trainer(stage, folder, machine, opened, callbacks, check_val_every_n_epoch=validate_every)
        own = Subset(validation, range(trainer.global_rank, len(validation), trainer.world_size))
        volumes: DataLoader[Any] = DataLoader(own, batch_size=None)
        batches = loaded(pieces, unlabelled, stage, trainer, machine)
        _fit(trainer, stage, folder, batches, volumes)
        if keep_last:
            trainer.save_checkpoint(folder.model_last, weights_only=True)
    epoch, dice = picked_validation(folder.model)
    return _account(stage, trainer, measured) | {"best epoch": epoch, "best validation Dice": dice}


def quiet() -> None:
    """Keep Lightning's advice to itself, of which nothing concerns whoever runs a stage."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for harmless in QUIETED:
        warnings.filterwarnings("ignore", message=harmless)


def _trainer(
    stage: Stage,
    folder: StageFolder,
    machine: MachineOptions,
    loggers: Sequence[Logger],
    callbacks: list[Callback],
    **options: Any,
) -> tuple[pl.Trainer, Measured]:
    measured = Measured()
    last = MovableCheckpoint(
        dirpath=folder.path,
        filename=folder.last.stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        strategy="ddp" if machine.devices > 1 else "auto",
        precision=machine.precision,
        deterministic=machine.deterministic,
        max_epochs=stage.schedule.epochs,
        limit_train_batches=stage.schedule.steps_per_epoch or 1.0,
        logger=list(loggers),
        log_every_n_steps=1,
        profiler=measured,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[Interruption(), FiniteSteps(folder), Cost(), *callbacks, ProgressFile(folder.progress), last],
        plugins=[AtomicCheckpointIO(), LightningEnvironment() if machine.devices == 1 else TorchElasticEnvironment()],
        **options,
    )
    if machine.compile:
        stage.compile_network()
    return trainer, measured


def _fit(
    trainer: pl.Trainer,
    stage: Stage,
    folder: StageFolder,
    batches: DataLoader[Any] | CombinedLoader,
    validation: DataLoader[Any] | None = None,
) -> None:
    resumed = folder.last if folder.last.is_file() else None
    if resumed is not None:
        say(f"{folder.path}: goes on where it was interrupted.")
    try:
        trainer.fit(stage, batches, validation, ckpt_path=resumed)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def loaded(
    pieces: ImagePieces | LabelledPieces,
    unlabelled: ImagePieces | None,
    stage: Stage,
    trainer: pl.Trainer,
    machine: MachineOptions,
) -> DataLoader[Any] | CombinedLoader:
    """Batches of pieces, as many as an epoch has steps or more, with as many of the unlabelled ones or more."""
    batches = _repeated(pieces, stage, trainer, machine, stage.schedule.batch_size, stage.schedule.steps_per_epoch or 1)
    if unlabelled is None:
        return batches
    others = _repeated(unlabelled, stage, trainer, machine, stage.unlabelled_batch_size, len(batches))
    return CombinedLoader((batches, others), "min_size")


def _repeated(
    pieces: ImagePieces | LabelledPieces,
    stage: Stage,
    trainer: pl.Trainer,
    machine: MachineOptions,
    size: int,
    least: int,
) -> DataLoader[Any]:
    """At least so many batches; pieces are repeated where they are too few for them."""
    batches = _batches(pieces, stage, trainer, machine, size)
    if len(batches) >= least:
        return batches
    times = math.ceil(least * size * trainer.world_size / len(pieces))
    return _batches(Repeated(pieces, times), stage, trainer, machine, size)


class Draws(DistributedSampler[Any]):
    """What pieces are asked for by: their numbers in a random order, and seed and epoch for their random places.

    Of repeated pieces all come once before one comes again: twice in a batch a slice would be its own negative.
    """

    def __iter__(self) -> Iterator[Draw]:
        once = self.dataset.once if isinstance(self.dataset, Repeated) else len(self.dataset)  # type: ignore[arg-type]
        numbers = sorted(super().__iter__(), key=lambda number: number // once)
        return (Draw(number, (self.seed, self.epoch)) for number in numbers)


def _batches(
    pieces: Dataset[Any], stage: Stage, trainer: pl.Trainer, machine: MachineOptions, size: int
) -> DataLoader[Any]:
    """Batches that follow from the seed and the epoch alone; each device gets pieces of its own."""
    count = len(pieces) // trainer.world_size  # type: ignore[arg-type]
    sampler = Draws(pieces, trainer.world_size, trainer.global_rank, shuffle=True, seed=stage.seed)
    return DataLoader(
        pieces,
        batch_size=size,
        sampler=sampler,
        drop_last=count > size,  # a last batch of few would have few negatives
        num_workers=machine.workers,
        persistent_workers=machine.workers > 0,
        pin_memory=trainer.strategy.root_device.type == "cuda",
        generator=torch.Generator(),  # of the workers' seeds, so that the global random state is left alone
    )


def _account(stage: Stage, trainer: pl.Trainer, measured: Measured) -> dict[str, Any]:
    waiting = measured.seconds("train_dataloader_next")
    working = measured.seconds("run_training_batch")
    steps = len(measured.recorded_durations.get("run_training_batch", ()))
    images = steps * stage.schedule.batch_size * trainer.world_size
    (cost,) = (callback for callback in trainer.callbacks if isinstance(callback, Cost))  # type: ignore[attr-defined]
    return {
        **cost.summary(),
        "steps": trainer.global_step,
        "images a second": round(images / max(waiting + working, 1e-9), 1),
        "share of time waiting for data": round(waiting / max(waiting + working, 1e-9), 4),
        **provenance(trainer.strategy.root_device),
    }
