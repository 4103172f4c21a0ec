"""Projection heads give one vector an image, or one a point that depends on that point alone."""

import pytest
import torch

from semicl.models.heads import ImageProjection, PointProjection


@pytest.mark.parametrize("space", [(4, 6), (2, 4, 6)])
def test_one_vector_an_image(space: tuple[int, ...]) -> None:
    assert ImageProjection(len(space), 5, 7)(torch.rand(3, 5, *space)).shape == (3, 7)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("space", [(4, 6), (2, 4, 6)])
def test_one_vector_a_point(space: tuple[int, ...], layers: int) -> None:
    head = PointProjection(len(space), 5, 7, layers)
    features = torch.rand(3, 5, *space)
    projected = head(features)
    assert projected.shape == (3, 7, *space)
    changed = features.clone()
    changed[..., 0] += 1
    torch.testing.assert_close(head(changed)[..., 1:], projected[..., 1:])
    assert not torch.allclose(head(changed)[..., 0], projected[..., 0])


@pytest.mark.parametrize(("layers", "linear"), [(1, True), (2, False), (3, False)])
def test_one_layer_is_linear(layers: int, linear: bool) -> None:
    torch.manual_seed(0)
    head = PointProjection(2, 5, 7, layers)
    one, other, zero = torch.randn(1, 5, 4, 6), torch.randn(1, 5, 4, 6), torch.zeros(1, 5, 4, 6)
    sums = head(one) + head(other), head(one + other) + head(zero)
    assert torch.allclose(*sums, atol=1e-5) == linear
    assert sum(isinstance(module, torch.nn.Conv2d) for module in head.modules()) == layers
