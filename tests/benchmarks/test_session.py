"""A provider that takes its process down is named, and the others are measured without it."""

import os
from dataclasses import replace

import torch

from benchmarks import measure
from benchmarks.plan import Plan, Task
from benchmarks.problems import dense
from benchmarks.providers import PROVIDERS
from benchmarks.session import Session

TASK = Task(dense(64, 16), ("fused", "anchors-only"), 0.01)


def dies(problem):
    os._exit(1)


def task_result(task, names, device):
    """A job whose authors' algorithm crashes; the process that runs it has providers of its own."""
    measure.PROVIDERS["authors"] = replace(PROVIDERS["authors"], prepare=dies)
    return MEASURED(task, names, device)


MEASURED = measure.task_result


def session(*tasks: Task) -> Session:
    return Session(Plan(tasks, (), float("inf"), 120), "cpu", float("inf"), None, lambda line: None, 1)


def test_a_provider_that_crashes_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(measure, "task_result", task_result)
    three = ("fused", "authors", "anchors-only")
    tasks = (replace(TASK, providers=three), Task(dense(128, 16), three, 0.01))
    one = session(*tasks)
    shapes = one.run()["shapes"]
    assert shapes["dense-64-16"]["providers"]["authors"] == {"skipped": "failed: its process died"}
    assert "stopped its process at dense-64-16" in shapes["dense-128-16"]["providers"]["authors"]["skipped"]
    assert all(shape["providers"]["fused"]["median_ms"] > 0 for shape in shapes.values())
    assert all(list(shape["providers"]) == list(three) for shape in shapes.values())
    assert len(one.result["errors"]) == 2  # all together, and alone


def test_what_the_time_does_not_allow_is_left_out():
    one = session(TASK)
    one.minutes = 0.1
    assert one.run()["left_out"] == ["dense-64-16"]


def test_types_are_banned_apart():
    one = session(TASK, replace(TASK, dtype=torch.bfloat16))
    one.banned["anchors-only", "bfloat16"] = "stopped its process"
    shapes = one.run()["shapes"]
    assert "median_ms" in shapes["dense-64-16"]["providers"]["anchors-only"]
    assert "skipped" in shapes["dense-64-16-bfloat16"]["providers"]["anchors-only"]
