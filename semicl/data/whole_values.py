"""Which numbers of a label file count as which label values.

Programs store labels as floating point too, with a scale in the header: 1 may come back as 1.0000000149.
"""

import numpy as np

ROUNDING = 1e-3
"""A number nearer than this to a whole one is meant to be it."""


def whole_values(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a label map: first the whole ones, rounded, then those that are not whole."""
    values = np.unique(label)
    rounded = np.round(values)
    is_whole = np.abs(values - rounded) < ROUNDING
    return np.unique(rounded[is_whole]), values[~is_whole]
