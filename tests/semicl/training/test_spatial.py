"""Sampling grids move points as their options say, in voxels of equal size."""

import math

import pytest
import torch

from semicl.options import AugmentationOptions
from semicl.training.augment import anisotropic, moved_images, moved_labels, random_grid

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


@pytest.mark.parametrize(
    ("space", "voxel_size", "expected"),
    [
        ((8, 256, 256), (1, 1, 1), (True, False, False)),
        ((256, 256, 2), (1, 1, 1), (False, False, True)),
        ((32, 64, 64), (5, 0.7, 0.7), (True, False, False)),
        ((32, 64, 64), (2, 1, 1), (False, False, False)),
        ((64, 64, 192), (1, 1, 1), (False, False, False)),
        ((8, 256), (5, 1), (False, False)),
    ],
)
def test_an_axis_is_anisotropic_from_a_ratio_of_3(
    space: tuple[int, ...], voxel_size: tuple[float, ...], expected: tuple[bool, ...]
) -> None:
    assert anisotropic(space, voxel_size) == expected


@pytest.mark.parametrize(
    ("space", "voxel_size"),
    [((8, 64, 64), None), ((2, 64, 64), None), ((64, 64, 2), None), ((16, 32, 32), (6.0, 1.0, 1.0))],
)
@pytest.mark.parametrize("options", [{}, {"elastic": 0.02}], ids=["default", "elastic"])
def test_a_thin_patch_still_shows_its_image(
    space: tuple[int, ...], voxel_size: tuple[float, ...] | None, options: dict[str, float]
) -> None:
    """It moves within its plane alone, where its slices keep their order."""
    torch.manual_seed(0)
    slices = torch.arange(1.0, 1 + min(space))
    number = slices.view([-1 if side == min(space) else 1 for side in space]).expand(32, 1, *space)
    grid = random_grid(number, AugmentationOptions(shift=0.0, scale=(1.0, 1.0), rotation=15.0, **options), voxel_size)
    moved = moved_images(number, grid)
    assert float((moved > 0.5).float().mean()) > 0.85
    middle = (slice(None), slice(None), *(slice(None) if side == min(space) else slice(12, -12) for side in space))
    torch.testing.assert_close(moved[middle], number[middle])
    default = random_grid(number, AugmentationOptions(**options), voxel_size)
    assert float((moved_images(number, default) > 0.5).float().mean()) > 0.75


def test_a_thin_patch_turns_in_its_plane() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 1, 4, 64, 64)
    grid = random_grid(images, AugmentationOptions(**STILL | {"rotation": 30.0}))
    still = random_grid(images, AugmentationOptions(**STILL))
    torch.testing.assert_close(grid[..., 2], still[..., 2])
    assert (grid[..., :2] - still[..., :2]).abs().max() > 0.1


@pytest.mark.parametrize(("space", "voxel_size"), [((32, 64), (2.0, 1.0)), ((24, 48, 48), (2.0, 1.0, 1.0))])
def test_a_ball_in_millimeters_survives_any_rotation(space: tuple[int, ...], voxel_size: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    axes = [size * (torch.arange(side) - (side - 1) / 2) for side, size in zip(space, voxel_size, strict=True)]
    distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij"))
    ball = (distance < 15**2).float().expand(8, 1, *space)
    moved = moved_images(ball, random_grid(ball, AugmentationOptions(**STILL | {"rotation": 90.0}), voxel_size)) > 0.5
    assert (moved & (ball > 0.5)).sum() / (moved | (ball > 0.5)).sum() > 0.9
