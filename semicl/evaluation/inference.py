"""Class probabilities of whole volumes, by MONAI's inferers: patch by patch with overlap, in slices or in space."""

from collections.abc import Callable, Sequence

import torch
from monai.inferers.inferer import SliceInferer, SlidingWindowInferer
from torch import Tensor, nn

from semicl.models.unet import UNet

AT_ONCE = 32
"""Slices at once, which bounds the memory of a prediction; more is no faster."""

PATCHES_AT_ONCE = 4
OVERLAP = 0.5


def _inferer(patch_size: Sequence[int]) -> SliceInferer | SlidingWindowInferer:
    if len(patch_size) == 2:
        return SliceInferer(0, patch_size, sw_batch_size=AT_ONCE, overlap=OVERLAP, mode="gaussian")
    return SlidingWindowInferer(patch_size, sw_batch_size=PATCHES_AT_ONCE, overlap=OVERLAP, mode="gaussian")


@torch.no_grad()
def class_probabilities(network: UNet, image: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Probabilities (C, depth, height, width) float32 of an image (depth, height, width), on the network's device."""
    return _over_volume(lambda patch: network(patch).float().softmax(1), network, image, patch_size)


@torch.no_grad()
def point_features(network: UNet, image: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The decoder's features (C, depth, height, width) of an image (depth, height, width)."""
    return _over_volume(lambda patch: network.decoder(network.encoder(patch)), network, image, patch_size)


def _over_volume(
    function: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor, patch_size: Sequence[int]
) -> Tensor:
    device = next(network.parameters()).device
    return _inferer(patch_size)(image[None, None].to(device), function)[0]
