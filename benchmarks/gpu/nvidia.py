"""One NVIDIA GPU: how calls are timed on it, weighed and counted.

A time is that between two events around one call. Before the first event the L2 cache is overwritten and the host waits
until the GPU is idle, so every call starts with a cold cache, and where the GPU waits for the host to launch, that
counts: it is what a training step would pay. The device's own time is that of a CUDA graph's replay, timed likewise.
Products of float32 are of full precision (no TF32), autocast is off, and callers warm up first, so that no compilation
is timed.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .device import Call

EXPONENTIALS_PER_CLOCK = 16  # of one multiprocessor, sm_80 to sm_100
CACHE_SHARE = 2  # how many L2 caches are overwritten
LEAST_CACHE_BYTES = 64 << 20


class Gpu:
    name = "cuda"
    toy = False
    compiler = "inductor"

    def __init__(self) -> None:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        self.place = torch.device("cuda", torch.cuda.current_device())
        self.properties = torch.cuda.get_device_properties(self.place)

    @cached_property
    def cache_filler(self) -> Tensor:
        size = max(LEAST_CACHE_BYTES, CACHE_SHARE * getattr(self.properties, "L2_cache_size", 0))
        return torch.empty(size, dtype=torch.int8, device=self.place)

    def settle(self) -> None:
        torch.cuda.synchronize(self.place)

    def timed(self, call: Call) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.cache_filler.zero_()
        self.settle()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return 1e-3 * float(begin.elapsed_time(end))

    def peak_bytes(self, call: Call) -> int:
        self.release()
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        call()
        self.settle()
        return torch.cuda.max_memory_allocated(self.place) - before

    def launches(self, call: Call) -> int:
        self.settle()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            call()
            self.settle()
        return sum(
            event.device_type == DeviceType.CUDA
            and not event.is_user_annotation
            and not event.name.startswith(("Memcpy", "Memset"))
            for event in seen.events()
        )

    def captured(self, call: Call) -> Call:
        side = torch.cuda.Stream(self.place)
        side.wait_stream(torch.cuda.current_stream(self.place))
        with torch.cuda.stream(side):
            call()  # what is made once, such as library handles, must be there before the capture
        torch.cuda.current_stream(self.place).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def free_bytes(self) -> int:
        self.release()
        return torch.cuda.mem_get_info(self.place)[0]

    def total_bytes(self) -> int:
        return int(self.properties.total_memory)

    def release(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def exponentials_per_second(self) -> float | None:
        clock = query("clocks.max.sm")
        if clock is None:
            return None
        return EXPONENTIALS_PER_CLOCK * int(self.properties.multi_processor_count) * 1e6 * float(clock)

    def describe(self) -> dict[str, object]:
        """Return the GPU's name, sizes and driver; its clock now and at most, in MHz."""
        return {
            "name": self.properties.name,
            "capability": f"sm_{self.properties.major}{self.properties.minor}",
            "multiprocessors": self.properties.multi_processor_count,
            "memory_bytes": self.properties.total_memory,
            "l2_bytes": getattr(self.properties, "L2_cache_size", None),
            "driver": query("driver_version"),
            "clock_mhz": query("clocks.sm"),
            "most_clock_mhz": query("clocks.max.sm"),
        }


def query(field: str) -> str | None:
    """Return what nvidia-smi says of the first GPU, or None where it says nothing."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.strip()
    return said if done.returncode == 0 and said and "N/A" not in said else None
