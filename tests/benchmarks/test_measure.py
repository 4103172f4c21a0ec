"""Values come before times, and what fails beside the clock takes no time away."""

from dataclasses import replace

import pytest
import torch

from benchmarks import measure
from benchmarks.devices import Cpu, Interpreter
from benchmarks.measure import task_result
from benchmarks.plan import Task
from benchmarks.problems import dense, hippocampus
from benchmarks.providers import PROVIDERS

TASK = Task(dense(32, 16), ("fused", "anchors-only"), 0.01)


class WithoutProfiler(Cpu):
    def kernel_times(self, call):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")


class WithKernels(Cpu):
    def kernel_times(self, call):
        return {"pack": (2, 0.5), "gradient": (1, 4.0), "sums": (3, 2.0)}


def wrong(problem):
    return lambda: 1.01 * PROVIDERS["tiled"].prepare(problem)()


def test_what_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setitem(measure.PROVIDERS, "fused", replace(PROVIDERS["fused"], prepare=wrong))
    found = task_result(TASK, TASK.providers, Cpu())["providers"]
    assert found["fused"]["skipped"].startswith("wrong: ")
    assert found["fused"]["loss_error"] == pytest.approx(0.01, rel=1e-2)
    assert found["anchors-only"]["median_ms"] > 0


def test_what_raises_says_why(monkeypatch):
    monkeypatch.setitem(measure.PROVIDERS, "fused", replace(PROVIDERS["fused"], prepare=lambda problem: 1 / 0))
    found = task_result(TASK, TASK.providers, Cpu())["providers"]
    assert found["fused"] == {"skipped": "failed: ZeroDivisionError: division by zero"}


def test_what_does_not_fit_is_not_tried(monkeypatch):
    monkeypatch.setattr(Cpu, "free_bytes", lambda self: 1 << 20)
    found = task_result(replace(TASK, shape=hippocampus(16)), ("authors",), Cpu())["providers"]
    assert found["authors"]["skipped"].startswith("out of memory: it would need about ")


def test_a_profiler_that_fails_leaves_the_times():
    timed = task_result(TASK, TASK.providers, WithoutProfiler())["providers"]["fused"]
    assert timed["median_ms"] > 0
    assert "CUPTI_ERROR" in timed["not_profiled"]


def test_passes_over_pairs_are_the_two_longest_kernels():
    timed = task_result(TASK, TASK.providers, WithKernels())["providers"]["fused"]
    assert timed["launches"] == 6
    assert timed["pairs_ms"] == 6.0


def test_the_interpreter_tells_neither_work_nor_memory():
    device = Interpreter()
    assert device.executed_flops(TASK.shape, print) is None
    assert device.peak_bytes(TASK.shape, torch.float32, "triton", print) is None
