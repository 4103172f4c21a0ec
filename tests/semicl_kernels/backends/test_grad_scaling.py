"""Units of gradients from above: powers of two, one a group, which give the gradient back to the bit."""

from __future__ import annotations

import pytest
import torch

from semicl_kernels.backends import Groups
from semicl_kernels.backends.grad_scaling import level

from ..groups import int32

INF, NAN = float("inf"), float("nan")


def groups(offsets: list[int], anchors: list[int], rows: int) -> Groups:
    own = torch.arange(rows, dtype=torch.int32)
    return Groups(int32(offsets), int32(anchors), own, own + 1, rows, True)


@pytest.mark.parametrize("size", [3e38, 1e30, 1.0, 3.0, 1e-30, 2e-38])
def test_the_largest_of_a_group_becomes_about_one(size: float) -> None:
    """Rows before the first group, past the last and past a group's anchors are none, and what they hold is nothing."""
    grad = torch.tensor([NAN, size, -size / 2, INF, 1e-3, 2e-3, NAN])
    found = level(grad, groups([1, 4, 4, 6], [2, 0, 2], 7))
    anchor = torch.tensor([False, True, True, False, True, True, False])
    assert torch.equal(found.grad * found.unit, torch.where(anchor, grad, 0.0))
    assert torch.equal(torch.frexp(found.unit).mantissa, torch.full((7,), 0.5))  # powers of two
    assert 0.5 <= found.grad[1] <= 2
    assert 0.5 <= found.grad[5] < 1


def test_what_is_not_finite_stays_in_its_group() -> None:
    found = level(torch.tensor([NAN, 1.0, 1e20, 2e20]), groups([0, 2, 4], [2, 2], 4))
    assert torch.isnan(found.grad[0])
    assert torch.equal(found.unit[:2], torch.ones(2))
    assert torch.equal(found.grad[2:] * found.unit[2:], torch.tensor([1e20, 2e20]))


def test_no_group_has_no_unit() -> None:
    found = level(torch.ones(3), groups([0], [], 3))
    assert torch.equal(found.grad, torch.zeros(3))
    assert torch.equal(found.unit, torch.ones(3))
