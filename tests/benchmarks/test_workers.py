"""A process that dies, fails or hangs is told apart and replaced."""

import os
import time

import pytest

from benchmarks.workers import Worker


def answer(device):
    return device.name, os.getpid()


def dies(device):
    os._exit(1)


def hangs(device):
    time.sleep(600)


def fails(device):
    raise RuntimeError("CUDA error: an illegal memory access")


@pytest.fixture(scope="module")
def worker():
    with Worker("interpreter", 1) as one:
        yield one


def test_jobs_share_a_process(worker):
    first, second = worker.run(answer, 60), worker.run(answer, 60)
    assert first.error is None
    assert first.value[0] == "interpreter"
    assert first == second


@pytest.mark.parametrize(
    ("job", "timeout", "error"),
    [
        (dies, 60, "died"),
        (hangs, 4, "more than 4 s"),
        (fails, 60, "RuntimeError: CUDA error: an illegal memory access"),
    ],
)
def test_whoever_stops_a_process_does_not_stop_the_next_job(worker, job, timeout, error):
    before = worker.run(answer, 60)
    assert before.error is None  # the process is there: its start does not count
    assert error in worker.run(job, timeout).error
    after = worker.run(answer, 60)
    assert after.value[0] == "interpreter"
    assert after != before
