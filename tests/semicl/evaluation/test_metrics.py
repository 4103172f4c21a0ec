"""Measures are those of whole volumes in millimetres, and defined where a class is missing."""

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from torch import Tensor

from semicl.evaluation import metrics
from semicl.evaluation.metrics import agreement, dice_per_class

SPACING = (1.0, 2.0, 3.0)
SHAPE = (10, 10, 10)
DIAGONAL = float(np.linalg.norm(np.array(SHAPE) * np.array(SPACING)))


def _volume(*values: int) -> Tensor:
    return torch.tensor(values).view(2, 1, -1)


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ([0, 1, 1, 2, 2, 0], [0, 1, 1, 2, 2, 0], [1, 1]),
        ([0, 1, 1, 1, 2, 0], [0, 1, 1, 2, 2, 0], [4 / 5, 2 / 3]),
        ([1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 1]),
        ([0, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 0], [0, 0]),
    ],
    ids=["perfect", "by hand", "disjoint and absent from both", "missed and invented"],
)
def test_dice(prediction: list[int], label: list[int], expected: list[float]) -> None:
    dice = dice_per_class(_volume(*prediction), _volume(*label), classes=3)
    torch.testing.assert_close(dice, torch.tensor(expected, dtype=torch.float32))


def _cube(start: tuple[int, int, int]) -> Tensor:
    volume = torch.zeros(SHAPE, dtype=torch.long)
    volume[tuple(slice(s, s + 3) for s in start)] = 1
    return volume


@pytest.mark.parametrize(("axis", "millimetres"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_distances_are_in_millimetres(axis: int, millimetres: float) -> None:
    moved = [2, 2, 2]
    moved[axis] += 1
    found = agreement(_cube((moved[0], moved[1], moved[2])), _cube((2, 2, 2)), 2, SPACING)
    assert found.hd95[0] == pytest.approx(millimetres)
    assert 0 < found.surface[0] < millimetres
    assert found.dice[0] == pytest.approx(2 / 3)


def test_a_perfect_prediction_has_no_distance() -> None:
    found = agreement(_cube((2, 2, 2)), _cube((2, 2, 2)), 2, SPACING)
    assert (found.dice[0], found.hd95[0], found.surface[0]) == (1, 0, 0)


def test_a_class_that_neither_has_is_right_and_one_that_only_one_has_is_as_wrong_as_can_be() -> None:
    nothing = torch.zeros(SHAPE, dtype=torch.long)
    both = agreement(nothing, nothing, 2, SPACING)
    assert (both.dice[0], both.hd95[0], both.surface[0]) == (1, 0, 0)
    for prediction, label in ((nothing, _cube((1, 1, 1))), (_cube((1, 1, 1)), nothing)):
        one = agreement(prediction, label, 2, SPACING)
        assert one.dice[0] == 0
        assert one.hd95[0] == one.surface[0] == pytest.approx(DIAGONAL)


def test_no_distance_exceeds_the_diagonal() -> None:
    corner = torch.zeros(SHAPE, dtype=torch.long)
    corner[0, 0, 0] = 1
    found = agreement(corner, corner.flip((0, 1, 2)), 2, SPACING)
    assert 0 < found.hd95[0] <= DIAGONAL


def test_classes_are_kept_apart() -> None:
    label = _cube((0, 0, 0)) + 2 * _cube((5, 5, 5))
    prediction = _cube((0, 0, 0))
    found = agreement(prediction, label, 3, SPACING)
    assert found.dice.tolist() == [1, 0]
    assert found.hd95.tolist() == pytest.approx([0, DIAGONAL])


def test_distances_are_those_of_monai_without_its_warnings() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, label = (torch.rand(SHAPE, generator=generator).gt(share).long() for share in (0.6, 0.8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = agreement(prediction, label, 2, SPACING)
    masks = prediction[None, None], label[None, None]
    asked = {"include_background": True, "spacing": list(SPACING)}
    assert found.hd95[0] == pytest.approx(compute_hausdorff_distance(*masks, percentile=95, **asked).item())
    assert found.surface[0] == pytest.approx(compute_average_surface_distance(*masks, symmetric=True, **asked).item())


def test_a_surface_may_have_more_points_than_torch_takes_quantiles_of(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = torch.zeros(2**24 + 2)
    distances[: 2**20] = 7.0
    monkeypatch.setattr(metrics, "get_surface_distance", lambda *_, **__: distances)
    found = agreement(_cube((2, 2, 2)), _cube((2, 2, 2)), 2, SPACING)
    assert found.hd95[0] == 7
    assert found.surface[0] == pytest.approx(7 / 16, rel=1e-5)
