"""What fails beside the clock takes no time away."""

import pytest
import torch

from benchmarks.gpu import measure
from benchmarks.gpu.interpreter import Interpreter
from benchmarks.gpu.plan import Task
from benchmarks.problems import dense
from semicl_kernels.backends import available_backends
from semicl_kernels.backends.device import interpreted

pytestmark = pytest.mark.skipif(
    available_backends()["triton"] != "available" or not interpreted(),
    reason="needs Triton's interpreter: TRITON_INTERPRET=1 and pip install triton",
)
TASK = Task(dense(32, 16), torch.float32, ("triton",), 0.01)


class WithoutProfiler(Interpreter):
    def launches(self, call):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")


def test_a_profiler_that_fails_leaves_the_times():
    device = WithoutProfiler()
    timed = measure.shape_result(TASK, {}, device, print)["providers"]["triton"]
    assert timed["median_ms"] > 0
    assert "skipped" not in timed
    assert "CUPTI_ERROR" in measure.details(TASK, ("triton",), device, print)["triton"]["not_detailed"]


def test_passes_over_pairs_are_timed_alone():
    found = measure.details(TASK, ("triton",), Interpreter(), print)["triton"]
    assert found["launches"] is None, "which the interpreter cannot tell"
    assert found["pairs_ms"] > 0
