"""Projection heads: what a contrastive loss sees of the features; thrown away after the stage."""

from torch import Tensor, nn


def _convolution(dimensions: int, inputs: int, outputs: int) -> nn.Module:
    """A convolution of size 1, which treats every point alike."""
    return (nn.Conv2d if dimensions == 2 else nn.Conv3d)(inputs, outputs, kernel_size=1)


class ImageProjection(nn.Module):
    """The encoder's deepest map (N, inputs, *space) to one vector an image, (N, channels)."""

    def __init__(self, dimensions: int, inputs: int, channels: int) -> None:
        super().__init__()
        # Instance norm has set each channel's mean, so averaging comes after a layer that mixes the channels.
        self.mix = nn.Sequential(_convolution(dimensions, inputs, inputs), nn.ReLU())
        self.project = nn.Linear(inputs, channels)

    def forward(self, deepest: Tensor) -> Tensor:
        return self.project(self.mix(deepest).flatten(2).mean(2))


class PointProjection(nn.Module):
    """The decoder's map (N, inputs, *space) to one vector a point, (N, channels, *space).

    Args:
        dimensions: of space, 2 or 3.
        inputs: channels of the map.
        channels: of the vectors, and of all layers but the first.
        layers: convolutions of size 1, with a ReLU between two; 1 makes the projection linear.
    """

    def __init__(self, dimensions: int, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        self.project = nn.Sequential(_convolution(dimensions, inputs, channels))
        for _ in range(layers - 1):
            self.project.extend([nn.ReLU(), _convolution(dimensions, channels, channels)])

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features)
