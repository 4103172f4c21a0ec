import pytest
import torch

from benchmarks.problems import SHAPES, Shape, dense, hippocampus, identities, mmwhs, nt_xent, organ, supcon
from benchmarks.problems import build as build_problem

SMALL = Shape("small", "sparse", 2, 16, 24, 20, 4, 0.2, 16)


def flooded(mask: torch.Tensor) -> torch.Tensor:
    """The part of the mask that is connected with its first point, four neighbors a point."""
    reached = torch.zeros_like(mask)
    first = mask.nonzero()[0]
    reached[first[0], first[1]] = True
    while True:
        grown = reached.clone()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= mask
        if bool((grown == reached).all()):
            return reached
        reached = grown


@pytest.mark.parametrize("shape", [hippocampus(16), mmwhs(32)], ids=lambda shape: shape.name)
def test_organs_are_connected_and_of_the_wanted_size(shape):
    for image in shape.labels()[:, 0]:
        assert int((image > 0).sum()) == round(shape.foreground * shape.height * shape.width)
        assert torch.equal(flooded(image > 0), image > 0)
        assert image.unique().tolist() == list(range(shape.classes))


def test_maps_come_from_their_seed():
    maps = [organ(32, 32, 0.2, 3, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_too_small_an_organ_is_refused():
    with pytest.raises(ValueError, match="1 points of foreground cannot hold 7 classes"):
        organ(4, 4, 0.05, 8, torch.Generator())


def test_blocks_count_anchors():
    labels = SMALL.labels()
    blocks = SMALL.blocks()
    assert sum(block.anchors for block in blocks) == int((labels > 0).sum())
    assert all(block.points <= 2 * 2 * 16 * 16 for block in blocks)


def test_dense_shapes_are_one_group_of_so_many_points():
    for points in (1024, 2048, 16384):
        shape = dense(points, 64)
        assert shape.points == points
        assert [(block.points, block.anchors) for block in shape.blocks()] == [(points, points)]


def test_vectors_have_anchors_alone():
    for shape in (nt_xent(16), supcon(16)):
        assert [(block.points, block.anchors) for block in shape.blocks()] == [(32, 32)]
    assert supcon(256).labels().unique().tolist() == list(range(1, 11))


def test_identities_tell_places_apart_in_all_views():
    problem = build_problem(dense(1024, 16))
    numbers = identities(problem)
    assert numbers.unique().numel() == 512
    assert torch.equal(numbers[:, 0], numbers[:, 1])


def test_features_are_the_same_numbers_in_every_dtype():
    wide, narrow = build_problem(SMALL), build_problem(SMALL, torch.bfloat16)
    assert torch.equal(wide.features.to(torch.bfloat16), narrow.features)


def test_names_are_unique():
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
