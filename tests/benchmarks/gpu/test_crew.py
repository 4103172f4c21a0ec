"""A process that dies, fails or hangs is told apart, named, and replaced."""

import os
import time

import pytest

from benchmarks.gpu.crew import Crew


def answer(device, note):
    return device.name, os.getpid()


def dies(device, note):
    note("first")
    note("second")
    os._exit(1)


def hangs(device, note):
    note("sleeper")
    time.sleep(600)


def fails(device, note):
    note("culprit")
    raise RuntimeError("CUDA error: an illegal memory access")


@pytest.fixture(scope="module")
def crew():
    with Crew(toy=True) as one:
        yield one


def test_jobs_share_a_process(crew):
    first, second = crew.run(answer, 60), crew.run(answer, 60)
    assert first.error is None
    assert first.value[0] == "interpreter"
    assert first.value == second.value


@pytest.mark.parametrize(
    ("job", "seconds", "at", "error"),
    [
        (dies, 60, "second", "died"),
        (hangs, 4, "sleeper", "more than 4 s"),
        (fails, 60, "culprit", "RuntimeError: CUDA error: an illegal memory access"),
    ],
)
def test_whoever_stops_a_process_is_named_and_the_next_job_runs(crew, job, seconds, at, error):
    assert crew.run(answer, 60).error is None  # the process is there: its start does not count
    outcome = crew.run(job, seconds)
    assert error in outcome.error
    assert outcome.at == at
    assert crew.run(answer, 60).value[0] == "interpreter"
