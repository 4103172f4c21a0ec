"""What the network sees of a volume: the size of its slices or patches, and the voxel size."""

from dataclasses import dataclass

MOST_CLASSES = 256
"""Class numbers are uint8."""

LARGEST_VALUE = 2**24
"""Label files are resampled as float32, which holds every whole number up to here."""


@dataclass(frozen=True)
class Grid:
    """What the network sees.

    Args:
        patch_size: (height, width) of a slice, or (depth, height, width) of a patch.
        spacing: voxel size in mm along right, anterior and superior; None leaves it as it is.
    """

    patch_size: tuple[int, ...]
    spacing: tuple[float, float, float] | None = None
