"""A stage stops at the first step that is not finite, is not finished then, and goes on when its options are mended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from semicl.data.prepared import Prepared
from semicl.training.stages import Stage
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command, weights

STAGES = {
    "global": ("pretrain-global", *TINY, *one_schedule(2, 32)),
    "local": ("pretrain-local", *TINY, *one_schedule(2, 8), "--label_fraction", "0.2"),
    "self-supervised": (
        "pretrain-local",
        *TINY,
        *one_schedule(2, 60),
        "--loss.no_supervised",
        "--loss.stride",
        "8",
    ),
    "fine-tune": ("finetune", *TINY, *one_schedule(2, 8), "--label_fraction", "0.2"),
    "tcsm": ("finetune", *TINY, *one_schedule(2, 8), "--label_fraction", "0.2", "--tcsm.weight", "1"),
    "fixmatch": ("finetune", *TINY, *one_schedule(2, 8), "--label_fraction", "0.2", "--fixmatch.weight", "1"),
}
Step = Callable[..., Any]


def _loss(stage: Stage, step: Step, *arguments: Any) -> None:
    """The loss is infinite, its gradient is 0."""
    stage.logged = lambda loss: loss * 0 + float("inf")  # type: ignore[method-assign]
    step(stage, *arguments)


def _gradient(stage: Stage, step: Step, *arguments: Any) -> None:
    """The loss is finite, the gradient of one weight is not."""
    weight = next(weight for weight in stage.parameters() if weight.requires_grad)
    weight.register_hook(lambda gradient: gradient * float("nan"))
    step(stage, *arguments)


def _weights(stage: Stage, step: Step, *arguments: Any) -> None:
    """Loss and gradient are finite, a weight is not after the step."""
    step(stage, *arguments)
    with torch.no_grad():
        next(iter(stage.parameters())).view(-1)[0] = float("inf")


def _spoil(monkeypatch: pytest.MonkeyPatch, number: int, how: Callable[..., None]) -> None:
    """Spoil a step of every stage, counted from 1."""
    step = pl.LightningModule.optimizer_step

    def spoiled(stage: Stage, *arguments: Any) -> None:
        if stage.global_step + 1 == number:
            how(stage, step, *arguments)
        else:
            step(stage, *arguments)

    monkeypatch.setattr(Stage, "optimizer_step", spoiled)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((name, "loss") for name in STAGES),
        ("global", "gradient"),
        ("fine-tune", "gradient"),
        ("local", "weights"),
        ("tcsm", "weights"),
    ],
)
def test_the_first_step_that_is_not_finite_is_the_last(
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    what: str,
) -> None:
    output = tmp_path / "o"
    words = [*STAGES[name], "--prepared", prepared.folder, "--output", output]
    _spoil(monkeypatch, 2, {"loss": _loss, "gradient": _gradient, "weights": _weights}[what])
    line = error_of(capsys, *words)
    assert f"{output}: not finite (NaN or infinity): the {what} of epoch 1 of 2, step 2 of " in line
    assert "give a smaller --schedule.learning_rate" in line
    for file in ("summary.json", "model.ckpt", "last.ckpt"):
        assert not (output / file).exists()


def test_after_an_epoch_the_same_options_go_on_and_others_start_anew(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "o"
    words = [*STAGES["global"], "--prepared", prepared.folder, "--output", output, "--resume"]
    with monkeypatch.context() as patch:
        _spoil(patch, 9, _loss)
        for _ in range(2):  # in the same place again
            assert "epoch 2 of 2, step 9 of " in error_of(capsys, *words)
    assert run_command(*words, "--schedule.learning_rate", "1e-4") == 0
    assert "starts anew" in capsys.readouterr().out
    other = [*STAGES["global"], "--prepared", prepared.folder, "--schedule.learning_rate", "1e-4"]
    assert run_command(*other, "--output", tmp_path / "other") == 0
    for name, value in weights(output / "model.ckpt").items():
        assert torch.equal(value, weights(tmp_path / "other" / "model.ckpt")[name])


def test_a_loss_that_explodes_by_itself_is_no_end(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*STAGES["fine-tune"], "--prepared", prepared.folder, "--output", tmp_path / "o", "--resume"]
    assert "not finite" in error_of(capsys, *words, "--schedule.learning_rate", "1e30")
    assert not (tmp_path / "o" / "summary.json").exists()
    assert run_command(*words) == 0
    assert all(value.isfinite().all() for value in weights(tmp_path / "o" / "model.ckpt").values())
    assert json.loads((tmp_path / "o" / "options.json").read_text())["schedule"]["learning_rate"] == 1e-3
    assert not (tmp_path / "o" / "diverged.json").exists()
