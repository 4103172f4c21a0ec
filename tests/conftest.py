"""What must hold before any test module, and anything that one imports, is loaded."""

from __future__ import annotations

import os

import torch

# Without a GPU Triton's interpreter runs the kernels. Triton reads this once, when something first imports it: other
# packages that tests use do, so it is too late anywhere further down.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
