"""flex_attention's loss is the same loss. Its gradient needs a GPU."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.flex import diagonal_mask, prepare
from benchmarks.problems import Shape, build, dense
from benchmarks.providers import ours


@pytest.mark.parametrize(("anchors", "points"), [(300, 300), (130, 400), (256, 256)])
def test_the_mask_leaves_out_the_diagonal_alone(anchors, points):
    mask = diagonal_mask(anchors, points, torch.device("cpu"))
    blocks = mask.to_dense()[0, 0]
    assert bool(blocks.all())  # no block is left out
    assert mask.kv_num_blocks.unique().tolist() == [1]
    assert torch.equal(mask.kv_indices[0, 0, :, 0], torch.arange(len(blocks), dtype=torch.int32))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shape", [dense(256, 16), Shape("full", "full", 1, 16, 20, 20, 3, 0.3)], ids=["dense", "full"])
def test_it_is_the_loss_of_the_reference(shape):
    problem = build(shape)
    problem.features.requires_grad_(False)
    expected = ours(problem, "reference")
    torch.testing.assert_close(prepare(problem, flex_attention)(), expected, rtol=1e-5, atol=1e-5)
