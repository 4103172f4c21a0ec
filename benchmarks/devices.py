"""What the benchmark asks of a device: a CPU, an NVIDIA GPU, or Triton's interpreter.

On a CPU calls are timed in turn, and memory is the growth of a process. On a GPU ``triton.testing`` times them: a call
between two events, the L2 cache overwritten before, host work included where the GPU waits for it; a CUDA graph's
replay without it. Memory is what torch's allocator hands out. The interpreter runs the code of a GPU on a CPU; its
times say nothing.
"""

from __future__ import annotations

import gc
import subprocess
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property

import psutil
import torch

from semicl_kernels.backends import cpu

from . import flops, machine, memory
from .problems import Shape, type_name
from .timing import Times, interleaved

Call = Callable[[], object]
PEAK_TRIES = 7
PEAK_SECONDS = 0.05  # after every round: the processor's speed changes from second to second
PRODUCT_SIDE = 8192


class Cpu:
    name = "cpu"
    own = ("fused", "fused-bf16")
    place = torch.device("cpu")
    spare = 0.75  # of the memory there is; more would push the machine into swapping or killing
    takes_turns = True  # several providers are timed in one job

    def __init__(self, threads: int | None = None) -> None:
        self.peaks: dict[torch.dtype, float] = {}
        if threads:
            torch.set_num_threads(threads)

    def settle(self) -> None:
        """Wait until all work is done, and give back memory that is kept for later.

        Raises:
            RuntimeError: if work failed; on a GPU nothing can run in this process any more then.
        """

    def free_bytes(self) -> int:
        return int(psutil.virtual_memory().available)

    def times(self, calls: Mapping[str, Call], seconds: float) -> dict[str, Times]:
        self.peaks.clear()
        return interleaved(calls, seconds, self.look_at_peak)

    def graph_times(self, call: Call) -> Times | None:
        """Return the times of the call's work without its host code."""
        return None

    def look_at_peak(self) -> None:
        """Measure the peak: the best of a task, for a lower one would flatter the share of it that is reached."""
        for dtype in (torch.float32, *((torch.bfloat16,) if cpu.instruction_set()[1] else ())):
            found = 2 * cpu.peak_multiply_adds(dtype, PEAK_SECONDS)
            self.peaks[dtype] = max(found, self.peaks.get(dtype, 0))

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """Return the most operations a second that the device can do in products of the dtype."""
        if not self.peaks:
            self.look_at_peak()
        # Without products of its own a 16-bit dtype is computed in float32.
        return self.peaks.get(dtype, self.peaks[torch.float32])

    def executed_flops(self, shape: Shape, call: Call) -> int | None:
        """Return the operations in products of a call of ours."""
        return flops.executed(call)

    def peak_bytes(self, shape: Shape, dtype: torch.dtype, name: str, call: Call) -> int | None:
        """Return by how much the peak of memory in a provider's call exceeds what was taken before."""
        return memory.peak_bytes(shape, dtype, name)

    def kernel_times(self, call: Call) -> dict[str, tuple[int, float]] | None:
        """Return how often a call launches each kernel, and the milliseconds of all of its launches."""
        return None

    def describe(self) -> dict[str, object]:
        for _ in range(PEAK_TRIES):
            self.look_at_peak()
        name, narrow = cpu.instruction_set()
        peaks = {type_name(dtype): 1e-9 * peak for dtype, peak in self.peaks.items()}
        return {**machine.describe(), "instruction_set": name, "bfloat16_products": narrow, "peak_gflops": peaks}


class Interpreter(Cpu):
    name = "interpreter"
    own = ("triton", "cuda")

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        # It computes with numpy what a GPU computes silently: the logarithm of 0, 0 times infinity.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")

    def times(self, calls: Mapping[str, Call], seconds: float) -> dict[str, Times]:
        return interleaved(calls, seconds)

    def executed_flops(self, shape: Shape, call: Call) -> None:
        return None

    def peak_bytes(self, shape: Shape, dtype: torch.dtype, name: str, call: Call) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {**machine.describe(), "name": "Triton's interpreter"}


class Gpu(Cpu):
    name = "cuda"
    own = ("triton", "cuda")
    spare = 0.9
    takes_turns = False

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        self.place = torch.device("cuda", torch.cuda.current_device())
        self.properties = torch.cuda.get_device_properties(self.place)

    def settle(self) -> None:
        torch.cuda.synchronize(self.place)
        gc.collect()
        torch.cuda.empty_cache()

    def free_bytes(self) -> int:
        return torch.cuda.mem_get_info(self.place)[0]

    def times(self, calls: Mapping[str, Call], seconds: float) -> dict[str, Times]:
        from triton.testing import do_bench

        share = 1e3 * seconds / len(calls)
        found = {name: do_bench(call, warmup=0.1 * share, rep=share, return_mode="all") for name, call in calls.items()}
        return {name: Times([1e-3 * value for value in values]) for name, values in found.items()}

    def graph_times(self, call: Call) -> Times:
        from triton.testing import do_bench_cudagraph

        return Times([1e-3 * value for value in do_bench_cudagraph(call, return_mode="all")])

    @cached_property
    def product_flops(self) -> float:
        """bfloat16 products of random numbers: a GPU multiplies zeros faster."""
        a, b = (torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, device=self.place).bfloat16() for _ in range(2))
        return 2 * PRODUCT_SIDE**3 / self.times({"mm": lambda: torch.mm(a, b)}, 0.2)["mm"].median

    def peak_flops(self, dtype: torch.dtype) -> float:
        return self.product_flops

    def executed_flops(self, shape: Shape, call: Call) -> int:
        return flops.tiled(shape)

    def peak_bytes(self, shape: Shape, dtype: torch.dtype, name: str, call: Call) -> int:
        self.settle()
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        call()
        self.settle()
        return torch.cuda.max_memory_allocated(self.place) - before

    def kernel_times(self, call: Call) -> dict[str, tuple[int, float]]:
        from torch.profiler import ProfilerActivity, profile

        self.settle()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            call()
            self.settle()
        found: dict[str, tuple[int, float]] = {}
        for event in seen.events():
            copies = event.name.startswith(("Memcpy", "Memset"))
            if event.device_type.name == "CUDA" and not event.is_user_annotation and not copies:
                count, time = found.get(event.name, (0, 0.0))
                found[event.name] = (count + 1, time + 1e-3 * event.time_range.elapsed_us())
        return found

    def describe(self) -> dict[str, object]:
        """Return the GPU's name and sizes, its driver, and its clock now and at most."""
        query = "nvidia-smi -i 0 --query-gpu=driver_version,clocks.sm,clocks.max.sm --format=csv,noheader"
        said = subprocess.run(query, shell=True, capture_output=True, text=True, check=False)
        return {
            **machine.describe(),
            "name": self.properties.name,
            "capability": f"sm_{self.properties.major}{self.properties.minor}",
            "multiprocessors": self.properties.multi_processor_count,
            "memory_bytes": self.properties.total_memory,
            "driver_and_clocks": said.stdout.strip(),
            "peak_gflops": {"bfloat16": 1e-9 * self.product_flops},
        }


DEVICES: dict[str, type[Cpu]] = {device.name: device for device in (Cpu, Gpu, Interpreter)}
