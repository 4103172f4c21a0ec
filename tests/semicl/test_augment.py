"""Views are independent, own their memory, and move labels with their pixels."""

import pytest
import torch
from torch import Tensor

from semicl.augment import ImageViews, LabelledViews


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    """Bright boxes off the centre of dark slices, (16, 1, 64, 64)."""
    slices = torch.full((16, 1, 64, 64), 0.1)
    slices[:, :, 14:36, 24:54] = 0.9
    return slices


@pytest.fixture
def labels(images: Tensor) -> Tensor:
    """The boxes, with label 5: a blend with the background would be another number."""
    return 5 * (images[:, 0] > 0.5).long()


def _overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_two_image_views_differ_and_share_no_memory(images: Tensor) -> None:
    before = images.clone()
    views = ImageViews()
    first, second = views(images), views(images)
    assert ((first - second).abs().amax((1, 2, 3)) > 0.05).all()
    assert len({tensor.untyped_storage().data_ptr() for tensor in (images, first, second)}) == 3
    kept = second.clone()
    first.fill_(7)
    assert torch.equal(second, kept)
    assert torch.equal(images, before)


def test_two_labelled_views_differ_and_share_no_memory(images: Tensor, labels: Tensor) -> None:
    before = labels.clone()
    views = LabelledViews()
    (first, first_labels), (second, second_labels) = views(images, labels), views(images, labels)
    assert not torch.equal(first, second)
    assert not torch.equal(first_labels, second_labels)
    tensors = (images, labels, first, first_labels, second, second_labels)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    first_labels.fill_(7)
    assert torch.equal(labels, before)


def test_labels_stay_whole_numbers(images: Tensor, labels: Tensor) -> None:
    views = LabelledViews()
    for _ in range(5):
        _, moved = views(images, labels)
        assert moved.dtype == torch.int64
        assert moved.shape == labels.shape
        assert moved.unique().tolist() == [0, 5]


def test_labels_move_with_their_pixels(images: Tensor, labels: Tensor) -> None:
    view, moved = LabelledViews()(images, labels)
    middle = (view.amax((1, 2, 3), keepdim=True) + view.amin((1, 2, 3), keepdim=True)) / 2
    bright = (view > middle)[:, 0]
    assert _overlap(bright, moved == 5) > 0.95
    assert _overlap(bright, labels == 5) < 0.9
