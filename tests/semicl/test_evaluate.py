"""Dice is that of whole volumes, and defined where a class is missing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semicl.evaluate import Evaluation, evaluate, predict, volume_dice
from semicl.volumes import LabelledVolume


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
    dice = volume_dice(_volume(*prediction), _volume(*label), classes=3)
    torch.testing.assert_close(dice, torch.tensor(expected, dtype=torch.float32))


class _Threshold(nn.Module):
    """Class 1 where the image is above one half."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.threshold.expand_as(images), images], dim=1)


def test_every_slice_is_predicted_once_and_in_order() -> None:
    image = torch.rand(75, 1, 8, 8)
    assert torch.equal(predict(_Threshold(), image), (image[:, 0] > 0.5).long())


def test_an_evaluation_keeps_volumes_and_classes_apart() -> None:
    image = torch.rand(3, 1, 8, 8)
    truth = (image[:, 0] > 0.5).long()
    volumes = [LabelledVolume("right", image, truth), LabelledVolume("wrong", image, 1 - truth)]
    evaluation = evaluate(_Threshold(), volumes, classes=2)
    assert evaluation.names == ("right", "wrong")
    np.testing.assert_array_equal(evaluation.dice, [[1], [0]])


def test_means() -> None:
    evaluation = Evaluation(("a", "b"), np.array([[0.5, 1.0], [0.1, 0.2]]))
    np.testing.assert_allclose(evaluation.per_class(), [0.3, 0.6])
    np.testing.assert_allclose(evaluation.per_volume(), [0.75, 0.15])
    assert evaluation.mean() == pytest.approx(0.45)
