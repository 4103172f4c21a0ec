import pytest
import torch

from benchmarks.memory import STATUS, peak_bytes, peak_growth
from benchmarks.problems import dense

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="needs /proc, to have the system forget a peak")


def test_growth_is_what_a_call_allocates_even_if_it_frees_it():
    torch.zeros(1 << 20).fill_(1)
    growth = peak_growth(lambda: torch.ones(1 << 24).sum())
    assert (1 << 26) * 0.95 < growth < (1 << 26) * 1.2


def test_the_fused_loss_stays_linear_and_plain_pytorch_does_not():
    shape = dense(2048, 32)
    fused, plain = (peak_bytes(shape, torch.float32, name) for name in ("fused", "anchors-only"))
    assert fused is not None
    assert plain is not None
    assert fused < 3 * shape.feature_bytes() + (64 << 20)
    assert plain > 2 * 4 * shape.points**2
