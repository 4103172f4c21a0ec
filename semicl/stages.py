"""The three stages of training, as Lightning modules: what is trained, by which loss, on what batch.

Source: Hu et al., MICCAI 2021: global contrast on the encoder, local contrast on encoder and decoder, then
segmentation on the labels at hand.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor

from semicl.augment import ImageViews, LabelledViews
from semicl.evaluate import predict, volume_dice
from semicl.networks import Decoder, Encoder, PixelProjection, SliceProjection, UNet
from semicl.options import Schedule
from semicl.volumes import LabelledVolume
from semicl_kernels import local_contrastive_loss, nt_xent_loss

VALIDATION_DICE = "validation_dice"


class Stage(pl.LightningModule):
    """What the stages share: Adam under a one-cycle learning rate."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.schedule.learning_rate)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.schedule.learning_rate, total_steps=self.schedule.steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class GlobalContrast(Stage):
    """Stage 1: two views of a slice attract, views of different slices repel (NT-Xent, SimCLR). No labels."""

    def __init__(self, encoder: Encoder, projection: SliceProjection, temperature: float, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.encoder = encoder
        self.projection = projection
        self.temperature = temperature
        self.views = ImageViews()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        (images,) = batch
        views = torch.cat([self.views(images), self.views(images)])
        z1, z2 = self.projection(self.encoder(views)[-1]).chunk(2)
        return nt_xent_loss(z1, z2, temperature=self.temperature)


class LocalContrast(Stage):
    """Stage 2: pixels of one class attract, within a block, across the slices of the batch and their two views."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        projection: PixelProjection,
        temperature: float,
        block_size: int,
        schedule: Schedule,
    ) -> None:
        super().__init__(schedule)
        self.encoder = encoder
        self.decoder = decoder
        self.projection = projection
        self.temperature = temperature
        self.block_size = block_size
        self.views = LabelledViews()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = zip(self.views(*batch), self.views(*batch), strict=True)
        features = self.projection(self.decoder(self.encoder(torch.cat(images))))
        return local_contrastive_loss(
            torch.stack(features.chunk(2), dim=1),
            torch.stack(labels, dim=1),
            temperature=self.temperature,
            block_size=self.block_size,
        )


class Segmentation(Stage):
    """Stage 3: cross entropy + Dice on labelled slices; logs the mean Dice of the validation volumes.

    `history` holds what each validation found: after how many steps, and the Dice.
    """

    def __init__(self, network: UNet, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.network = network
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)
        self.views = LabelledViews()
        self.history: list[tuple[int, float]] = []

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = self.views(*batch)
        return self.loss(self.network(images), labels[:, None])

    def validation_step(self, volume: LabelledVolume) -> None:
        dice = volume_dice(predict(self.network, volume.image), volume.label, self.network.classifier.out_channels)
        self.log(VALIDATION_DICE, dice.mean(), batch_size=1)

    def on_validation_epoch_end(self) -> None:
        self.history.append((self.global_step, float(self.trainer.callback_metrics[VALIDATION_DICE])))
