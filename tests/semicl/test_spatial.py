"""Sampling grids move points as their options say, in voxels of equal size."""

import math

import pytest
import torch

from semicl.options import AugmentationOptions
from semicl.spatial import moved_images, moved_labels, random_grid

STILL = {"rotation": 0.0, "shift": 0.0, "scale": (1.0, 1.0), "elastic": 0.0}


def _disc(space: tuple[int, ...], radius: float) -> torch.Tensor:
    axes = [torch.arange(side) - (side - 1) / 2 for side in space]
    distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij"))
    return (distance < radius**2).float().expand(8, 1, *space)


@pytest.mark.parametrize("space", [(48, 96), (24, 32, 64)])
def test_a_disc_survives_any_rotation_of_a_map_that_is_not_square(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    disc = _disc(space, 9)
    grid = random_grid(disc, AugmentationOptions(**STILL | {"rotation": 180.0}))
    moved = moved_images(disc, grid) > 0.5
    assert (moved & (disc > 0.5)).sum() / (moved | (disc > 0.5)).sum() > 0.93


def test_a_magnification_multiplies_areas_by_its_square() -> None:
    disc = _disc((64, 64), 10)
    grid = random_grid(disc, AugmentationOptions(**STILL | {"scale": (1.5, 1.5)}))
    assert float(moved_labels(disc[:, 0], grid).sum() / disc.sum()) == pytest.approx(1.5**2, rel=0.03)


def test_a_shift_stays_within_its_fraction() -> None:
    torch.manual_seed(0)
    disc = _disc((64, 64), 5)
    moved = moved_images(disc, random_grid(disc, AugmentationOptions(**STILL | {"shift": 0.2})))[:, 0]
    centres = (moved.sum(2) * torch.arange(64)).sum(1) / moved.sum((1, 2)) - 31.5
    assert centres.abs().max() <= 0.2 * 64 + 0.1
    assert centres.std() > 1


def test_rotations_turn_by_the_angle_asked_for() -> None:
    torch.manual_seed(0)
    bar = torch.zeros(64, 1, 65, 65)
    bar[:, :, 30:35, 8:57] = 1
    moved = moved_images(bar, random_grid(bar, AugmentationOptions(**STILL | {"rotation": 30.0})))[:, 0]
    axis = torch.arange(65) - 32.0
    mass = moved.sum((1, 2))
    xx, yy, xy = (
        (moved * part).sum((1, 2)) / mass for part in (axis[None] ** 2, axis[:, None] ** 2, axis[None] * axis[:, None])
    )
    degrees = 0.5 * torch.atan2(2 * xy, xx - yy) * 180 / math.pi
    assert degrees.abs().max() <= 30.5
    assert degrees.abs().max() > 20


def test_an_elastic_change_is_smooth_and_bends() -> None:
    torch.manual_seed(0)
    disc = _disc((64, 64), 20)
    still, bent = (random_grid(disc, AugmentationOptions(**STILL | {"elastic": e})) for e in (0.0, 0.05))
    displacement = bent - still
    assert displacement.abs().max() > 0.02
    assert displacement.diff(dim=1).abs().max() < 0.05
