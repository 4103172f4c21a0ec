"""Two processes that torchrun started train one network together, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from semicl.data.prepared import Prepared
from tests.semicl.conftest import REPOSITORY, TINY, error_of, one_schedule, run_command, unboxed, weights

TWO = ("--machine.devices", "2", "--machine.accelerator", "cpu")
CHANGES = ("rotation", "shift", "elastic", "intensity", "noise")
STILL = ("--augmentation.scale", "1", "1", *(word for name in CHANGES for word in (f"--augmentation.{name}", "0")))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _started(*words: object) -> subprocess.Popen[str]:
    """A command in two processes."""
    return subprocess.Popen(
        [*TORCHRUN, "-m", "semicl", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(*words: object) -> str:
    process = _started(*words)
    written, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "FutureWarning" not in errors
    return written


def _wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.is_file():
        assert time.monotonic() < end, f"{path} is not there"
        time.sleep(0.05)


def test_two_processes_contrast_with_each_others_slices(prepared: Prepared, tmp_path: Path) -> None:
    """Without augmentation, two processes with half the batch each take the steps of one with the whole batch."""
    words = ["pretrain-global", *TINY, *STILL, "--prepared", prepared.folder]
    text = _run(*words, *one_schedule(1, 60), *TWO, "--output", tmp_path / "two")
    assert text.count("Next: torchrun --nproc-per-node 2 -m semicl pretrain-local") == 1
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert run_command(*words, *one_schedule(1, 120), "--output", tmp_path / "one") == 0
    two, one = (weights(tmp_path / name / "model.ckpt") for name in ("two", "one"))
    # A bias before instance norm has no effect: its gradient is rounding, which Adam makes steps of.
    for name, value in ((name, value) for name, value in one.items() if not name.endswith("conv.bias")):
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=1e-3)


def _one(process: subprocess.Popen[str]) -> None:
    process.terminate()


def _all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGTERM)


def _all_by_the_keyboard(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [_one, _all, _all_by_the_keyboard])
def test_two_processes_are_interrupted_as_one_and_go_on(
    prepared: Prepared, tmp_path: Path, interrupt: Callable[[subprocess.Popen[str]], None]
) -> None:
    output = tmp_path / "stage"
    words = ["pretrain-global", *TINY, *one_schedule(4, 4), *TWO, "--prepared", prepared.folder, "--output", output]
    process = _started(*words)
    _wait_for(output / "last.ckpt")
    interrupt(process)
    try:
        _, errors = process.communicate(timeout=60)  # till both have ended, which write to the same pipes
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert errors.count("─ Error ─") == errors.count("│ interrupted; call it again to go on, a single stage") == 1
    assert f"{output}: goes on where it was interrupted." in _run(*words, "--resume")
    assert (output / "summary.json").is_file()


SPOILED = """
import os, sys
from semicl.cli import main
from semicl.training.stages import GlobalContrast

step = GlobalContrast.training_step
def spoiled(self, batch):
    loss = step(self, batch)
    return loss * 0 + float("inf") if os.environ.get("LOCAL_RANK") == "1" and self.global_step == 3 else loss
GlobalContrast.training_step = spoiled
sys.exit(main())
"""


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_the_other_process_ends_both(prepared: Prepared, tmp_path: Path) -> None:
    """In the last step too, after which nothing else would tell."""
    (tmp_path / "spoiled.py").write_text(SPOILED)
    output = tmp_path / "stage"
    words = ["pretrain-global", *TINY, *one_schedule(2, 60), *TWO, "--prepared", prepared.folder, "--output", output]
    process = subprocess.Popen(
        [*TORCHRUN, tmp_path / "spoiled.py", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert errors.count("─ Error ─") == 1
    assert "the loss of epoch 2 of 2, step 4 of 4" in unboxed(errors)
    assert not (output / "summary.json").exists()


def test_several_devices_need_torchrun(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(capsys, "pretrain-global", *TWO, "--prepared", prepared.folder, code=2)
    assert "got 2; put torchrun --nproc-per-node 2 -m in front of the command" in line
    # A config's devices are for training: what takes one device, or takes none in a study, says so itself.
    words = ["evaluate", "--checkpoint", "none.ckpt", *TWO]
    assert "no such checkpoint" in error_of(capsys, *words)


@pytest.mark.slow
def test_a_whole_run_of_two_processes(prepared: Prepared, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(
        """
network: {widths: [4, 6, 8], centre: null}
label_fraction: 0.34
prepare: {patch_size: [32, 32], resize: true, phantom_subjects: 5, repeats: 1}
pretrain_global: {schedule: {epochs: 1, batch_size: 30, learning_rate: 1e-3}}
pretrain_local: {schedule: {epochs: 1, batch_size: 4, learning_rate: 1e-3}}
finetune: {schedule: {epochs: 2, batch_size: 8, learning_rate: 1e-3}}
"""
    )
    words = ["run", "--config", config, "--data", "phantom", "--prepared", tmp_path / "p", "--output", tmp_path / "o"]
    text = _run(*words, *TWO)
    assert text.count("test Dice, pre-trained") == 1
    found = json.loads((tmp_path / "o" / "results.json").read_text())["test_dice"]
    assert set(found) == {"random", "pretrained"}
    assert all(0 <= dice <= 1 for values in found.values() for dice in values)


@pytest.mark.slow
def test_two_processes_share_pseudo_labelled_points_and_a_queue(prepared: Prepared, tmp_path: Path) -> None:
    """In the first epoch the local term has not begun: its projection has a gradient all the same."""
    words = ["finetune", *TINY, *one_schedule(3, 8), *TWO, "--prepared", prepared.folder, "--label_fraction", "0.34"]
    words += ["--fixmatch.weight", "1", "--fixmatch.confidence", "0.5", "--local_weight", "0.1", "--local_warm_up", "1"]
    for name in ("whole", "again"):
        _run(*words, "--local_queue", "16", "--local_scale", "2", "--output", tmp_path / name)
    whole, again = (weights(tmp_path / name / "model.ckpt") for name in ("whole", "again"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["steps"] == 3 * 5
