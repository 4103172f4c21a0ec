"""Triton's interpreter as a device: the same code end to end where there is no GPU. Its times mean nothing."""

from __future__ import annotations

import warnings

import torch

from ..machine import available_bytes
from ..timing import timed
from .device import Call


class Interpreter:
    name = "interpreter"
    toy = True
    place = torch.device("cpu")
    compiler = "aot_eager"

    def __init__(self) -> None:
        # It computes with numpy what a GPU computes silently: the logarithm of 0, 0 times infinity.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")

    def settle(self) -> None:
        pass

    def timed(self, call: Call) -> float:
        return timed(call)

    def peak_bytes(self, call: Call) -> None:
        return None

    def launches(self, call: Call) -> None:
        return None

    def captured(self, call: Call) -> None:
        return None

    def free_bytes(self) -> int:
        return available_bytes()

    def total_bytes(self) -> int:
        return available_bytes()

    def release(self) -> None:
        pass

    def exponentials_per_second(self) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {"name": self.name}
