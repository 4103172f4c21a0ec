"""The jobs of the benchmark: what a process with the device does and hands back, as plain numbers.

:func:`shape_result` times the providers of a shape. What needs a profiler, and what is of our own passes alone, is
another job, :func:`details`, so that its failure takes no time away.

Every job gets the device and ``note``, which tells the process that waits for it who is at work: should a kernel take
this process down or hang, that is who did it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

from semicl_kernels.backends import cuda, triton
from semicl_kernels.backends.base import Groups
from semicl_kernels.backends.fused import peak_of

from .. import accuracy, flops
from ..problems import Problem, Shape, build
from ..timing import interleaved
from .device import Call, Device
from .plan import Task
from .providers import OWN, PROVIDERS, Provider

Note = Callable[[str], None]
Results = dict[str, dict[str, object]]
Banned = Mapping[str, str]  # provider and dtype -> why it is not tried any more

SPARE = 0.9  # of the free memory
REPLAYED = "replayed "
HOST_CALLS = 100
MOST_REHEARSED_BYTES = 4 << 30
TIMING, DETAILS = "timing", "details"  # at work, where it is no provider alone
PAIRS = {"triton": (triton.split, triton.Pairs), "cuda": (cuda.pack, cuda.Pairs)}
PAIR_CALLS = 9
SCALE, BOUND = 10.0, 10.1


def banned_name(provider: str, dtype: torch.dtype) -> str:
    return f"{provider} {dtype}"


@dataclass(frozen=True)
class Run:
    """One call of a provider: loss and gradient, which are dropped."""

    loss: Callable[[], torch.Tensor]
    problem: Problem

    def __call__(self) -> None:
        torch.autograd.grad(self.loss(), self.problem.features)


def lacks_memory(provider: Provider, task: Task, device: Device) -> str | None:
    """Return why the memory does not do, or None."""
    needed, free = provider.expected_bytes(task.shape, task.dtype), device.free_bytes()
    if needed <= SPARE * free:
        return None
    return f"out of memory: needs about {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free"


def reason_against(name: str, task: Task, device: Device, banned: Banned) -> str | None:
    provider = PROVIDERS[name]
    return (
        banned.get(banned_name(name, task.dtype))
        or provider.refuses(task.shape, task.dtype, device)
        or lacks_memory(provider, task, device)
    )


def one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}"[:300]


class Lap:
    """Every provider's calls of one task, and what was seen of them before they are timed."""

    def __init__(self, task: Task, problem: Problem, device: Device) -> None:
        self.task, self.problem, self.device = task, problem, device
        self.calls: dict[str, Call] = {}
        self.results: Results = {}
        self.extra_peak_bytes: dict[str, int | None] = {}

    def warm_up(self, name: str) -> None:
        """Compile and run a provider, weigh it and capture it.

        Raises:
            RuntimeError: if the device cannot run anything any more.
        """
        provider = PROVIDERS[name]
        try:
            call = Run(provider.prepare(self.problem, self.device), self.problem)
            for _ in range(2):
                call()
            self.device.settle()
            self.extra_peak_bytes[name] = self.device.peak_bytes(call)
            self.results[name] = {}
            self.calls[name] = call
        except torch.OutOfMemoryError:
            self.results[name] = {"skipped": "out of memory"}
        except Exception as error:
            self.results[name] = {"skipped": f"failed: {one_line(error)}"}
        if name in self.calls and provider.capturable:
            self.capture(name)
        self.device.settle()
        self.device.release()

    def capture(self, name: str) -> None:
        try:
            replay = self.device.captured(self.calls[name])
        except Exception as error:
            self.results[name]["not_captured"] = one_line(error)
            return
        if replay is not None:
            self.calls[REPLAYED + name] = replay

    def take_times(self) -> None:
        if not self.calls:
            return
        times = interleaved(self.calls, self.task.seconds, timed=self.device.timed)
        for name, own in self.results.items():
            if name not in self.calls:
                continue
            own |= times[name].summary()
            seconds = times[name].median
            if REPLAYED + name in times:
                own["replayed"] = times[REPLAYED + name].summary()
                seconds = times[REPLAYED + name].median
            if self.device.toy:
                continue
            own["dense_equivalent_tflops"] = 1e-12 * flops.dense(self.task.shape) / seconds
            if name in OWN:
                own["executed_tflops"] = 1e-12 * flops.tiled(self.task.shape) / seconds


