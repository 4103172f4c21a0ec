"""Where there is no GPU the Triton backend runs in Triton's interpreter, a thousand times slower: what to spare it."""

from __future__ import annotations

import os

import pytest

MAX_POINTS = 300  # a dense group of so many takes a few seconds


def is_interpreted(backend: str) -> bool:
    return backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


def examples(backend: str, count: int) -> int:
    """How many drawn examples a backend is given; on a GPU Triton compiles anew for every number of channels."""
    return count // 15 if backend == "triton" else count


def skip_many_points(backend: str, points: int) -> None:
    if is_interpreted(backend) and points > MAX_POINTS:
        pytest.skip(f"needs a GPU: Triton's interpreter takes half a minute for {points} points")


def skip_threads(backend: str) -> None:
    if is_interpreted(backend):
        pytest.skip("needs a GPU: Triton's interpreter has one state for all threads")
