"""Time and memory are told before training, by steps that leave no trace."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from semicl.data.prepared import Prepared
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    MachineOptions,
    NetworkOptions,
    ScheduleOptions,
    StageOptions,
)
from semicl.study import estimate
from semicl.study.estimate import duration
from semicl.training.setup import plan_stage, set_up
from semicl.training.stages import GlobalContrast
from semicl.training.train import Material, material
from semicl.training.trial import BATCH_OF_A_CPU, STEPS, epoch_steps, trial
from tests.semicl.conftest import TINY, one_schedule, run_command, same_weights

STAGES = [("pretrain-global",), ("pretrain-local", "--loss.block_size", 8), ("finetune", "--tcsm.weight", 1)]


@pytest.fixture
def _of_few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An estimate of a stage of a few steps too."""
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "FEW", 1)
        yield


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[0])
def test_a_stage_is_tried_without_a_trace(
    prepared: Prepared,
    tmp_path: Path,
    stage: tuple[object, ...],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*stage, *TINY, *one_schedule(2, 16), "--schedule.steps_per_epoch", 2, "--prepared", prepared.folder]
    words += ["--label_fraction", 0.34] if stage[0] != "pretrain-global" else []
    assert run_command(*words, "--output", tmp_path / "untried") == 0
    assert "Estimate" not in capsys.readouterr().out
    request.getfixturevalue("_of_few_steps")
    assert run_command(*words, "--output", tmp_path / "tried") == 0
    text = capsys.readouterr().out
    assert "Estimate, by 4 steps each:" in text
    (row,) = [
        re.split(r"\s*│\s*", line.strip()) for line in text.splitlines() if re.match(rf"│ {stage[0]}  *│ +\d", line)
    ]
    assert row[2] == str(json.loads((tmp_path / "tried" / "summary.json").read_text())["steps"]) == "4"
    assert same_weights(tmp_path / "untried" / "model.ckpt", tmp_path / "tried" / "model.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"untried", "tried"}
    assert run_command(*words, "--output", tmp_path / "tried", "--resume") == 0
    assert "Estimate" not in capsys.readouterr().out


@pytest.mark.usefixtures("_of_few_steps")
@pytest.mark.parametrize(("load", "told"), [(1.0, False), (50.0, True)])
def test_a_busy_machine_is_told(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    load: float,
    told: bool,
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    words = ["pretrain-global", *TINY, *one_schedule(1, 16), "--schedule.steps_per_epoch", 2]
    assert run_command(*words, "--prepared", prepared.folder, "--output", tmp_path / "stage") == 0
    assert ("other work keeps this machine busy (load 50 on 4 cores)" in capsys.readouterr().out) == told


def _contrast(prepared: Prepared, folder: Path, batch_size: int) -> Material:
    options = GlobalContrastOptions(ScheduleOptions(1, batch_size))
    experiment = ExperimentOptions(network=NetworkOptions((16, 32), None), machine=MachineOptions("cpu"))
    plan = plan_stage("pretrain-global", options, experiment, StageOptions(prepared.folder, output=folder))
    return material(set_up(plan, experiment, None), options, 0)


def test_time_and_memory_grow_with_the_batch(prepared: Prepared, tmp_path: Path) -> None:
    small, large = (trial(_contrast(prepared, tmp_path, size), MachineOptions("cpu")) for size in (8, 128))
    assert BATCH_OF_A_CPU == 8
    assert large.step > 4 * small.step > 0
    # two maps of 16 channels of two views, float32, are what 120 further slices keep at the least
    assert large.memory - small.memory > 120 * 2 * 2 * 16 * 32 * 32 * 4
    assert small.validation == 0


@pytest.mark.usefixtures("_of_few_steps")
def test_an_interruption_is_one(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves the process on Ctrl-C; the command line has more to say."""
    before = signal.getsignal(signal.SIGINT)

    def interrupt(stage: GlobalContrast, batch: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(GlobalContrast, "views", interrupt)
    words = ["pretrain-global", *TINY, *one_schedule(), "--prepared", prepared.folder, "--output", tmp_path / "o"]
    try:
        assert run_command(*words) == 130
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning has switched it off
    assert not (tmp_path / "o").exists()


def test_an_epoch_has_the_steps_of_its_schedule(prepared: Prepared, tmp_path: Path) -> None:
    pieces = len(_contrast(prepared, tmp_path, 8).pieces)
    assert epoch_steps(_contrast(prepared, tmp_path, 8)) == pieces // 8 > STEPS
    assert epoch_steps(_contrast(prepared, tmp_path, 2 * pieces)) == 1


def test_an_epoch_of_repeated_slices_has_whole_batches(prepared: Prepared, tmp_path: Path) -> None:
    sizes = list[int]()
    made = _contrast(prepared, tmp_path, 4)
    made.pieces._places = made.pieces._places[:3]
    made.module.schedule = replace(made.module.schedule, steps_per_epoch=5)
    views = made.module.views
    made.module.views = lambda batch: sizes.append(len(batch)) or views(batch)  # type: ignore[method-assign]
    trial(made, MachineOptions("cpu"))
    assert epoch_steps(made) == 5
    assert sizes == [4] * STEPS


@pytest.mark.parametrize(("seconds", "text"), [(2.4, "2 s"), (99, "99 s"), (200, "3 min"), (57600, "16.0 h")])
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
