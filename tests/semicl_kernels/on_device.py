"""Where a backend computes: tests make their tensors on the CPU, and these move them there and the results back.

The public functions under their own names, for tests to import instead; for backends of the CPU they are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import semicl_kernels

# The backends that take tensors of a GPU here.
ON_GPU = ("triton", "cuda") if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1" else ()
CPU = torch.device("cpu")


def device_of(backend: str) -> torch.device:
    return torch.device("cuda", 0) if backend in ON_GPU else CPU


def move(value: Any, device: torch.device) -> Any:
    """Return a tensor on the device, with its strides even where it has gaps; anything else as it is."""
    if not isinstance(value, Tensor) or value.device != CPU:
        return value
    if value.is_contiguous() or 0 in value.stride():
        return value.to(device)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device).copy_(value)


def at(backend: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors of the CPU that runs ``function`` where the backend computes."""
    device = device_of(backend)
    if device == CPU:
        return function

    def moved(*args: Any, **options: Any) -> Any:
        result = function(*(move(a, device) for a in args), **{k: move(v, device) for k, v in options.items()})
        return result.cpu()

    return moved


def anywhere(function: Callable[..., Any], *args: Any, backend: str = "auto", **options: Any) -> Any:
    return at(backend, function)(*args, backend=backend, **options)


local_contrastive_loss = partial(anywhere, semicl_kernels.local_contrastive_loss)
nt_xent_loss = partial(anywhere, semicl_kernels.nt_xent_loss)
supervised_contrastive_loss = partial(anywhere, semicl_kernels.supervised_contrastive_loss)
grouped_logsumexp = partial(anywhere, semicl_kernels.grouped_logsumexp)


def skip_on_gpu(backend: str, why: str) -> None:
    if backend in ON_GPU:
        pytest.skip(f"needs a backend of the CPU: {why}")
