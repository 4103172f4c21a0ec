"""Operators in a forked child: they run with one thread, since torch's threads are gone there and parallel loops hang.

This holds for torch's loops in the registered operators and for the compiled backend. Loops of torch around the
operators are not covered: the backward of a stride, the stacking of views, the tiled backend, the backward of the
normalization where a call has keys, weights or a temperature with a gradient, and the sum with a ``.grad`` that is
there already. Call ``torch.set_num_threads(1)`` first in a child that needs those. A thread that begins while an
operator runs in a child may see one torch thread for good.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class _Process:
    """Whether this process is a forked child, and a lock for what torch does not guard in one."""

    def __init__(self) -> None:
        self.forked = False
        self.lock = threading.Lock()

    def mark(self) -> None:
        self.forked = True
        self.lock = threading.Lock()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.mark)


def _set_torch_threads(count: int) -> None:
    # torch replaces its pool at a child's first call; two first calls at once can find it gone.
    with _process.lock:
        torch.set_num_threads(count)


def serial_in_children(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, made to run with one torch thread in a forked child."""

    @wraps(function)
    def wrapped(*args: P.args, **options: P.kwargs) -> R:
        before = torch.get_num_threads() if _process.forked else 1
        if before == 1:
            return function(*args, **options)
        _set_torch_threads(1)
        try:
            return function(*args, **options)
        finally:
            _set_torch_threads(before)

    return wrapped
