"""A 2-D U-Net with its encoder and decoder apart, because the stages train different parts of it.

The blocks are those of MONAI's `BasicUNet`; its widths (64, 128, 256, 512, 1024, 64) give the 31.1 M parameters of the
authors' network.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

_ACTIVATION = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
_NORM = ("instance", {"affine": True})


class Encoder(nn.Module):
    """Slices (N, 1, H, W) to five maps: (N, widths[k], H / 2**k, W / 2**k) for k = 0, ..., 4."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = TwoConv(2, 1, widths[0], _ACTIVATION, _NORM, bias=True)
        self.levels = nn.ModuleList(Down(2, widths[k], widths[k + 1], _ACTIVATION, _NORM, bias=True) for k in range(4))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps


class Decoder(nn.Module):
    """The encoder's five maps to one map (N, widths[5], H, W)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        outputs = (*widths[3:0:-1], widths[5])
        inputs = (widths[4], *outputs[:3])
        self.levels = nn.ModuleList(
            UpCat(2, inputs[k], widths[3 - k], outputs[k], _ACTIVATION, _NORM, bias=True, halves=k < 3)
            for k in range(4)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for level, skip in zip(self.levels, reversed(maps[:-1]), strict=True):
            x = level(x, skip)
        return x


class UNet(nn.Module):
    """Slices (N, 1, H, W) to class scores (N, classes, H, W), before softmax."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(widths)
        self.decoder = Decoder(widths)
        self.classifier = nn.Conv2d(widths[5], classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.decoder(self.encoder(images)))


class SliceProjection(nn.Module):
    """The encoder's deepest map (N, C, h, w) to one vector a slice, (N, channels)."""

    def __init__(self, inputs: int, channels: int = 128) -> None:
        super().__init__()
        # Instance norm has set each channel's mean, so averaging comes after a layer that mixes the channels.
        self.mix = nn.Sequential(nn.Conv2d(inputs, inputs, kernel_size=1), nn.ReLU())
        self.project = nn.Linear(inputs, channels)

    def forward(self, deepest: Tensor) -> Tensor:
        return self.project(self.mix(deepest).mean((2, 3)))


class PixelProjection(nn.Module):
    """The decoder's map (N, C, H, W) to one vector a pixel, (N, channels, H, W), by 1x1 convolutions."""

    def __init__(self, inputs: int, channels: int = 64) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(inputs, channels, kernel_size=1), nn.ReLU(), nn.Conv2d(channels, channels, kernel_size=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features)


def new_unet(widths: Sequence[int], classes: int, seed: int) -> UNet:
    """A U-Net with the random initial weights of the seed; the random state of the caller is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(widths, classes)
