"""What must hold before any test module, and anything that one imports, is loaded."""

from __future__ import annotations

import os
import time

import pytest
import torch

# Without a GPU Triton's interpreter runs the kernels. Triton reads this once, when something first imports it: other
# packages that tests use do, so it is too late anywhere further down.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Processes that test side by side share the cores.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
torch.set_num_threads(max(1, torch.get_num_threads() // WORKERS))

BEGIN = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where SEMICL_TEST_SECONDS says how long the tests may take, those that come later are skipped."""
    seconds = float(os.environ.get("SEMICL_TEST_SECONDS") or "inf")
    if time.monotonic() - BEGIN > seconds:
        pytest.skip(f"needs more time: SEMICL_TEST_SECONDS={seconds:.0f} are over")
