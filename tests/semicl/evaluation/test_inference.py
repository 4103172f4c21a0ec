"""Whole volumes are predicted slice by slice, or patch by patch with overlap, every voxel once."""

import pytest
import torch

from semicl.evaluation.inference import AT_ONCE, class_probabilities, point_features
from semicl.models.unet import UNet, new_unet


@pytest.fixture
def slices_network(network: UNet) -> UNet:
    return network.eval()


def test_slices_are_predicted_in_order(slices_network: UNet) -> None:
    image = torch.rand(AT_ONCE + 5, 32, 32)
    found = class_probabilities(slices_network, image[None], (32, 32))
    assert found.shape == (4, *image.shape)
    torch.testing.assert_close(found.sum(0), torch.ones_like(image))
    with torch.no_grad():
        expected = slices_network(image[:, None]).softmax(1).movedim(1, 0)
    torch.testing.assert_close(found, expected)


def test_a_volume_of_one_patch_is_predicted_at_once() -> None:
    network = new_unet(3, (4, 6), 3, seed=0).eval()
    image = torch.rand(8, 16, 16)
    with torch.no_grad():
        expected = network(image[None, None]).softmax(1)[0]
    torch.testing.assert_close(class_probabilities(network, image[None], (8, 16, 16)), expected)


@pytest.mark.parametrize("shape", [(9, 17, 40), (8, 16, 16)])
def test_patches_cover_a_volume_of_any_size(shape: tuple[int, ...]) -> None:
    network = new_unet(3, (4, 6), 3, seed=0).eval()
    found = class_probabilities(network, torch.rand(1, *shape), (8, 16, 16))
    assert found.shape == (3, *shape)
    torch.testing.assert_close(found.sum(0), torch.ones(shape))


def test_features_are_the_decoders(slices_network: UNet) -> None:
    image = torch.rand(3, 32, 32)
    found = point_features(slices_network, image[None], (32, 32))
    with torch.no_grad():
        expected = slices_network.decoder(slices_network.encoder(image[:, None])).movedim(1, 0)
    torch.testing.assert_close(found, expected)


def test_larger_slices_are_predicted_by_a_sliding_window(slices_network: UNet) -> None:
    image = torch.rand(3, 48, 40)
    found = class_probabilities(slices_network, image[None], (32, 32))
    assert found.shape == (4, 3, 48, 40)
    torch.testing.assert_close(found.sum(0), torch.ones_like(image))
    with torch.no_grad():
        corner = slices_network(image[:, None, :32, :32]).softmax(1).movedim(1, 0)
    torch.testing.assert_close(found[:, :, :4, :4], corner[:, :, :4, :4])  # which no other window covers
