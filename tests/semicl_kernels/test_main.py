"""`python -m semicl_kernels`: what is there, in what state, and a check of it."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from semicl_kernels import available_backends


def test_report_names_versions_and_the_state_of_every_backend() -> None:
    # Triton's interpreter would take minutes for the check.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "semicl_kernels"], capture_output=True, text=True, check=True, env=environment
    )
    assert torch.__version__.split("+")[0] in done.stdout
    for name in available_backends():
        assert name in done.stdout
