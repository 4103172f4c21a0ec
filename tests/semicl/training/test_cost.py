"""What a stage cost is summed up over its resumptions."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semicl.training import callbacks
from semicl.training.callbacks import Cost

TRAINER: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))


def test_a_resumed_stage_counts_what_was_spent_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("semicl.training.callbacks.time.perf_counter", lambda: now)
    first = Cost()
    first.on_fit_start(TRAINER, TRAINER)
    now = 107.0
    state = first.state_dict()
    now = 500.0
    second = Cost()
    second.load_state_dict(state)
    second.on_fit_start(TRAINER, TRAINER)
    now = 503.0
    assert second.summary()["seconds"] == 10.0


def test_the_peak_is_the_higher_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resumed = Cost()
    resumed.load_state_dict({"seconds": 1.0, "peak_bytes": 2**50})
    assert resumed.peak_bytes == 2**50
    monkeypatch.setattr(callbacks, "resident_peak", lambda: 2**51)
    assert resumed.summary()["peak memory (MiB)"] == 2**31


def test_the_resident_peak_grows_with_what_is_held() -> None:
    before = callbacks.resident_peak()
    held = torch.ones(before // 4 + 2**24)
    assert callbacks.resident_peak() >= before + 2**24
    del held
