"""Mixup: images blended in pairs, and the labels of both (Zhang et al., ICLR 2018)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta


class Mix(NamedTuple):
    """Blended images (N, 1, *space), the labels (N, *space) of both sides, and the first side's share."""

    images: Tensor
    labels: Tensor
    other_labels: Tensor
    share: float

    def loss(self, of_labels: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss of each side's labels, weighed by its share."""
        if self.share == 1:
            return of_labels(self.labels)
        return self.share * of_labels(self.labels) + (1 - self.share) * of_labels(self.other_labels)


def mixed(images: Tensor, labels: Tensor, alpha: float) -> Mix:
    """Blend each image with another of the batch, by one share from Beta(alpha, alpha); alpha 0 blends nothing."""
    if alpha == 0:
        return Mix(images, labels, labels, 1.0)
    share = float(Beta(alpha, alpha).sample())
    order = torch.randperm(len(images), device=images.device)
    return Mix(share * images + (1 - share) * images[order], labels, labels[order], share)
