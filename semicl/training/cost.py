"""What a stage cost: time and peak memory, summed up over its resumptions."""

import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

MEBIBYTE = 2**20


class Cost(Callback):
    """Seconds of training and the peak of memory.

    On a GPU the peak is that of torch's allocations while the stage trains. On a CPU it is that of the resident set of
    the process since it began: what else the process did before counts too, but a stage alone in its process, as
    `semicl table` runs it, counts itself.
    """

    def __init__(self) -> None:
        self._seconds_before = 0.0
        self._peak_before = 0
        self._start = time.perf_counter()
        self._device = torch.device("cpu")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()
        self._device = trainer.strategy.root_device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    @property
    def seconds(self) -> float:
        """Of training, up to now."""
        return self._seconds_before + time.perf_counter() - self._start

    @property
    def peak_bytes(self) -> int:
        """Of memory, up to now."""
        cuda = self._device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self._device) if cuda else _resident_peak()
        return max(self._peak_before, now)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_bytes": self.peak_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before = state_dict["seconds"]
        self._peak_before = state_dict["peak_bytes"]

    def summary(self) -> dict[str, Any]:
        """As lines of a stage's summary."""
        return {"seconds": round(self.seconds, 1), "peak memory (MiB)": round(self.peak_bytes / MEBIBYTE)}


def _resident_peak() -> int:
    """The highest resident set of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
