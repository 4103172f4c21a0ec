"""What the benchmark asks of the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Call = Callable[[], object]


class Device(Protocol):
    """Runs calls, and says what can be seen of them; None stands for what this device cannot tell."""

    name: str
    toy: bool  # its times say nothing about speed
    place: torch.device
    compiler: str  # of torch.compile

    def settle(self) -> None:
        """Wait until all work is done.

        Raises:
            RuntimeError: if some of it failed; on a GPU nothing can run in this process any more then.
        """

    def timed(self, call: Call) -> float:
        """Return the seconds of one call."""

    def peak_bytes(self, call: Call) -> int | None:
        """Return by how much the call's peak of allocated memory exceeds what was allocated before."""

    def launches(self, call: Call) -> int | None:
        """Return how many kernels the call launches."""

    def captured(self, call: Call) -> Call | None:
        """Return a call that replays the work of this one without its host code."""

    def free_bytes(self) -> int:
        """Return the memory that a call may hope for."""

    def total_bytes(self) -> int:
        """Return the memory of the device."""

    def release(self) -> None:
        """Give back memory that is kept for later calls."""

    def exponentials_per_second(self) -> float | None:
        """Return the most exponentials a second, by the number of units that compute them and their clock."""

    def describe(self) -> dict[str, object]:
        """Return what the device is."""


def open_device(toy: bool) -> Device:
    """Return the GPU of this process, or Triton's interpreter for a toy run."""
    if toy:
        from .interpreter import Interpreter

        return Interpreter()
    from .nvidia import Gpu

    return Gpu()
