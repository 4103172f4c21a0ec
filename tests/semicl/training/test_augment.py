"""Views are independent, own their memory, and move labels with their points, in slices and in patches."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from semicl.options import AugmentationOptions
from semicl.training.augment import ImageViews, Intensities, LabelledViews

STRONG = AugmentationOptions(20.0, 0.1, (0.8, 1.2), 0.02, 0.4, 0.05)
SPACES = pytest.mark.parametrize("space", [(64, 64), (24, 32, 40)])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _images(space: tuple[int, ...]) -> Tensor:
    """Bright boxes off the centre of dark images, (16, 1, *space)."""
    images = torch.full((16, 1, *space), 0.1)
    images[(slice(None), slice(None), *(slice(side // 5, side * 3 // 5) for side in space))] = 0.9
    return images


def _labels(images: Tensor) -> Tensor:
    """The boxes, with label 5: a blend with the background would be another number."""
    return (5 * (images[:, 0] > 0.5)).to(torch.uint8)


def _overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def _storages(*tensors: Tensor) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@SPACES
@pytest.mark.parametrize("kind", [ImageViews, Intensities])
def test_two_image_views_differ_and_share_no_memory(space: tuple[int, ...], kind: type[ImageViews]) -> None:
    images = _images(space)
    before = images.clone()
    views = kind(STRONG)
    first, second = views(images), views(images)
    assert first.shape == images.shape
    differences = (first - second).abs().flatten(1).amax(1)
    assert (differences > 0.05).float().mean() > 0.9  # each change is left out at random, rarely all of them
    assert len(_storages(images, first, second)) == 3
    kept = second.clone()
    first.fill_(7)
    assert torch.equal(second, kept)
    assert torch.equal(images, before)


@SPACES
def test_two_labelled_views_differ_and_share_no_memory(space: tuple[int, ...]) -> None:
    images = _images(space)
    labels = _labels(images)
    before = labels.clone()
    views = LabelledViews(STRONG)
    (first, first_labels), (second, second_labels) = views(images, labels), views(images, labels)
    assert not torch.equal(first, second)
    assert not torch.equal(first_labels, second_labels)
    assert len(_storages(images, labels, first, first_labels, second, second_labels)) == 6
    first_labels.fill_(7)
    assert torch.equal(labels, before)


@SPACES
def test_labels_stay_whole_numbers(space: tuple[int, ...]) -> None:
    images = _images(space)
    views = LabelledViews(STRONG)
    for _ in range(5):
        _, moved = views(images, _labels(images))
        assert moved.dtype == torch.int64
        assert moved.shape == images[:, 0].shape
        assert moved.unique().tolist() == [0, 5]


@SPACES
def test_labels_move_with_their_points(space: tuple[int, ...]) -> None:
    """Where changed intensities do not move the edge of what is bright."""
    images = _images(space)
    labels = _labels(images)
    view, moved = LabelledViews(replace(STRONG, intensity=0.0, noise=0.0))(images, labels)
    places = tuple(range(1, view.dim()))
    middle = (view.amax(places, keepdim=True) + view.amin(places, keepdim=True)) / 2
    bright = (view > middle)[:, 0]
    assert _overlap(bright, moved == 5) > 0.96
    assert _overlap(bright, labels == 5) < 0.9


def test_intensities_leave_points_in_place() -> None:
    images = _images((64, 64))
    view = Intensities(STRONG)(images)
    middle = (view.amax((1, 2, 3), keepdim=True) + view.amin((1, 2, 3), keepdim=True)) / 2
    assert _overlap(view > middle, images > 0.5) > 0.95


def test_no_augmentation_changes_nothing() -> None:
    images = _images((64, 64))
    nothing = AugmentationOptions(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0)
    view, moved = LabelledViews(nothing)(images, _labels(images))
    torch.testing.assert_close(view, images)
    assert torch.equal(moved, _labels(images).long())
