"""Numbers that are whole but for rounding are told from those that are not."""

import numpy as np
import pytest

from semicl.data.checks import whole_values


@pytest.mark.parametrize(
    ("label", "whole", "broken"),
    [
        (np.array([0, 3, 255], np.uint8), [0, 3, 255], []),
        (np.array([-1, 70000], np.int32), [-1, 70000], []),
        (np.array([0.0, -0.0, 1.0000000149, 0.9999, 1.0]), [0, 1], []),
        (np.array([0.0, 1.0015, 0.5, 2.0], np.float32), [0, 2], [0.5, 1.0015]),
    ],
)
def test_whole_and_broken(label: np.ndarray, whole: list[int], broken: list[float]) -> None:
    found = whole_values(label)
    np.testing.assert_array_equal(found[0], whole)
    np.testing.assert_allclose(found[1], broken)
