"""The U-Net has MONAI's blocks, the shapes it states, and parts that can be trained apart."""

import pytest
import torch
from monai.networks.nets.basic_unet import BasicUNet

from semicl.models.unet import UNet, new_unet
from semicl.options import NetworkOptions

LEVELS = (4, 6, 8, 10, 12)


@pytest.mark.parametrize("space", [(48, 64), (16, 32, 48)])
@pytest.mark.parametrize("depth", [2, 4, 5])
def test_shapes(space: tuple[int, ...], depth: int) -> None:
    network = new_unet(len(space), LEVELS[:depth], classes=3, seed=0)
    images = torch.rand(2, 1, *space)
    maps = network.encoder(images)
    assert [tuple(m.shape) for m in maps] == [(2, LEVELS[k], *(side >> k for side in space)) for k in range(depth)]
    assert network.decoder(maps).shape == (2, 4, *space)
    assert network(images).shape == (2, 3, *space)


def test_the_papers_widths_give_the_authors_number_of_parameters() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in network.parameters())
            for network in (
                UNet(2, NetworkOptions().levels, classes=2),
                BasicUNet(2, 1, 2, features=(64, 128, 256, 512, 1024, 64)),
            )
        ]
    assert counts[0] == counts[1]
    assert round(counts[0] / 1e6, 1) == 31.1


def test_the_centre_is_an_option() -> None:
    assert NetworkOptions().levels == (64, 128, 256, 512, 1024)
    assert NetworkOptions(centre=None).levels == (64, 128, 256, 512)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_state() -> None:
    state = torch.get_rng_state()
    first, same, other = (new_unet(2, LEVELS, 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["encoder.stem.conv_0.conv.weight"], other["encoder.stem.conv_0.conv.weight"])
