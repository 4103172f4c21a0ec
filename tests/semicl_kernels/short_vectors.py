"""Vectors no longer than 1e-12: normalizing divides them by that, so their rows are shorter than 1."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from semicl_kernels import local_contrastive_loss

from .on_device import device_of


def assert_loss_is_exact(backend: str, temperature: float) -> None:
    """Of bfloat16 vectors of half that length. Made unit vectors they would give a loss several times as large."""
    vectors = normalize(torch.randn(1, 1, 32, 4, 4, generator=torch.Generator().manual_seed(0)), dim=2)
    features = (0.5e-12 * vectors).bfloat16().to(device_of(backend))
    labels = (torch.arange(16) % 2 + 1).reshape(1, 1, 4, 4).to(features.device)
    truth = float(local_contrastive_loss(features.double(), labels, backend="reference", temperature=temperature))
    found = float(local_contrastive_loss(features, labels, backend=backend, temperature=temperature))
    assert abs(found - truth) < 2**-11 * truth, (found, truth)
