"""The U-Net has MONAI's blocks, the shapes it states, and parts that can be trained apart."""

import torch
from monai.networks.nets.basic_unet import BasicUNet

from semicl.networks import PixelProjection, SliceProjection, UNet, new_unet

WIDTHS = (4, 6, 8, 10, 12, 5)


def test_shapes() -> None:
    network = new_unet(WIDTHS, classes=3, seed=0)
    images = torch.rand(2, 1, 48, 64)
    maps = network.encoder(images)
    assert [tuple(m.shape) for m in maps] == [(2, WIDTHS[k], 48 >> k, 64 >> k) for k in range(5)]
    features = network.decoder(maps)
    assert features.shape == (2, 5, 48, 64)
    assert network(images).shape == (2, 3, 48, 64)
    assert SliceProjection(12, 7)(maps[-1]).shape == (2, 7)
    assert PixelProjection(5, 7)(features).shape == (2, 7, 48, 64)


def test_the_papers_widths_give_the_authors_number_of_parameters() -> None:
    widths = (64, 128, 256, 512, 1024, 64)
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in network.parameters())
            for network in (UNet(widths, classes=2), BasicUNet(2, 1, 2, features=widths))
        ]
    assert counts[0] == counts[1]
    assert round(counts[0] / 1e6, 1) == 31.1


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_state() -> None:
    state = torch.get_rng_state()
    first, same, other = (new_unet(WIDTHS, 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["encoder.stem.conv_0.conv.weight"], other["encoder.stem.conv_0.conv.weight"])
