"""What the device could do at most, measured in the same run: the rates that times are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .. import flops
from ..problems import Shape
from .device import Device

TRIES = 12


@dataclass(frozen=True)
class Sizes:
    """Of what is measured: the side of a matrix, the bytes of a buffer."""

    side: int
    buffer: int


ON_GPU = Sizes(8192, 1 << 30)
TOY = Sizes(64, 1 << 16)


def rates(device: Device, note: Callable[[str], None]) -> dict[str, float | None]:
    """Return the rates of matrix products (FLOP/s) and copies (bytes read and written a second), and of exponentials
    by computation."""
    sizes = TOY if device.toy else ON_GPU
    return {
        "bfloat16_flops": product_rate(device, sizes.side, torch.bfloat16),
        "float32_flops": product_rate(device, sizes.side, torch.float32),
        "copied_bytes": copy_rate(device, sizes.buffer),
        "exponentials": device.exponentials_per_second(),
    }


def median_seconds(device: Device, call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    return statistics.median(device.timed(call) for _ in range(TRIES))


def product_rate(device: Device, side: int, dtype: torch.dtype) -> float:
    """On random numbers: a GPU multiplies zeros faster."""
    a, b = (torch.randn(side, side, device=device.place).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / median_seconds(device, lambda: torch.mm(a, b, out=out))


def copy_rate(device: Device, size: int) -> float:
    source = torch.ones(size, dtype=torch.uint8, device=device.place)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(device, lambda: target.copy_(source))


def least_milliseconds(shape: Shape, dtype: torch.dtype, found: dict[str, float | None]) -> dict[str, float | None]:
    """Return the time that each rate alone would take for a shape: bfloat16 products of the tiled formula, one
    exponential a pair, and the features read and their gradient written once."""
    needed = {
        "bfloat16_flops": flops.tiled(shape),
        "exponentials": flops.exponentials(shape),
        "copied_bytes": 2 * shape.feature_bytes(dtype),
    }
    least: dict[str, float | None] = {}
    for name, amount in needed.items():
        rate = found.get(name)
        least[name] = None if rate is None else 1e3 * amount / rate
    return least
