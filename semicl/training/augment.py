"""Random views, made in batches on the network's device: positions, then intensities (Kornia).

Every call gives new views in memory of their own; labels move with their points and stay whole numbers. Views are plain
objects, not modules: Kornia keeps its ranges in buffers, which are no part of what a stage learns.
"""

from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
from torch import Tensor

from semicl.options import AugmentationOptions
from semicl.training.spatial import moved_images, moved_labels, random_grid


class Intensities:
    """Random gamma, brightness, contrast and noise of images (N, 1, *space) in [0, 1], a choice for each."""

    def __init__(self, options: AugmentationOptions) -> None:
        around = (1 - options.intensity, 1 + options.intensity)
        changes: list[Any] = []
        if options.intensity > 0:
            changes += [
                K.RandomGamma((1 - options.intensity, 1 + 2 * options.intensity), p=0.8),
                K.RandomBrightness(around, p=0.8),
                K.RandomContrast(around, p=0.8),
            ]
        if options.noise > 0:
            changes.append(K.RandomGaussianNoise(mean=0.0, std=options.noise, p=0.5))
        self._changes = changes

    def __call__(self, images: Tensor) -> Tensor:
        """Changed images, in memory of their own."""
        # A change of intensity does not ask where a voxel lies, so that Kornia's 2-D ones serve volumes too.
        changed = images.flatten(2, -2).clone()
        for change in self._changes:
            changed = change.to(changed.device)(changed)
        return changed.view_as(images)


class ImageViews:
    """Views of images without labels, whose voxels have a size where they are no cubes."""

    def __init__(self, options: AugmentationOptions, voxel_size: Sequence[float] | None = None) -> None:
        self._options = options
        self._voxel_size = voxel_size
        self._intensities = Intensities(options)

    def __call__(self, images: Tensor) -> Tensor:
        """A view of images (N, 1, *space) float32."""
        return self._intensities(moved_images(images, random_grid(images, self._options, self._voxel_size)))


class LabelledViews:
    """Views of images with labels, whose voxels have a size where they are no cubes."""

    def __init__(self, options: AugmentationOptions, voxel_size: Sequence[float] | None = None) -> None:
        self._options = options
        self._voxel_size = voxel_size
        self._intensities = Intensities(options)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A view of images (N, 1, *space) float32 and their class numbers (N, *space), the latter as int64."""
        grid = random_grid(images, self._options, self._voxel_size)
        return self._intensities(moved_images(images, grid)), moved_labels(labels, grid)
