"""Mixup blends images and losses by one share."""

import pytest
import torch

from semicl.training.augment import mixed

LABELS = torch.arange(6).view(6, 1, 1)


def test_alpha_zero_mixes_nothing() -> None:
    images = torch.rand(6, 1, 4, 4)
    mix = mixed(images, LABELS, alpha=0)
    assert torch.equal(mix.images, images)
    assert mix.loss(lambda labels: labels.float().mean()) == LABELS.float().mean()


def test_images_and_losses_are_blended_by_the_same_share() -> None:
    torch.manual_seed(1)
    images = LABELS[:, None].float().expand(6, 1, 4, 4)
    mix = mixed(images, LABELS, alpha=0.4)
    assert 0 < mix.share < 1
    expected = mix.share * LABELS + (1 - mix.share) * mix.other_labels
    torch.testing.assert_close(mix.images[:, 0, 0, 0], expected.flatten())
    blended = mix.loss(lambda labels: labels[2].float().sum())
    assert float(blended) == pytest.approx(float(expected[2]))
    assert sorted(mix.other_labels.flatten().tolist()) == list(range(6))
    assert not torch.equal(mix.other_labels, LABELS)
