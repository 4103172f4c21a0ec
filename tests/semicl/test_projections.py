"""Projection heads give one vector an image, or one a point that depends on that point alone."""

import pytest
import torch

from semicl.projections import ImageProjection, PointProjection


@pytest.mark.parametrize("space", [(4, 6), (2, 4, 6)])
def test_one_vector_an_image(space: tuple[int, ...]) -> None:
    assert ImageProjection(len(space), 5, 7)(torch.rand(3, 5, *space)).shape == (3, 7)


@pytest.mark.parametrize("space", [(4, 6), (2, 4, 6)])
def test_one_vector_a_point(space: tuple[int, ...]) -> None:
    head = PointProjection(len(space), 5, 7)
    features = torch.rand(3, 5, *space)
    projected = head(features)
    assert projected.shape == (3, 7, *space)
    changed = features.clone()
    changed[..., 0] += 1
    torch.testing.assert_close(head(changed)[..., 1:], projected[..., 1:])
    assert not torch.allclose(head(changed)[..., 0], projected[..., 0])
