"""Every kernel and every entry of the tile table compiles for its chip, fits it, and is what it was meant to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install triton")

SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
PASSES_OVER_PAIRS = ("sum_pairs", "log_sum_pairs", "row_gradient")
WARP_GROUP = 128  # threads
SLOTS_AT_ONCE = 8  # semicl_kernels/triton_kernels/logsumexp.py
PARTITION = ("count_classes", "sum_chunks", "sum_groups", "place_points", "place_views")
CASES = [
    pytest.param(architecture, dtype, marks=() if (architecture, dtype) == ("sm_90", "bfloat16") else pytest.mark.slow)
    for architecture in SHARED_BYTES
    for dtype in ("bfloat16", "float16", "float32")
]


def compiled(architecture: str, dtype: str, cache: Path) -> list[dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.semicl_kernels.triton_kernels.compile_all", architecture, dtype],
        capture_output=True,
        text=True,
        env={**environment, "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("architecture", "dtype"), CASES)
def test_kernels_compile_and_fit(architecture: str, dtype: str, tmp_path: Path) -> None:
    kernels = compiled(architecture, dtype, tmp_path)
    names = {kernel["kernel"] for kernel in kernels}
    assert names >= {*PASSES_OVER_PAIRS, *PARTITION, "gather_rows", "scatter_rows"}
    for kernel in kernels:
        assert kernel["shared"] <= SHARED_BYTES[architecture], kernel
    if architecture == "sm_90":
        for kernel in kernels:
            assert_machine_code(kernel)


def assert_machine_code(kernel: dict[str, Any]) -> None:
    """On Hopper: nothing spilt, products on tensor cores, one exponential a similarity where the maximum is known."""
    opcodes = kernel["opcodes"]
    assert kernel["stack"] == kernel["local"] == 0, kernel
    assert not [name for name in opcodes if name.startswith(("LDL", "STL"))], kernel
    if kernel["kernel"] == "store_logsumexp":
        # One after another, each slot would wait for memory.
        assert kernel["loads_at_once"] >= SLOTS_AT_ONCE, kernel
    if kernel["kernel"] not in PASSES_OVER_PAIRS:
        return
    assert any(name.startswith("HGMMA") for name in opcodes), kernel
    constants = kernel["constants"]
    if kernel["kernel"] == "row_gradient" and constants["BOUNDED"]:
        # Each of the two loops, without and with masks, holds one exponential for every similarity of a thread; a warp
        # group needs the weights of all, also where a second one has the other half of the gradient's channels.
        similarities = constants["ROWS"] * constants["STREAMED"] // WARP_GROUP
        assert opcodes["MUFU.EX2"] == 2 * similarities, kernel
