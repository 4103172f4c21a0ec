"""Memory grows with the points, not with their pairs: the peak of a process of its own is watched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .interpreter import skip_many_points
from .on_device import skip_on_gpu

MIB = 2**20

MEASURE = """
import resource, sys
import torch
from semicl_kernels import local_contrastive_loss

backend, shape, foreground, block, kind = sys.argv[1], eval(sys.argv[2]), *map(int, sys.argv[3:5]), sys.argv[5]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def data(shape):
    features = torch.randn(shape)
    batch, views, _, height, width = shape
    labels = torch.zeros(batch, views, height, width, dtype=torch.int64)
    labels[:, :, : max(1, height // foreground)] = 1
    return features, labels

def run(features, labels):
    options = dict(block_size=block or None, reduction="none" if kind == "map" else "block", backend=backend)
    if kind == "loss alone":
        local_contrastive_loss(features, labels, **options)
    else:
        local_contrastive_loss(features.requires_grad_(), labels, **options).sum().backward()

run(*data((1, 1, shape[2], 16, 16)))  # what is loaded once is not the loss's
features, labels = data(shape)
before = peak()
run(features, labels)
print(peak() - before)
"""


def extra_peak(backend: str, shape: tuple[int, ...], kind: str, foreground: int = 1, block: int = 0) -> int:
    """Bytes that the process of its own needed more than before; one line in ``foreground`` is of a class."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, backend, str(shape), str(foreground), str(block), kind],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    return int(done.stdout)


@pytest.mark.parametrize(("kind", "foreground"), [("gradient", 1), ("gradient", 8), ("map", 1)])
def test_no_backend_holds_all_pairs(fast_backend: str, kind: str, foreground: int) -> None:
    """At most 64 MiB beside three times the features; all pairs would be 229 MiB."""
    shape = (1, 1, 16, 88, 88)
    points = shape[3] * shape[4]
    skip_many_points(fast_backend, points)
    skip_on_gpu(fast_backend, "what it takes of a GPU's memory is watched in test_gpu.py")
    allowed = 3 * 4 * points * shape[2] + 64 * MIB
    assert allowed < 4 * points**2 / 3
    used = extra_peak(fast_backend, shape, kind, foreground)
    assert used <= allowed, f"{used / MIB:.1f} MiB, allowed {allowed / MIB:.1f} MiB"


@pytest.mark.parametrize(("kind", "channels"), [("gradient", 16), ("gradient", 64), ("loss alone", 64), ("map", 64)])
def test_extra_peak_of_the_compiled_backend(compiled_backend: str, kind: str, channels: int) -> None:
    """At most three times the features' own bytes and 64 MiB, features being large enough for the factor to count."""
    shape = (2, 2, channels, 256, 256)
    features = 4 * 4 * channels * 256**2
    used = extra_peak(compiled_backend, shape, kind, block=8)
    assert used <= 3 * features + 64 * MIB, f"{used / MIB:.1f} MiB for {features / MIB:.1f} MiB of features"


MEASURE_KEYS = """
import resource, sys
import torch
from semicl_kernels import supervised_contrastive_loss

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def data(samples, keys):
    return torch.randn(samples, 1, 128), torch.arange(samples) % 100, torch.randn(keys, 128), torch.arange(keys) % 100

def run(features, labels, keys, key_labels):
    options = dict(keys=keys, key_labels=key_labels, backend=sys.argv[1])
    supervised_contrastive_loss(features.requires_grad_(), labels, **options).backward()

run(*data(64, 128))
given = data(4096, 65536)
before = peak()
run(*given)
print(peak() - before)
"""


def test_keys_are_held_twice_and_never_their_products(compiled_backend: str) -> None:
    """Of unit length, and then by class; of 4096 samples and 65536 keys the matrix would be 1 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_KEYS, compiled_backend],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert int(done.stdout) <= 2 * (4096 + 65536) * 128 * 4 + 64 * MIB
