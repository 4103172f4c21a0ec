"""The backends of the primitive, and which of them a call gets.

A new backend is one file beside these with a ``BACKEND``, and one line here.
"""

from __future__ import annotations

import inspect
import warnings

import torch

from . import cpu, cuda, reference, tiled, triton
from .base import AVAILABLE, MAX_SQUARED_NORM, Backend, Fused, Groups, Keys, Positives, Problem, accumulator

# In the order in which "auto" prefers them; no GPU has run "cuda" yet, so it comes after those that take everything.
BACKENDS: dict[str, Backend] = {module.BACKEND.name: module.BACKEND for module in (cpu, triton, tiled, reference, cuda)}

__all__ = [
    "AVAILABLE",
    "BACKENDS",
    "MAX_SQUARED_NORM",
    "Backend",
    "Fused",
    "Groups",
    "Keys",
    "Positives",
    "Problem",
    "accumulator",
    "available_backends",
    "check_backend_name",
    "choose_backend",
]


def available_backends() -> dict[str, str]:
    """Return every backend's name with "available", or with the reason why it is not and the command that mends it."""
    return {name: backend.state() for name, backend in BACKENDS.items()}


def check_backend_name(name: str) -> None:
    """Raise TypeError if ``name`` is no string, and ValueError if there is no backend of that name."""
    if not isinstance(name, str):
        raise TypeError(f"backend must be a string; got {type(name).__name__}")
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}; got {name!r}")


def choose_backend(name: str, device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str:
    """Return the name of the backend that a call gets; "auto" takes the first that can do it.

    ``bound`` is a number that no product ``scale x_i . x_j`` exceeds, or None: see :class:`Backend`.

    Raises:
        TypeError: if ``name`` is no string.
        ValueError: if there is no backend of that name, it is not available, or it does not take the device, dtype,
            number of channels or bound.
    """
    check_backend_name(name)
    if name == "auto":
        return _first(device, dtype, channels, bound)
    backend = BACKENDS[name]
    state = backend.state()
    if state != AVAILABLE:
        raise ValueError(f"backend {name!r} is not available: {state}")
    refusal = backend.refuses(device, dtype, channels, bound)
    if refusal is not None:
        raise ValueError(f"backend {name!r} got {refusal}")
    return name


def _level_of_caller() -> int:
    """Return the stacklevel, for a warning of the function that asks, of the code outside this package."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "semicl_kernels":
        frame, level = frame.f_back, level + 1
    return level


def _first(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str:
    """Return the first backend that is available and takes these; warn of those before it that would if they were."""
    for backend in BACKENDS.values():
        if backend.refuses(device, dtype, channels, bound) is not None:
            continue
        state = backend.state()
        if state == AVAILABLE:
            return backend.name
        if not torch.compiler.is_compiling():
            warnings.warn(
                f"backend 'auto' does without {backend.name!r}, which it prefers here: {state}",
                stacklevel=_level_of_caller(),
            )
    raise AssertionError("backend 'reference' takes everything")
