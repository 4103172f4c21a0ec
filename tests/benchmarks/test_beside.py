"""What is compared computes the same, and every measure is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import beside
from benchmarks.problems import Shape, build

TOY = Shape("hippocampus16", "sparse", 2, 16, 12, 12, 3, 0.3, 6)


def assert_same(calls: list[Any], leaf: torch.Tensor) -> None:
    found = []
    for call in calls:
        value = call()
        assert leaf.grad is not None
        found.append((value, leaf.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_plain_losses_with_keys_are_ours() -> None:
    given = beside.vectors(40, 90)
    losses = [lambda: beside.with_keys(*given), lambda: beside.plain_with_keys(*given)]
    assert_same([beside.call(given[:1], loss) for loss in losses], given[0])


def test_plain_pairwise_is_ours() -> None:
    problem = build(TOY)
    losses = [lambda: beside.contrast(problem, denominator="pairwise"), lambda: beside.plain_pairwise(problem)]
    assert_same([beside.call((problem.features,), loss) for loss in losses], problem.features)


def test_every_measure_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SHAPES", [replace(TOY, name=name) for name in {*beside.PAIRWISE, *beside.GROUPED}])
    monkeypatch.setattr("sys.argv", ["beside", "--seconds", "0.01", "--output", str(tmp_path)])
    monkeypatch.setattr(beside, "ANCHORS", 64)
    monkeypatch.setattr(beside, "KEYS", 256)
    assert beside.main() == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert len(result["measured"]) == 6 + 2 * len(beside.PAIRWISE) + 1 + len(beside.GROUPED)
    assert all(value == value for value in result["measured"].values())