def shape_result(task: Task, banned: Banned, device: Device, note: Note) -> dict[str, object]:
    """Return everything that is measured about a task."""
    shape = task.shape
    problem = build(shape, task.dtype, device.place)
    lap = Lap(task, problem, device)
    for name in task.providers:
        reason = reason_against(name, task, device, banned)
        if reason is None:
            note(name)
            lap.warm_up(name)
        else:
            lap.results[name] = {"skipped": reason}
    note(TIMING)
    lap.take_times()
    torch.compiler.reset()
    blocks = shape.blocks()
    return {
        **asdict(shape),
        "dtype": str(task.dtype).removeprefix("torch."),
        "points": shape.points,
        "anchors": sum(block.anchors for block in blocks),
        "groups_with_anchors": len(blocks),
        "feature_bytes": shape.feature_bytes(task.dtype),
        "dense_flops": flops.dense(shape),
        "tiled_flops": flops.tiled(shape),
        "exponentials": flops.exponentials(shape),
        "providers": lap.results,
        "extra_peak_bytes": lap.extra_peak_bytes,
    }


def details(task: Task, names: tuple[str, ...], device: Device, note: Note) -> dict[str, dict[str, object]]:
    """Return of each of our backends how many kernels a call launches and, of a dense shape, the milliseconds of its
    passes over pairs alone; or the error."""
    found: dict[str, dict[str, object]] = {}
    for name in names:
        note(DETAILS)
        own = found[name] = {}
        try:
            problem = build(task.shape, task.dtype, device.place)
            call = Run(PROVIDERS[name].prepare(problem, device), problem)
            call()
            own["launches"] = device.launches(call)
            if task.shape.family == "dense":
                own["pairs_ms"] = 1e3 * pair_seconds(task, name, device)
        except Exception as error:
            own["not_detailed"] = one_line(error)
        device.release()
    return found


def dense_group(points: int, channels: int, dtype: torch.dtype, place: torch.device) -> tuple[torch.Tensor, Groups]:
    """Return unit rows (points, channels) and one group of them, every one an anchor."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(points, channels, generator=generator), dim=1)
    own = torch.arange(points, dtype=torch.int32, device=place)
    offsets = torch.tensor([0, points], dtype=torch.int32, device=place)
    return rows.to(place, dtype), Groups(offsets, offsets[1:].clone(), own, own + 1, points, True)


def pair_seconds(task: Task, name: str, device: Device) -> float:
    """Return the median time of the sums and the gradient over the pairs of one dense group, packed rows given."""
    pack, pairs_of = PAIRS[name]
    rows, groups = dense_group(task.shape.points, task.shape.channels, task.dtype, device.place)
    pairs = pairs_of(pack(rows), groups, SCALE, BOUND)
    lse = pairs.logsumexp()
    grad = torch.ones_like(lse)
    peak = peak_of(grad, task.dtype)
    factors, out = pairs.factors(grad, lse, peak), torch.empty_like(rows, dtype=torch.float32)

    def call() -> None:
        pairs.slot_sums()
        pairs.gradient(factors, peak, out)

    call()
    replay = device.captured(call) or call
    return statistics.median(device.timed(replay) for _ in range(1 if device.toy else PAIR_CALLS))


def rehearse(task: Task, name: str, device: Device) -> str:
    """Run a provider of a task once, so that what it compiles is in the caches on disk; return how that went."""
    if PROVIDERS[name].expected_bytes(task.shape, task.dtype) > MOST_REHEARSED_BYTES:
        return "too large to be rehearsed beside others"
    reason = reason_against(name, task, device, {})
    if reason is not None:
        return reason
    problem = build(task.shape, task.dtype, device.place)
    try:
        Run(PROVIDERS[name].prepare(problem, device), problem)()
        device.settle()
    finally:
        torch.compiler.reset()
        device.release()
    return "ran"


def error_result(shape: Shape, dtype: torch.dtype, backend: str, device: Device, note: Note) -> dict[str, object]:
    """Return a backend's errors against float64 and plain PyTorch's beside them."""
    note(backend)
    return accuracy.compare(shape, dtype, backend, "tiled", device.place)


def host_microseconds(shape: Shape, banned: Banned, device: Device, note: Note) -> dict[str, float]:
    """Return for every provider that needs no compiler the median time until a call on a tiny shape returns, the
    device being idle before: what the host does, and what it waits for."""
    task = Task(shape, torch.float32, (), 0)
    problem = build(shape, task.dtype, device.place)
    medians = {}
    for name in (*OWN, "authors", "anchors-only"):
        if reason_against(name, task, device, banned) is not None:
            continue
        note(name)
        try:
            call = Run(PROVIDERS[name].prepare(problem, device), problem)
            medians[name] = 1e6 * statistics.median(host_seconds(call, device))
        except Exception as error:
            print(f"host_us, {name}: {one_line(error)}")
    return medians


def host_seconds(call: Call, device: Device) -> list[float]:
    call()
    seconds = []
    gc.disable()
    try:
        for _ in range(2 if device.toy else HOST_CALLS):
            device.settle()
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    finally:
        gc.enable()
    return seconds
