"""Regression cases for pytest-benchmark, one for each part of the code that has its own speed.

``pytest tests/benchmarks/test_regression.py --benchmark-autosave``, later ``--benchmark-compare``.
"""

import pytest
import torch

from benchmarks.problems import build, dense, hippocampus
from benchmarks.providers import PROVIDERS
from semicl_kernels.backends import cpu

CASES = {
    "one-pass": (hippocampus(16), "fused"),
    "two-passes": (dense(4096, 64), "fused"),
    "bfloat16": (dense(2048, 128), "fused-bf16"),
    "tiled": (hippocampus(16), "tiled"),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_backward(benchmark, case):
    shape, name = CASES[case]
    call = PROVIDERS[name].call(build(shape, PROVIDERS[name].dtype or torch.float32))
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)
    before = cpu.executed_multiply_adds()
    call()
    # What decides the time: the triangle is used and groups without anchors cost nothing.
    executed = cpu.executed_multiply_adds() - before
    assert executed <= sum(3 * block.anchors * block.points * shape.channels for block in shape.blocks())
    assert (executed == 0) == (name == "tiled")
