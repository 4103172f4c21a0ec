"""The three stages of training, as Lightning modules: what is trained, by which loss, on what batch.

Source: Hu et al., MICCAI 2021: global contrast on the encoder, local contrast on encoder and decoder, then
segmentation on the labels at hand.

All that is random in a step (views, Mixup) follows from the seed, the number of the step and the process alone, so a
stage that was killed and resumed goes the way of one that was not.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from semicl.data.datasets import LabelledVolume
from semicl.evaluation.inference import class_probabilities
from semicl.evaluation.metrics import dice_per_class
from semicl.models.checkpoint import KEY, ModelCard
from semicl.models.heads import ImageProjection, PointProjection
from semicl.models.unet import Decoder, Encoder, UNet
from semicl.options import (
    GlobalContrastOptions,
    LocalContrastOptions,
    ScheduleOptions,
    SegmentationOptions,
)
from semicl.training.augment import ImageViews, Intensities, LabelledViews, Mix, mixed
from semicl.training.losses import (
    at_scale,
    class_means,
    class_queue,
    contrast_all_devices,
    local_contrast,
    segmentation_loss,
)
from semicl_kernels import ClassQueue, NTXentLoss

VALIDATION_DICE = "validation_dice"
LOSS = "loss"


class Stage(pl.LightningModule, ABC):
    """What the stages share: their schedule, their seed, and the card in their checkpoints."""

    def __init__(self, schedule: ScheduleOptions, card: ModelCard, seed: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.card = card
        self.seed = seed

    @abstractmethod
    def views(self, batch: Any) -> Any:
        """What `training_step` gets of a batch, made on its device, in full precision."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.trainer.training:
            return batch
        key = (self.seed, self.global_step, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        return self.views(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.schedule.learning_rate)
        if self.schedule.decay == "none":
            return optimizer
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.schedule.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            contrast_all_devices(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.card.to_dict()

    def compile_network(self) -> None:
        """Let torch.compile have the network; the names of its tensors stay."""
        for module in self.modules():
            if isinstance(module, (Encoder, Decoder)):
                module.compile()

    @property
    def unlabelled_batch_size(self) -> int:
        """Unlabelled images beside a labelled batch, where the stage takes any."""
        return self.schedule.batch_size

    @property
    def done(self) -> float:
        """The share of all steps that are taken."""
        return self.global_step / int(self.trainer.estimated_stepping_batches)

    def logged(self, loss: Tensor) -> Tensor:
        """The loss, after a note of it in the logs."""
        self.note(LOSS, loss)
        return loss

    def note(self, name: str, value: Tensor) -> None:
        """Log the mean of a number over the steps of an epoch."""
        self.log(name, value.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


class GlobalContrast(Stage):
    """Stage 1: two views of a slice attract, views of different slices repel (NT-Xent, SimCLR). No labels."""

    def __init__(self, network: UNet, options: GlobalContrastOptions, card: ModelCard, seed: int) -> None:
        super().__init__(options.schedule, card, seed)
        self.encoder = network.encoder
        self.projection = ImageProjection(len(card.grid.patch_size), card.levels[-1], options.channels)
        self._loss = NTXentLoss(temperature=options.temperature)
        self._view = ImageViews(options.augmentation, card.grid.voxel_size)

    def views(self, batch: Tensor) -> Tensor:
        """Two independent views (2N, 1, *space) of images (N, channels, *space)."""
        return torch.cat([self._view(batch), self._view(batch)])

    def training_step(self, views: Tensor) -> Tensor:
        z1, z2 = self.projection(self.encoder(views)[-1]).chunk(2)
        return self.logged(self._loss(z1, z2))


def _point_projection(
    options: LocalContrastOptions | SegmentationOptions, card: ModelCard, level: int = 0
) -> PointProjection:
    """Of the decoder's map of a level, from full resolution down."""
    return PointProjection(len(card.grid.patch_size), card.levels[level], options.channels, options.layers)


class _LocalContrast(Stage):
    """Stage 2: encoder, decoder and a projection of every point."""

    def __init__(self, network: UNet, options: LocalContrastOptions, card: ModelCard, seed: int) -> None:
        super().__init__(options.schedule, card, seed)
        self.encoder = network.encoder
        self.decoder = network.decoder
        self.projection = _point_projection(options, card)
        self._loss = local_contrast(options.loss, card.ignores)

    def features(self, views: Tensor) -> Tensor:
        """Projected points (N, 2, channels, *space) of two views (2N, 1, *space), the first views first."""
        return torch.stack(self.projection(self.decoder(self.encoder(views))).chunk(2), dim=1)


class SupervisedLocalContrast(_LocalContrast):
    """Points of one class attract, within a block, across the slices of the batch and their two views."""

    def __init__(self, network: UNet, options: LocalContrastOptions, card: ModelCard, seed: int) -> None:
        super().__init__(network, options, card, seed)
        self._view = LabelledViews(options.augmentation, card.grid.voxel_size, card.outside)

    def views(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Two independent views (2N, 1, *space) of images (N, channels, *space), with their labels (N, 2, *space)."""
        images, labels = zip(self._view(*batch), self._view(*batch), strict=True)
        return torch.cat(images), torch.stack(labels, dim=1)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        views, labels = batch
        return self.logged(self._loss(self.features(views), labels))


class SelfSupervisedLocalContrast(_LocalContrast):
    """A point and the same point of the other view attract. Views differ in intensity alone, so that points stay."""

    def __init__(self, network: UNet, options: LocalContrastOptions, card: ModelCard, seed: int) -> None:
        super().__init__(network, options, card, seed)
        self._view = Intensities(options.augmentation)

    def views(self, batch: Tensor) -> Tensor:
        """Two independent views (2N, 1, *space) of images (N, channels, *space)."""
        return torch.cat([self._view(batch), self._view(batch)])

    def training_step(self, views: Tensor) -> Tensor:
        return self.logged(self._loss(self.features(views), None))


class Segmentation(Stage):
    """Stage 3: cross entropy + Dice on labelled slices; logs the mean Dice of the validation volumes.

    The mean is over the classes of the numbers `judged`: one that no validation volume holds cannot be found in them.
    `history` holds what each validation found: after how many steps, and the Dice.
    """

    def __init__(self, network: UNet, options: SegmentationOptions, card: ModelCard, seed: int) -> None:
        super().__init__(options.schedule, card, seed)
        self.network = network
        self.local_weight = options.local_weight
        self.local_warm_up = options.local_warm_up
        self.level = options.local_level if options.local_weight > 0 else 0
        self.mixup = options.mixup
        self.projection: nn.Module = nn.Identity()
        if options.local_weight > 0:
            self.projection = _point_projection(options, card, self.level)
        self.queue: ClassQueue | None = None
        if options.local_weight > 0 and options.local_queue > 0:
            self.queue = class_queue(len(card.classes), options.local_queue, options.channels)
        self._loss = segmentation_loss(card.ignores)
        self._local_loss = local_contrast(options.loss, card.ignores)
        self._view = LabelledViews(options.augmentation, card.grid.voxel_size, card.outside)
        self._dice = MeanMetric()
        self.judged = list(range(1, len(card.classes)))
        self.history: list[tuple[int, float]] = []

    def views(self, batch: Any) -> Any:
        """A view, a `Mix`, of images (N, channels, *space) and their labels (N, *space), mixed where Mixup is on."""
        images, labels = self._view(*batch)
        return mixed(images, labels, self.mixup)

    @property
    def trained(self) -> UNet:
        """The network that the loss moves."""
        return self.network

    def training_step(self, mix: Any) -> Tensor:
        return self.logged(self.supervised_loss(mix))

    def supervised_loss(self, mix: Mix) -> Tensor:
        """Cross entropy + Dice, and the local contrastive term where it has a weight."""
        features, scores = self.features_and_scores(mix.images)
        loss = mix.loss(lambda labels: self._loss(scores, labels[:, None]))
        if self.local_weight > 0:
            points = self.projection(features)
            loss = loss + self.local_weight * mix.loss(lambda labels: self.local_term(points, labels))
            self.remember(points, mix.labels)
        return loss

    def features_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The map (N, channels, *space) that the local term sees, and the scores (N, classes, *space)."""
        maps, decoder = self.trained.encoder(images), self.trained.decoder
        if self.level == 0:
            last = features = decoder(maps)
        else:
            pyramid = decoder.pyramid(maps)
            last, features = pyramid[0], pyramid[self.level]
        return features, self.trained.classifier(last)

    def local_term(self, points: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """The local contrastive term, 0 before its first epoch.

        Args:
            points: (N, channels, *space), projected, at the resolution of the term.
            labels: (N, *space) at full resolution, int64, `IGNORED` where a point has no part in it.
            weights: (N, *space) of points as anchors; None where all are alike.
        """
        if self.current_epoch < self.local_warm_up:
            return (0 * points).sum()  # of several devices each waits for the gradient of every parameter
        space = points.shape[2:]
        return self._local_loss(
            points[:, None],
            at_scale(labels, space)[:, None],
            weights=None if weights is None else at_scale(weights, space)[:, None],
            **({} if self.queue is None else self.queue.keys()),
        )

    def remember(self, points: Tensor, labels: Tensor) -> None:
        """Put the class means of points and their true labels, as of `local_term`, into the queue, if there is one."""
        if self.queue is not None and self.current_epoch >= self.local_warm_up:
            means = class_means(points, at_scale(labels, points.shape[2:]), self.queue.classes)
            self.queue.push(*means)

    def validation_step(self, volume: LabelledVolume) -> Tensor:
        probabilities = class_probabilities(self.network, volume.image, self.card.grid.patch_size)
        prediction = probabilities.argmax(0).cpu()
        dice = dice_per_class(prediction, volume.label.cpu(), len(self.card.classes))
        self._dice.update(dice[[number - 1 for number in self.judged]].mean().to(self.device))
        return prediction

    def on_validation_epoch_end(self) -> None:
        dice = float(self._dice.compute())
        self._dice.reset()
        self.log(VALIDATION_DICE, dice, sync_dist=True)
        self.history.append((self.global_step, dice))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
