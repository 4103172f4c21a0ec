"""Running a stage with Lightning and keeping its weights."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from semicl.checkpoints import AtomicCheckpointIO
from semicl.options import Schedule
from semicl.progress import StageProgress
from semicl.stages import VALIDATION_DICE, Segmentation, Stage
from semicl.volumes import LabelledVolume

QUIETED = (
    ".*does not have many workers.*",  # the slices are in memory: worker processes would only add copies
    ".*Checkpoint directory .* exists and is not empty.*",  # a second run replaces the first one's files
    ".*isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own affair
)


def pretrain(stage: Stage, slices: TensorDataset, checkpoint: Path, title: str) -> None:
    """Train a contrastive stage to the end of its schedule and write its last weights."""
    trainer = _trainer(stage.schedule, [StageProgress(title)], enable_checkpointing=False)
    trainer.fit(stage, _batches(slices, stage.schedule))
    trainer.save_checkpoint(checkpoint, weights_only=True)


def finetune(
    stage: Segmentation,
    slices: TensorDataset,
    validation: Sequence[LabelledVolume],
    validations: int,
    checkpoint: Path,
    title: str,
) -> None:
    """Train the segmentation stage and write the weights with the best Dice on the validation volumes."""
    best = ModelCheckpoint(
        dirpath=checkpoint.parent,
        filename=checkpoint.stem,
        monitor=VALIDATION_DICE,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )
    steps = stage.schedule.steps
    trainer = _trainer(stage.schedule, [StageProgress(title), best], val_check_interval=steps // validations)
    volumes: DataLoader[LabelledVolume] = DataLoader(validation, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(stage, _batches(slices, stage.schedule), volumes)


def _trainer(schedule: Schedule, callbacks: list[Callback], **options: Any) -> pl.Trainer:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for harmless in QUIETED:
        warnings.filterwarnings("ignore", message=harmless)
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=schedule.steps,
        max_epochs=1,
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        **options,
    )


def _batches(slices: TensorDataset, schedule: Schedule) -> DataLoader[Any]:
    """The whole stage as one epoch: every slice is seen once before any is seen again."""
    sampler = RandomSampler(slices, num_samples=schedule.steps * schedule.batch_size)
    return DataLoader(slices, batch_size=schedule.batch_size, sampler=sampler, generator=torch.Generator())
