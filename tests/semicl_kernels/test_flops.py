"""What torch's FlopCounterMode counts of the operators: the products that plain PyTorch would compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from semicl_kernels import local_contrastive_loss, nt_xent_loss, ops

FEATURES = torch.randn(2, 1, 8, 6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 1, 6, 5), generator=torch.Generator().manual_seed(1))
ROWS = FEATURES.movedim(2, -1).reshape(-1, 8)  # 60 points


def plain(rows: Tensor) -> Tensor:
    return (rows @ rows.T).logsumexp(1).sum()


def flops(function: Callable[[Tensor], Tensor], leaf: Tensor, gradient: bool) -> int:
    leaf = leaf.clone().requires_grad_(gradient)
    with FlopCounterMode(display=False) as counter:
        value = function(leaf)
        if gradient:
            value.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("name", ["cpu", "tiled", "reference"])
def test_counts_what_plain_pytorch_multiplies(name: str, reduction: str, gradient: bool) -> None:
    """One product of the forward, two of the backward, and one more where it computes the similarities anew."""

    def loss(features: Tensor) -> Tensor:
        return local_contrastive_loss(features, LABELS, reduction=reduction, backend=name)

    anew = gradient and (name == "reference" or reduction == "none")
    expected = flops(plain, ROWS, gradient) + anew * flops(plain, ROWS, False)
    assert expected == 2 * 60 * 60 * 8 * (1 + 2 * gradient + anew)
    assert flops(loss, FEATURES, gradient) == expected


def test_points_of_other_blocks_do_not_count() -> None:
    blocks = 2 * 60 * (2 * 3 * 3) * 8  # blocks of 9 places in two images; smaller ones at the edge as if whole
    options = {"block_size": 3, "backend": "cpu"}
    assert flops(lambda x: local_contrastive_loss(x, LABELS, **options), FEATURES, False) == blocks


def test_losses_of_vectors() -> None:
    def loss(rows: Tensor) -> Tensor:
        return nt_xent_loss(rows[:30], rows[30:])

    assert flops(loss, ROWS, True) == flops(plain, ROWS, True)


def test_every_operator_has_a_formula() -> None:
    with FlopCounterMode(display=False) as counter:
        pass
    assert {getattr(torch.ops.semicl, name) for name in ops.SCHEMAS} <= set(counter.flop_registry)
