"""Modules that are loaded again, as notebooks do it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED_AGAIN = """
import importlib
import torch
import semicl_kernels
from semicl_kernels import loss, ops

def gradient():
    features = torch.arange(32.0).reshape(1, 2, 4, 2, 2).sin().requires_grad_()
    loss.local_contrastive_loss(features).backward()
    return features.grad

before = gradient()
try:
    importlib.reload(ops)
except RuntimeError as error:
    print(error)
for module in (loss, semicl_kernels):
    importlib.reload(module)
assert torch.equal(gradient(), before)
"""


@pytest.mark.filterwarnings("ignore")
def test_operators_are_loaded_once_and_stay_usable() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED_AGAIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "semicl_kernels.ops cannot be loaded a second time" in done.stdout
    assert "Restart Python" in done.stdout
