"""As many stages at once as there are threads and memory for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from semicl.data.prepared import Prepared
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    MethodOptions,
    NetworkOptions,
    ScheduleOptions,
    SegmentationOptions,
    StudyOptions,
)
from semicl.study import capacity
from semicl.study.capacity import default_jobs, stage_bytes
from semicl.study.plan import Cell, plan

EXPERIMENT = ExperimentOptions(0.34, network=NetworkOptions((8, 16), None))


@pytest.fixture
def cells(prepared: Prepared) -> list[Cell]:
    """A random start and one from global contrast, whose batch of 64 slices is the largest."""
    methods = {"random": MethodOptions(), "global": MethodOptions(("pretrain_global",))}
    stages: dict[str, Any] = {
        "pretrain_global": GlobalContrastOptions(ScheduleOptions(1, 64, 1e-3)),
        "finetune": SegmentationOptions(),
    }
    return plan(prepared, EXPERIMENT, StudyOptions(Path("o"), methods), stages)


@pytest.mark.parametrize(("room", "threads", "jobs"), [(0.5, 8, 1), (3.5, 8, 3), (100, 8, 8), (100, 1, 1)])
def test_neither_memory_nor_threads_run_out(
    prepared: Prepared, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, room: float, threads: int, jobs: int
) -> None:
    """There is room for so many of the largest stage: both views of a batch of 64 slices of 32 x 32."""
    largest = stage_bytes((32, 32), EXPERIMENT.network.levels, 2 * 64)
    monkeypatch.setattr(capacity, "_free_bytes", lambda _: int(room * largest / capacity.SPARE) + 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert default_jobs(prepared, EXPERIMENT, cells) == jobs


def test_the_weights_are_counted_as_the_network_has_them() -> None:
    """Of the paper's network, 31.1 M parameters, five copies in float32."""
    levels = (64, 128, 256, 512, 1024)
    without_pieces = stage_bytes((64, 64), levels, 0) - capacity.PROCESS_BYTES
    assert without_pieces == pytest.approx(5 * 4 * 31.1e6, rel=0.1)


def test_the_free_memory_is_that_of_this_machine() -> None:
    total = capacity.os.sysconf("SC_PHYS_PAGES") * capacity.os.sysconf("SC_PAGE_SIZE")
    assert 0 < capacity._free_bytes(EXPERIMENT.machine) <= total
