"""The jobs of the benchmark: what a process with a device does and hands back, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import accuracy, flops
from .devices import Call, Cpu
from .plan import Task
from .problems import Problem, Shape, build, type_name
from .providers import PROVIDERS
from .timing import ratio

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Relative, of value and gradient: ours is not timed where it is wrong."""

Results = dict[str, dict[str, Any]]


def one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}"[:300]


def facts(task: Task) -> dict[str, Any]:
    """Return what a task is, without measuring."""
    shape, blocks = task.shape, task.shape.blocks()
    return {
        **asdict(shape),
        "dtype": type_name(task.dtype),
        "points": shape.points,
        "groups_with_anchors": len(blocks),
        "anchors": sum(block.anchors for block in blocks),
        "feature_bytes": shape.feature_bytes(task.dtype),
        "dense_flops": flops.dense(shape),
        "anchored_flops": flops.anchored(shape),
    }


@lru_cache(maxsize=2)
def problem_of(shape: Shape, dtype: torch.dtype, place: torch.device) -> Problem:
    return build(shape, dtype, place)


@lru_cache(maxsize=2)
def expected(shape: Shape, dtype: torch.dtype, place: torch.device) -> tuple[Tensor, Tensor]:
    """Return value and gradient of the problem in float32, by the backend that is plain PyTorch in linear memory."""
    features = problem_of(shape, dtype, place).features.detach().float().requires_grad_()
    problem = Problem(features, problem_of(shape, dtype, place).labels, shape.block)
    return PROVIDERS["tiled"].call(problem)()


def reason_against(name: str, shape: Shape, dtype: torch.dtype, device: Cpu) -> str | None:
    """Return why a provider is not tried, or None."""
    provider = PROVIDERS[name]
    refusal = provider.refuses(shape, dtype, device.place)
    if refusal is not None:
        return refusal
    needed, limit = provider.expected_bytes(shape, dtype), int(device.spare * device.free_bytes())
    if needed <= limit:
        return None
    return f"out of memory: it would need about {needed / 2**30:.0f} GiB of {limit / 2**30:.0f}"


def warm_up(name: str, shape: Shape, dtype: torch.dtype, device: Cpu) -> tuple[Call | None, dict[str, Any]]:
    """Compile and run a provider; return its call, or None with the reason, and the errors of its value and gradient.

    Raises:
        RuntimeError: if the device cannot run anything any more.
    """
    reason = reason_against(name, shape, dtype, device)
    if reason is not None:
        return None, {"skipped": reason}
    try:
        call = PROVIDERS[name].call(problem_of(shape, dtype, device.place))
        found = accuracy.error(call(), expected(shape, dtype, device.place))
        errors = {"loss_error": found.loss, "gradient_error": found.gradient}
    except torch.OutOfMemoryError:
        return None, {"skipped": "out of memory"}
    except Exception as error:
        device.settle()
        return None, {"skipped": f"failed: {one_line(error)}"}
    device.settle()
    if PROVIDERS[name].backend and not max(errors.values()) <= TOLERANCE[dtype]:
        return None, {"skipped": "wrong: its value or gradient is not that of plain PyTorch", **errors}
    return call, errors


def task_result(task: Task, names: tuple[str, ...], device: Cpu) -> dict[str, Any]:
    """Return of every provider, checked before it is timed, its times, ratio to ours, work and memory."""
    results: Results = {}
    calls: dict[str, Call] = {}
    dtypes = {name: PROVIDERS[name].dtype or task.dtype for name in names}
    for name in names:
        call, results[name] = warm_up(name, task.shape, dtypes[name], device)
        if call is not None:
            calls[name] = call
    times = device.times(calls, task.seconds) if calls else {}
    for name, time in times.items():
        results[name] |= time.summary()
        if device.own[0] in times:
            results[name]["ratio_to_fused"] = ratio(time, times[device.own[0]])
        if name in device.own:
            results[name] |= device_work(calls[name], device)
            seconds = 1e-3 * (results[name].get("graph_ms") or results[name]["median_ms"])
            results[name] |= work(device.executed_flops(task.shape, calls[name]), seconds, dtypes[name], device)
    sizes = {name: device.peak_bytes(task.shape, dtypes[name], name, calls[name]) for name in calls}
    return {"providers": results, "extra_peak_bytes": sizes}


def device_work(call: Call, device: Cpu) -> dict[str, Any]:
    """Return the time of a call in a CUDA graph, its launches, and the time of its two longest kernels: the passes over
    the pairs, where there are many. What a device cannot tell is left out, with the error where there was one."""
    found: dict[str, Any] = {}
    try:
        replays = device.graph_times(call)
        found |= {} if replays is None else {"graph_ms": 1e3 * replays.median}
    except Exception as error:
        found["not_captured"] = one_line(error)
    try:
        kernels = device.kernel_times(call)
        if kernels:
            found["launches"] = sum(count for count, _ in kernels.values())
            found["pairs_ms"] = sum(sorted(time for _, time in kernels.values())[-2:])
    except Exception as error:
        found["not_profiled"] = one_line(error)
    device.settle()
    return found


def work(executed: int | None, seconds: float, dtype: torch.dtype, device: Cpu) -> Mapping[str, float]:
    peak = None if executed is None else device.peak_flops(dtype)
    if executed is None or peak is None:
        return {}
    return {
        "executed_flops": executed,
        "executed_gflops": 1e-9 * executed / seconds,
        "peak_gflops": 1e-9 * peak,
        "executed_over_peak": executed / seconds / peak,
    }


def error_result(shape: Shape, dtype: torch.dtype, name: str, device: Cpu) -> dict[str, object]:
    """Return the errors of one of ours against float64, plain PyTorch's beside them."""
    return accuracy.compare(shape, dtype, str(PROVIDERS[name].backend), device.place)
