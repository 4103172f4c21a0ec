"""Validation pictures in TensorBoard: image, label, prediction."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from semicl.data.datasets import LabelledVolume
from semicl.evaluation.figures import predictions_figure
from semicl.training.stages import Segmentation

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
            volume = LabelledVolume(batch.name, batch.image.cpu(), batch.label.cpu())
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
