"""The strongest peer that torch has: flex_attention's log-sum-exp, differentiable, without the diagonal.

Anchors are queries, all points keys. flex_attention must also multiply with values: as few channels as it takes. Its
block mask has one partial block a row of blocks, which holds the diagonal; it depends on the labels alone and is made
beforehand. The positive term is the collapsed one of ``anchors_only``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxOutput, AuxRequest, BlockMask, flex_attention

from .anchors_only import positive_means
from .problems import BACKGROUND, TEMPERATURE, Problem, identities

BLOCK = 128
VALUE_CHANNELS = 16

Attention = Callable[..., tuple[Tensor, AuxOutput]]


def is_not_itself(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query != key


def diagonal_mask(anchors: int, points: int, device: torch.device) -> BlockMask:
    """Return the mask of ``anchors`` queries, the first of the ``points`` keys, each without itself."""
    rows, columns = -(-anchors // BLOCK), -(-points // BLOCK)
    row = torch.arange(rows, dtype=torch.int32, device=device)
    column = torch.arange(columns - 1, dtype=torch.int32, device=device)
    partial = torch.zeros(rows, columns, dtype=torch.int32, device=device)
    partial[:, 0] = row
    full = torch.zeros_like(partial)
    full[:, : columns - 1] = column + (column >= row[:, None]).int()
    return BlockMask.from_kv_blocks(
        torch.ones_like(row)[None, None],
        partial[None, None],
        torch.full_like(row, columns - 1)[None, None],
        full[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=is_not_itself,
        seq_lengths=(anchors, points),
    )


def compiled() -> Attention:
    """flex_attention as a kernel; uncompiled it writes all similarities."""
    torch.compiler.reset()  # else torch stops compiling after some shapes
    return torch.compile(flex_attention, dynamic=False)


def prepare(problem: Problem, attention: Attention) -> Callable[[], Tensor]:
    """Return a function that computes the loss, a scalar, of a problem of one block."""
    y = identities(problem).flatten()
    counts = y.bincount()
    is_anchor = (y != BACKGROUND) & (counts[y] > 1)
    order = torch.argsort(is_anchor, descending=True, stable=True)  # anchors are the first keys too
    kind = y[order]
    total = int(is_anchor.sum())
    anchors = torch.arange(total, device=y.device)
    mask = diagonal_mask(total, len(y), y.device)
    values = problem.features.new_zeros(1, 1, len(y), VALUE_CHANNELS)

    def loss() -> Tensor:
        x = F.normalize(problem.features, dim=2).movedim(2, -1).flatten(0, -2)[order]
        _, aux = attention(
            x[None, None, :total],
            x[None, None],
            values,
            block_mask=mask,
            scale=1 / TEMPERATURE,
            return_aux=AuxRequest(lse=True),
        )
        assert aux.lse is not None
        return (aux.lse[0, 0] - positive_means(x, kind, counts, anchors)).mean()

    return loss
