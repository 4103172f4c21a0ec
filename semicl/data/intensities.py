"""A volume's intensities on its own scale, and whether anything is left of them there."""

import numpy as np

PERCENTILES = (0.5, 99.5)
"""Where the scale of a volume begins and ends."""

BINS = 100
"""Of the scale, to see where the voxels lie."""

FINE_BINS = 1_000_000
"""Where one value is background: a structure of about one intensity in it is none that outliers have squashed."""

FEW_BINS = 4
"""A part of the scale in which tissue shows next to nothing: two ends, and a middle that may lie on a border."""

ALMOST_ALL = 0.999
"""Of the voxels."""

FEW_VALUES = 10
"""As many values may lie in so few bins, as in an image that is a mask."""


def scaled(array: np.ndarray) -> np.ndarray:
    """A volume's intensities in [0, 1] float32, on its own scale, because scanners agree on no unit.

    From the 0.5th to the 99.5th percentile; where these are one value, as in a volume that is empty but for a thin
    vessel, from the smallest to the largest. A volume of one value becomes 0.
    """
    clipped = _clipped(array)
    low, high = clipped.min(), clipped.max()
    if low == high:
        return np.zeros(array.shape, np.float32)
    return ((clipped - low) / (high - low)).astype(np.float32)


def squashed(array: np.ndarray) -> bool:
    """Whether the scale of a volume is that of outliers, beside which all else is about one value.

    A value that half of the voxels or more have is that of the background, and only the others are judged.
    """
    clipped = _clipped(array)
    if not _in_few_bins(clipped, np.ones_like(clipped), BINS):  # at once, as of every good volume
        return False
    values, counts = np.unique(clipped, return_counts=True)
    bins = BINS
    if counts.max() >= clipped.size / 2:
        bins, counts[counts.argmax()] = FINE_BINS, 0
    return values.size > FEW_VALUES and _in_few_bins(values, counts, bins)


def _in_few_bins(values: np.ndarray, counts: np.ndarray, bins: int) -> bool:
    held = np.sort(np.histogram(values, bins, weights=counts)[0])
    return bool(held[-FEW_BINS:].sum() >= ALMOST_ALL * counts.sum())


def _clipped(array: np.ndarray) -> np.ndarray:
    """The volume in float64, cut where its scale ends."""
    values = _as_float64(array)
    low, high = np.percentile(values, PERCENTILES)
    return values.clip(low, high) if low < high else values


def _as_float64(array: np.ndarray) -> np.ndarray:
    """Numbers as float64; of 64-bit integers the differences from their median, which float64 tells apart."""
    if array.dtype.kind == "f" or array.dtype.itemsize < 8:
        return array.astype(np.float64)
    median = np.partition(array, array.size // 2, axis=None)[array.size // 2]
    exact = np.subtract(array, median, dtype=np.uint64, casting="unsafe").view(np.int64)
    rounded = array.astype(np.float64) - float(median)
    return np.where(np.abs(rounded) < 2.0**62, exact, rounded)
