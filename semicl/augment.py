"""Random views of slices, made in batches on the device of the network.

Positions and intensities change; labels move with their pixels, by nearest neighbour, and stay whole numbers.
"""

from typing import Any

import kornia.augmentation as K
from torch import Tensor


def _transforms(degrees: float, shift: float, scale: tuple[float, float], strength: float) -> list[Any]:
    """A pose, then an intensity curve, then noise; `strength` is the spread of the intensity changes."""
    spread = (1 - strength, 1 + strength)
    return [
        K.RandomAffine(degrees, (shift, shift), scale, p=0.9),
        K.RandomGamma((1 - strength, 1 + 2 * strength), p=0.8),
        K.RandomBrightness(spread, p=0.8),
        K.RandomContrast(spread, p=0.8),
        K.RandomGaussianNoise(mean=0.0, std=0.05, p=0.5),
    ]


class ImageViews:
    """Views of slices without labels, strong enough that two of them share the anatomy and little else (SimCLR)."""

    def __init__(self) -> None:
        self._augment = K.AugmentationSequential(*_transforms(20, 0.1, (0.8, 1.2), 0.4), data_keys=["input"])

    def __call__(self, images: Tensor) -> Tensor:
        """A view of images (N, 1, H, W) float32, in memory of its own."""
        return self._augment(images.clone())


class LabelledViews:
    """Views of slices with labels."""

    def __init__(self) -> None:
        self._augment = K.AugmentationSequential(
            *_transforms(15, 0.08, (0.85, 1.15), 0.25), data_keys=["input", "mask"]
        )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A view of images (N, 1, H, W) float32 and their labels (N, H, W) int64, both in memory of their own."""
        # Kornia moves floating point masks only; labels are small whole numbers, which float32 holds exactly.
        image, mask = self._augment(images.clone(), labels[:, None].to(images.dtype))
        return image, mask[:, 0].round().long()
