"""Random changes of position, one for each image of a batch, on the device of the batch.

Kornia moves 2-D maps only; here one sampling grid serves slices and patches, images and labels.
"""

import math
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from semicl.options import AugmentationOptions

BUMPS = 4
"""Random displacements an axis of an elastic change; smooth in between."""


def random_grid(images: Tensor, options: AugmentationOptions) -> Tensor:
    """Where each point of a view lies in its image: (N, *space, dimensions), in [-1, 1], for `grid_sample`.

    Args:
        images: (N, 1, *space), 2-D or 3-D.
        options: rotation, shift, scale, elastic.
    """
    count, dimensions = len(images), images.dim() - 2
    shift = 2 * options.shift * _symmetric((count, dimensions, 1), images)
    grid = affine_grid(torch.cat([_linear(images, options), shift], 2), list(images.shape), align_corners=False)
    if options.elastic == 0:
        return grid
    coarse = 2 * options.elastic * torch.randn(count, dimensions, *(BUMPS,) * dimensions, device=images.device)
    smooth = interpolate(coarse, images.shape[2:], mode="bicubic" if dimensions == 2 else "trilinear")
    return grid + smooth.movedim(1, -1)


def moved_images(images: Tensor, grid: Tensor) -> Tensor:
    """Images (N, 1, *space) seen through a grid, interpolated; what comes from outside is 0."""
    return grid_sample(images, grid, mode="bilinear", align_corners=False)


def moved_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """Class numbers (N, *space) seen through a grid, by nearest neighbour, int64; what comes from outside is 0."""
    # Class numbers are small whole numbers, which float32 holds exactly.
    return grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()


def _symmetric(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return 2 * torch.rand(shape, device=like.device) - 1


def _linear(images: Tensor, options: AugmentationOptions) -> Tensor:
    """A rotation and a magnification for each image, (N, dimensions, dimensions), in voxels of equal size."""
    count, dimensions = len(images), images.dim() - 2
    low, high = options.scale
    magnification = low + (high - low) * torch.rand(count, 1, 1, device=images.device)
    # grid_sample names the last axis first, and measures each axis by half its own length.
    sizes = torch.tensor(images.shape[:1:-1], dtype=torch.float32, device=images.device)
    angles = math.radians(options.rotation) * _symmetric((count, len(_planes(dimensions))), images)
    in_voxels = _rotation(angles, dimensions) / magnification
    return in_voxels * sizes[None, None, :] / sizes[None, :, None]


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
