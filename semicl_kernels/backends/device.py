"""Whether Triton runs here and on which GPU, and the options that all launches of its kernels share.

With ``TRITON_INTERPRET=1`` in the environment Triton's interpreter runs the kernels on tensors of the CPU, for tests.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from .base import AVAILABLE

ALIGNMENT = 16  # bytes: what Triton asks of addresses, and asynchronous copies read from
LEAST_CHANNELS = 16
PROGRAMS_PER_MULTIPROCESSOR = 2  # so that one's exponentials run beside another's products (tile_configs.py)
GROUPS_AT_ONCE = 1024
TILE_ELEMENTS = 4096  # of a tile that is moved
# Products and sums may be fused; said explicitly, as Triton's default changes.
OPTIONS = {"enable_fp_fusion": True}


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.assume_constant_result
def state() -> str:
    return find_state()


@cache
def find_state() -> str:
    if not interpreted() and not torch.cuda.is_available():
        return "torch sees no GPU; if there is one, install a torch for it (https://pytorch.org/get-started)"
    if find_spec("triton") is None:
        return "triton is not installed: it comes with torch for GPUs, else run `pip install triton`"
    if interpreted():
        return AVAILABLE
    if torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than sm_80 (Ampere): use backend='tiled'"
    return AVAILABLE


def runs_on(device: torch.device) -> bool:
    """Whether Triton, where it is available, runs kernels on tensors of the device."""
    return device.type == ("cpu" if interpreted() else "cuda")


class Chip(NamedTuple):
    """What a device is to the tile table, and how many programs fill it."""

    architecture: str
    programs: int


@cache
def chip(device: torch.device) -> Chip:
    if device.type == "cpu":
        return Chip("interpreter", 3)
    properties = torch.cuda.get_device_properties(device)
    programs = PROGRAMS_PER_MULTIPROCESSOR * properties.multi_processor_count
    if torch.version.hip is not None:
        return Chip("gfx942", programs)
    # sm_120, of workstations and PCs, has the tensor cores' instructions of Ampere and the shared memory of Ada.
    return Chip({9: "sm_90", 10: "sm_100", 11: "sm_100"}.get(properties.major, "sm_80"), programs)


def padded(channels: int) -> int:
    """The power of two that a tile's channels are padded to, at least what a tensor core multiplies."""
    return max(LEAST_CHANNELS, 1 << (channels - 1).bit_length())


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the device of the tensors the one that kernels are launched on."""
    if device.type == "cpu" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
