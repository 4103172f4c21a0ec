"""Scaling of the gradient from above, by a power of two for each group, so that kernels stay within float32's range.

A kernel multiplies a row's gradient from above by exponentials, in an order of its own. On the way it may leave the
range of float32 where the result does not. No pair crosses groups, and the gradient by the rows is linear in the one
from above. So each group has a unit, a power of two, by which its largest gradient becomes about 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .base import Groups

EXPONENTS = (-126, 127)  # of float32's powers of two
FLOAT_BIAS, FLOAT_FRACTION_BITS = 127, 23


class Levelled(NamedTuple):
    grad: Tensor  # (M,) float32: the gradient from above in its row's unit, 0 for rows that are no anchors
    unit: Tensor  # (M,) float32: the power of two that a row's gradient is to be multiplied by in the end


class GroupOfRows(NamedTuple):
    group: Tensor  # (M,) int64
    is_anchor: Tensor  # (M,) bool


def group_of_rows(groups: Groups, count: int) -> GroupOfRows:
    """Return the group of each of ``count`` rows; nothing waits for a GPU.

    Rows before the first group and past the last count as its, and are no anchors of it.
    """
    row = torch.arange(count, dtype=groups.offsets.dtype, device=groups.offsets.device)
    group = (torch.searchsorted(groups.offsets, row, right=True) - 1).clamp(0, len(groups.anchors) - 1)
    place = row - groups.offsets[group]
    return GroupOfRows(group, (place >= 0) & (place < groups.anchors[group]))


def level(grad: Tensor, groups: Groups) -> Levelled:
    """Return the gradient from above (M,), float32, in units of each group's own; nothing waits for a GPU."""
    count = len(groups.anchors)
    if count == 0:
        return Levelled(torch.zeros_like(grad), torch.ones_like(grad))
    group, is_anchor = group_of_rows(groups, len(grad))
    weight = torch.where(is_anchor, grad, 0)
    largest = weight.new_zeros(count).scatter_reduce(0, group, weight.abs(), "amax")
    exponent = torch.frexp(largest).exponent.clamp(*EXPONENTS)
    # The power of two by its bits: torch 2.9 makes ldexp's in the default dtype.
    power = ((exponent + FLOAT_BIAS) << FLOAT_FRACTION_BITS).view(torch.float32)
    unit = torch.where(largest.isfinite(), power, 1)[group]
    return Levelled(weight / unit, unit)
