"""Random views, made in batches on the network's device: positions, then intensities (Kornia); and Mixup.

Every call gives new views in memory of their own; labels move with their points and stay whole numbers. Views are plain
objects, not modules: Kornia keeps its ranges in buffers, which are no part of what a stage learns. Kornia moves 2-D
maps only; here one sampling grid serves slices and patches, images and labels.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import kornia.augmentation as K
import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import affine_grid, grid_sample, interpolate

from semicl.options import AugmentationOptions


class Intensities:
    """Random gamma, brightness, contrast and noise of images (N, channels, *space) in [0, 1], a choice for each."""

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
        """A view of images (N, channels, *space) float32."""
        return self._intensities(moved_images(images, random_grid(images, self._options, self._voxel_size)))


class LabelledViews:
    """Views of images with labels, whose voxels have a size where they are no cubes.

    What comes from outside of an image has the class number `outside`.
    """

    def __init__(
        self, options: AugmentationOptions, voxel_size: Sequence[float] | None = None, outside: int = 0
    ) -> None:
        self._options = options
        self._voxel_size = voxel_size
        self._outside = outside
        self._intensities = Intensities(options)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A view of images (N, channels, *space) float32 and their class numbers (N, *space), the latter as int64."""
        grid = random_grid(images, self._options, self._voxel_size)
        return self._intensities(moved_images(images, grid)), moved_labels(labels, grid, self._outside)


ANISOTROPY = 3
"""Ratio of a patch's sides, or of its voxels', from which nnU-Net moves it within a plane alone."""

BUMPS = 4
"""Random displacements an axis of an elastic change; smooth in between."""


def random_grid(images: Tensor, options: AugmentationOptions, voxel_size: Sequence[float] | None = None) -> Tensor:
    """Where each point of a view lies in its image: (N, *space, dimensions), in [-1, 1], for `grid_sample`.

    A patch of space is moved within the plane of its other axes where one is anisotropic (`anisotropic`), as in
    nnU-Net: turned about another axis, a thin patch would leave its own field of view.

    Args:
        images: (N, channels, *space), 2-D or 3-D.
        options: rotation, shift, scale, elastic.
        voxel_size: along each axis of space, in any unit; None where voxels are cubes.
    """
    count, dimensions = len(images), images.dim() - 2
    voxels = (1.0,) * dimensions if voxel_size is None else tuple(voxel_size)[-dimensions:]
    # grid_sample names the last axis first.
    fixed = torch.tensor(anisotropic(images.shape[2:], voxels)[::-1], device=images.device)
    shift = 2 * options.shift * _symmetric((count, dimensions, 1), images) * ~fixed[:, None]
    linear = _linear(images, options, voxels, fixed)
    grid = affine_grid(torch.cat([linear, shift], 2), list(images.shape), align_corners=False)
    if options.elastic == 0:
        return grid
    coarse = 2 * options.elastic * torch.randn(count, dimensions, *(BUMPS,) * dimensions, device=images.device)
    smooth = interpolate(coarse, images.shape[2:], mode="bicubic" if dimensions == 2 else "trilinear")
    return grid + smooth.movedim(1, -1) * ~fixed


def anisotropic(space: Sequence[int], voxel_size: Sequence[float]) -> tuple[bool, ...]:
    """Which axes of a patch of space are too short, or their voxels too long, beside the others; none of a slice."""
    if len(space) == 2:
        return (False, False)
    return tuple(
        max(space) / side > ANISOTROPY or length / min(voxel_size) > ANISOTROPY
        for side, length in zip(space, voxel_size, strict=True)
    )


def moved_images(images: Tensor, grid: Tensor) -> Tensor:
    """Images (N, channels, *space) seen through a grid, interpolated; what comes from outside is 0."""
    return grid_sample(images, grid, mode="bilinear", align_corners=False)


def moved_labels(labels: Tensor, grid: Tensor, outside: int = 0) -> Tensor:
    """Class numbers (N, *space) seen through a grid, by nearest neighbour, int64; `outside` is what lies there."""
    # Class numbers are small whole numbers, which float32 holds exactly.
    numbers = labels[:, None].float() - outside
    return grid_sample(numbers, grid, mode="nearest", align_corners=False)[:, 0].long() + outside


def _symmetric(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return 2 * torch.rand(shape, device=like.device) - 1


def _linear(images: Tensor, options: AugmentationOptions, voxel_size: Sequence[float], fixed: Tensor) -> Tensor:
    """A rotation and a magnification for each image, (N, dimensions, dimensions), in millimeters, of axes not fixed."""
    count, dimensions = len(images), images.dim() - 2
    low, high = options.scale
    magnification = low + (high - low) * torch.rand(count, 1, 1, device=images.device)
    # grid_sample measures each axis by half its own length.
    lengths = [side * voxel for side, voxel in zip(images.shape[2:], voxel_size, strict=True)][::-1]
    sizes = torch.tensor(lengths, dtype=torch.float32, device=images.device)
    angles = math.radians(options.rotation) * _symmetric((count, len(_planes(dimensions))), images)
    turns = torch.tensor([not (fixed[first] or fixed[second]) for first, second in _planes(dimensions)])
    in_mm = _rotation(angles * turns.to(angles.device), dimensions) / magnification
    in_mm = torch.where(fixed[:, None] & fixed, torch.eye(dimensions, device=images.device), in_mm)
    return in_mm * sizes[None, None, :] / sizes[None, :, None]


def _planes(dimensions: int) -> list[tuple[int, int]]:
    """The pairs of axes: one in two dimensions, three in space."""
    return list(combinations(range(dimensions), 2))


def _rotation(angles: Tensor, dimensions: int) -> Tensor:
    """Rotations (N, dimensions, dimensions) by one angle in each plane, angles (N, planes) in radians."""
    identity = torch.eye(dimensions, device=angles.device).repeat(len(angles), 1, 1)
    rotation = identity
    for angle, (first, second) in zip(angles.T, _planes(dimensions), strict=True):
        turn = identity.clone()
        turn[:, first, first] = turn[:, second, second] = angle.cos()
        turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
        rotation = rotation @ turn
    return rotation


class Mix(NamedTuple):
    """Blended images (N, channels, *space), the labels (N, *space) of both sides, and the first side's share."""

    images: Tensor
    labels: Tensor
    other_labels: Tensor
    share: float

    def loss(self, of_labels: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss of each side's labels, weighed by its share."""
        if self.other_labels is self.labels:  # not by the share: all devices then call the loss equally often
            return of_labels(self.labels)
        return self.share * of_labels(self.labels) + (1 - self.share) * of_labels(self.other_labels)


def mixed(images: Tensor, labels: Tensor, alpha: float) -> Mix:
    """Blend each image with another of the batch, by one share from Beta(alpha, alpha); alpha 0 blends nothing."""
    if alpha == 0:
        return Mix(images, labels, labels, 1.0)
    share = float(Beta(alpha, alpha).sample())
    order = torch.randperm(len(images), device=images.device)
    return Mix(share * images + (1 - share) * images[order], labels, labels[order], share)
