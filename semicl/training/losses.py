"""The local contrastive loss as the options describe it, and vectors of all processes that train together."""

from typing import Any

import torch
from torch import Tensor, distributed

from semicl.options import LocalLossOptions
from semicl_kernels import LocalContrastiveLoss


class _Gather(torch.autograd.Function):
    """The concatenation over processes; backward sums what all processes' losses say of one's own vectors."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.count = len(vectors)
        parts = [torch.empty_like(vectors) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        distributed.all_reduce(total)
        begin = distributed.get_rank() * ctx.count
        return total[begin : begin + ctx.count]


def everyones(vectors: Tensor) -> Tensor:
    """The vectors (N, channels) of every process, in the order of the processes, with gradients.

    All processes give as many. A process's gradient is the sum of those of all processes' losses.
    """
    gathered: Tensor = _Gather.apply(vectors)
    return gathered


def own_among_everyones(count: int, device: torch.device) -> Tensor:
    """Labels (all processes * count,) of gathered samples: 1 to count for this process's, 0 for the others'."""
    labels = torch.zeros(distributed.get_world_size() * count, dtype=torch.long, device=device)
    begin = distributed.get_rank() * count
    labels[begin : begin + count] = torch.arange(1, count + 1, device=device)
    return labels


def local_contrast(options: LocalLossOptions) -> LocalContrastiveLoss:
    """The loss that the options describe."""
    return LocalContrastiveLoss(
        temperature=options.temperature,
        stride=options.stride,
        block_size=options.block_size,
        scope=options.scope,
        denominator=options.denominator,
    )
