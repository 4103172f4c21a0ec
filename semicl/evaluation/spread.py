"""Mean and deviation of a few values, for files and for tables. One value has no deviation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semicl.data.classes import ABSENT


def spread(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation, None where there is none; not rounded, since tables round what they show.

    NaN stands for a class that no label holds, and is left out.
    """
    there = [float(value) for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(there)) if there else None,
        "deviation": float(np.std(there)) if len(there) > 1 else None,
    }


def shown(values: Sequence[float] | np.ndarray) -> str:
    """The same as text: "0.812 ± 0.034", and a dash for what there is none of."""
    found = spread(values)
    mean, deviation = (ABSENT if value is None else f"{value:.3f}" for value in found.values())
    return mean if found["mean"] is None else f"{mean} ± {deviation}"
