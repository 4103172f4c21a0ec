"""A U-Net, 2-D or 3-D, with its encoder and decoder apart, because the stages train different parts of it.

The blocks are those of MONAI's `BasicUNet`; levels (64, 128, 256, 512, 1024) give the 31.1 M parameters of the authors'
network.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

_ACTIVATION = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
_NORM = ("instance", {"affine": True})


class Encoder(nn.Module):
    """Images (N, channels, *space) to one map a level: (N, levels[k], *space / 2**k)."""

    def __init__(self, dimensions: int, levels: Sequence[int], channels: int = 1) -> None:
        super().__init__()
        self.stem = TwoConv(dimensions, channels, levels[0], _ACTIVATION, _NORM, bias=True)
        self.levels = nn.ModuleList(
            Down(dimensions, levels[k], levels[k + 1], _ACTIVATION, _NORM, bias=True) for k in range(len(levels) - 1)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps


class Decoder(nn.Module):
    """The encoder's maps to one map (N, levels[0], *space), whose sides halve once a level without a rest."""

    def __init__(self, dimensions: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            UpCat(
                dimensions,
                levels[k + 1],
                levels[k],
                levels[k],
                _ACTIVATION,
                _NORM,
                bias=True,
                halves=k > 0,
                is_pad=False,
            )
            for k in reversed(range(len(levels) - 1))
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.pyramid(maps)[0]

    def pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """One map a level, as the encoder's: (N, levels[k], *space / 2**k); the deepest is the encoder's own."""
        pyramid = [maps[-1]]
        for level, skip in zip(self.levels, reversed(maps[:-1]), strict=True):
            pyramid.append(level(pyramid[-1], skip))
        return pyramid[::-1]


class UNet(nn.Module):
    """Images (N, channels, *space) to class scores (N, classes, *space), before softmax.

    Args:
        dimensions: of space, 2 or 3.
        levels: channels of each level, from full resolution down.
        classes: the background included.
        channels: of the images.
    """

    def __init__(self, dimensions: int, levels: Sequence[int], classes: int, channels: int = 1) -> None:
        super().__init__()
        self.encoder = Encoder(dimensions, levels, channels)
        self.decoder = Decoder(dimensions, levels)
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.classifier = convolution(levels[0], classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.decoder(self.encoder(images)))


def new_unet(dimensions: int, levels: Sequence[int], classes: int, seed: int, channels: int = 1) -> UNet:
    """A U-Net with the random initial weights of the seed; the random state of the caller is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(dimensions, levels, classes, channels)
