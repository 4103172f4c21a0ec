"""Everything that is measured about one shape, as plain numbers for the result file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import torch

from semicl_kernels.backends import cpu

from . import flops, memory
from .machine import available_bytes
from .problems import Shape
from .providers import PROVIDERS, Provider
from .timing import interleaved, ratio

PEAK_SECONDS = 0.05  # after every round; the processor's speed changes from second to second
SPARE = 0.75  # of the memory there is; more would push the machine into swapping or killing


@dataclass(frozen=True)
class Task:
    """A shape, who computes it, for how long."""

    shape: Shape
    timed: tuple[str, ...]
    weighed: tuple[str, ...]  # whose memory is measured
    seconds: float


@dataclass
class Peaks:
    """The processor's peak, measured again after every round, in multiply-adds a second."""

    dtypes: tuple[torch.dtype, ...]
    seen: dict[torch.dtype, list[float]] = field(default_factory=dict)

    def look(self) -> None:
        for dtype in self.dtypes:
            self.seen.setdefault(dtype, []).append(cpu.peak_multiply_adds(dtype, PEAK_SECONDS))

    def best(self, dtype: torch.dtype) -> float:
        """What the processor could do in this run: a lower one would flatter the share of it that was reached."""
        return max(self.seen[dtype])


def fits(provider: Provider, shape: Shape) -> str | None:
    """Return None, or why the provider is not tried on the shape."""
    needed, limit = provider.expected_bytes(shape), int(SPARE * available_bytes())
    if needed <= limit:
        return None
    return f"out of memory: it would need about {needed / 2**30:.0f} GiB of {limit / 2**30:.0f}"


def supported(names: Iterable[str]) -> list[Provider]:
    """The providers of these names that mean something on this processor."""
    narrow = cpu.instruction_set()[1]
    return [PROVIDERS[name] for name in names if narrow or PROVIDERS[name].dtype != torch.bfloat16]


def speed(task: Task) -> dict[str, dict[str, object]]:
    """Return for every provider its times, its ratio to the fused loss and its work, or why it was left out."""
    results: dict[str, dict[str, object]] = {}
    calls: dict[str, Callable[[], None]] = {}
    for provider in supported(task.timed):
        reason = fits(provider, task.shape)
        if reason is None:
            calls[provider.name] = provider.call(task.shape)
        else:
            results[provider.name] = {"skipped": reason}
    peaks = Peaks(tuple({PROVIDERS[name].dtype for name in calls}))
    times = interleaved(calls, task.seconds, peaks.look)
    if not peaks.seen:
        peaks.look()
    for name, call in calls.items():
        results[name] = {**times[name].summary(), "ratio_to_fused": ratio(times[name], times["fused"])}
        if PROVIDERS[name].name.startswith("fused"):
            results[name] |= work(call, times[name].median, peaks.best(PROVIDERS[name].dtype))
    return results


def work(call: Callable[[], None], seconds: float, peak: float) -> dict[str, object]:
    executed = flops.executed(call)
    return {
        "executed_flops": executed,
        "executed_gflops": 1e-9 * executed / seconds,
        "peak_gflops": 2e-9 * peak,
        "executed_over_peak": executed / seconds / (2 * peak),
    }


def memories(task: Task) -> dict[str, int | None]:
    """Return the extra peak memory of every provider that fits, in bytes."""
    return {
        provider.name: memory.peak_bytes(task.shape, provider.name)
        for provider in supported(task.weighed)
        if fits(provider, task.shape) is None
    }


def shape_result(task: Task) -> dict[str, object]:
    shape = task.shape
    return {
        **asdict(shape),
        "points": shape.points,
        "groups_with_anchors": len(shape.blocks()),
        "anchors": sum(block.anchors for block in shape.blocks()),
        "feature_bytes": shape.feature_bytes(),
        "dense_flops": flops.dense(shape),
        "anchored_flops": flops.anchored(shape),
        "providers": speed(task),
        "extra_peak_bytes": memories(task),
    }
