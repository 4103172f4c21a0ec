"""Memory grows with the points, not with their pairs: the peak of a process of its own is watched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .interpreter import skip_many_points
from .on_device import skip_on_gpu

MIB = 2**20
POINTS, CHANNELS = 88 * 88, 16
FEATURE_BYTES = 4 * POINTS * CHANNELS
ALL_PAIRS_BYTES = 4 * POINTS**2

MEASURE = """
import resource, sys
import torch
from semicl_kernels import local_contrastive_loss

backend, side, channels, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def data(side):
    features = torch.randn(1, 1, channels, side, side, requires_grad=True)
    labels = torch.ones(1, 1, side, side, dtype=torch.int64)
    if kind == "sparse":
        labels[:, :, side // 8:] = 0
    return features, labels

def run(features, labels):
    reduction = "none" if kind == "map" else "block"
    local_contrastive_loss(features, labels, reduction=reduction, backend=backend).sum().backward()

run(*data(16))  # what is loaded once is not the loss's
features, labels = data(side)
before = peak()
run(features, labels)
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["dense", "sparse", "map"])
def test_extra_peak(fast_backend: str, kind: str) -> None:
    """At most three times the features' own bytes plus 64 MiB; all pairs would be 229 MiB."""
    skip_many_points(fast_backend, POINTS)
    skip_on_gpu(fast_backend, "what it takes of a GPU's memory is watched in test_gpu.py")
    side = round(POINTS**0.5)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, fast_backend, str(side), str(CHANNELS), kind],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    allowed = 3 * FEATURE_BYTES + 64 * MIB
    assert allowed < ALL_PAIRS_BYTES / 3
    assert int(done.stdout) <= allowed, f"{int(done.stdout) / MIB:.1f} MiB, allowed {allowed / MIB:.1f} MiB"
