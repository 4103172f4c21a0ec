"""FixMatch with CutMix: pseudo-labels of a weak view supervise a strong view of unlabelled images.

Sohn et al., NeurIPS 2020; for segmentation French et al., BMVC 2020, and Yang et al., CVPR 2023 (UniMatch) and TPAMI
2025 (UniMatch V2, whose pseudo-labels are a teacher's). Beside its labelled batch, every step takes images of the
training volumes without a label in use. The weak view moves points alone; the strong view is the weak one with other
intensities and, in a box, the next image of the batch. The teacher's classes of the weak view, where their probability
reaches the confidence, are the labels of the strong one. The loss on them is added by a weight that grows to its full
value. The local contrastive term, where it has a weight, compares the points of labelled and strong views with each
other.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from semicl.data.classes import IGNORED
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import SegmentationOptions
from semicl.training.augment import Intensities, Mix, moved_images, random_grid
from semicl.training.losses import grown
from semicl.training.teacher import WithTeacher

SURE = "share_above_confidence"
"""Of the pseudo-labels of an epoch, in the logs."""

PSEUDO_LOSS = "pseudo_label_loss"

SHORTEST, LONGEST = 0.25, 0.75
"""Sides of a pasted box, as a share of the image's."""


class Views(NamedTuple):
    """Weak and strong views (N, channels, *space), and where a strong one shows the next image: (N, 1, *space) bool."""

    weak: Tensor
    strong: Tensor
    pasted: Tensor


class PseudoLabels(NamedTuple):
    """Classes of the points of strong views, int64, their probabilities, and whether these suffice: (N, *space)."""

    labels: Tensor
    confidence: Tensor
    sure: Tensor


class WeakToStrong(WithTeacher):
    """Stage 3 with a teacher's pseudo-labels of unlabelled images."""

    def __init__(self, network: UNet, options: SegmentationOptions, card: ModelCard, seed: int) -> None:
        super().__init__(network, options, card, seed, options.fixmatch.decay)
        self._options = options.fixmatch
        self._augmentation = options.augmentation
        strong = replace(options.augmentation, intensity=options.fixmatch.intensity, noise=options.fixmatch.noise)
        self._intensities = Intensities(strong)
        self._local_loss.ignore_index = IGNORED

    @property
    def unlabelled_batch_size(self) -> int:
        return self._options.batch_size or self.schedule.batch_size

    def views(self, batch: Any) -> Any:
        """The labelled batch as in `Segmentation`, and views of the other images (N, channels, *space)."""
        labelled, images = batch
        weak = moved_images(images, random_grid(images, self._augmentation, self.card.grid.voxel_size))
        pasted = random_boxes(weak, self._options.cutmix)
        return super().views(labelled), Views(weak, with_next(self._intensities(weak), pasted), pasted)

    def training_step(self, batch: tuple[Mix, Views]) -> Tensor:
        mix, views = batch
        pseudo = self.pseudo_labels(views)
        count = len(mix.images)
        features, scores = self.features_and_scores(torch.cat([mix.images, views.strong]))
        added = pseudo_label_loss(scores[count:], pseudo)
        self.note(SURE, pseudo.sure.float().mean())
        self.note(PSEUDO_LOSS, added)
        weight = self._options.weight * grown(self.done, self._options.ramp_up)
        loss = self._loss(scores[:count], mix.labels[:, None]) + weight * added
        if self.local_weight > 0:
            points = self.projection(features)
            loss = loss + self.local_weight * self.local_term(points, *self.contrasted(mix.labels, pseudo))
            self.remember(points[:count], mix.labels)
        return self.logged(loss)

    def contrasted(self, labels: Tensor, pseudo: PseudoLabels) -> tuple[Tensor, Tensor | None]:
        """Classes and weights of the points that the local term compares: of labelled, then of strong views."""
        if self._options.unsure == "ignored":
            return torch.cat([labels, pseudo.labels.where(pseudo.sure, IGNORED)]), None
        known = torch.ones(labels.shape, device=labels.device)
        return torch.cat([labels, pseudo.labels]), torch.cat([known, pseudo.confidence])

    @torch.no_grad()
    def pseudo_labels(self, views: Views) -> PseudoLabels:
        """What the teacher makes of the weak views, laid out as the strong ones are."""
        confidence, labels = self.network(views.weak).float().softmax(1).max(1, keepdim=True)
        confidence, labels = (with_next(each, views.pasted)[:, 0] for each in (confidence, labels))
        return PseudoLabels(labels, confidence, confidence >= self._options.confidence)


def random_boxes(images: Tensor, chance: float) -> Tensor:
    """A box for each image (N, channels, *space), by this chance, else none: (N, 1, *space) bool."""
    count, _, *space = images.shape
    inside = (torch.rand(count, device=images.device) < chance).view(count, 1, *[1] * len(space))
    for axis, length in enumerate(space):
        side = SHORTEST + (LONGEST - SHORTEST) * torch.rand(count, 1, device=images.device)
        begin = (1 - side) * torch.rand(count, 1, device=images.device)
        place = (torch.arange(length, device=images.device) + 0.5) / length
        within = (place >= begin) & (place < begin + side)
        inside = inside & within.view(count, 1, *(length if each == axis else 1 for each in range(len(space))))
    return inside


def with_next(maps: Tensor, pasted: Tensor) -> Tensor:
    """Maps (N, channels, *space), each with its box of the next one; the next of the last is the first."""
    return torch.where(pasted, maps.roll(-1, 0), maps)


def pseudo_label_loss(scores: Tensor, pseudo: PseudoLabels) -> Tensor:
    """Cross entropy of scores (N, classes, *space) at the sure points, as a sum over the number of all points.

    So few sure points weigh little, and none give 0. There is no Dice loss: it is a share of each class in an image,
    so that a few points which are wrongly taken for a class weigh as much as a whole organ, and grow.
    """
    return (cross_entropy(scores.float(), pseudo.labels, reduction="none") * pseudo.sure).mean()
