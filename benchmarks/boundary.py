"""What the registered operator costs in eager mode: a call through it over the same call without it."""

from __future__ import annotations

import statistics

import torch

from semicl_kernels import grouped_logsumexp, nt_xent_loss
from semicl_kernels.backends import cpu
from semicl_kernels.backends.base import Groups

from .timing import timed

POINTS, CHANNELS, REPEATS = 32, 16, 400


def microseconds() -> dict[str, float]:
    """Return medians in microseconds of calls so small that the arithmetic is nothing."""
    rows = torch.nn.functional.normalize(torch.randn(POINTS, CHANNELS), dim=1)
    numbers = torch.arange(POINTS, dtype=torch.int32)
    groups = Groups(
        offsets=torch.tensor([0, POINTS], dtype=torch.int32),
        anchors=torch.tensor([POINTS], dtype=torch.int32),
        skip_low=numbers,
        skip_high=numbers + 1,
        largest=POINTS,
        mutual=True,
    )
    scale = torch.tensor(10.0, dtype=torch.float64)
    z1, z2 = rows.chunk(2)
    learned = z1.clone().requires_grad_()
    calls = {
        "backend alone": lambda: cpu.forward(rows, groups, 10.0, None),
        "registered operator": lambda: torch.ops.semicl.grouped_logsumexp(rows, *groups, scale, None, "cpu"),
        "operator with its checks": lambda: grouped_logsumexp(rows, *groups.tensors, scale=10.0, backend="cpu"),
        "NT-Xent forward": lambda: nt_xent_loss(z1, z2, backend="cpu"),
        "NT-Xent forward + backward": lambda: nt_xent_loss(learned, z2, backend="cpu").backward(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            seconds[name].append(timed(call))
    return {name: 1e6 * statistics.median(values) for name, values in seconds.items()}
