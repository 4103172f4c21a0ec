"""What a command names as the next one can be pasted into a shell."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semicl.commands.demo import Demo
from semicl.commands.embed import Embed
from semicl.commands.evaluate import Evaluate
from semicl.commands.following import next_line
from semicl.commands.prepare import Prepare
from semicl.commands.pretrain_global import PretrainGlobal
from semicl.commands.table import Table
from semicl.options import MachineOptions, NetworkOptions


def test_folders_with_spaces_are_quoted() -> None:
    line = next_line(Evaluate(checkpoint=Path("my runs/model.ckpt")))
    assert line is not None
    words = ["semicl", "predict", "--checkpoint", "my runs/model.ckpt", "--input", "FILE_OR_FOLDER"]
    assert shlex.split(line) == words


AFTER_GLOBAL = "--prepared p --start r/global/model.ckpt --output r/pretrain-local"


def _after_global(configs: Sequence[str] = (), **shared: Any) -> str | None:
    return next_line(PretrainGlobal(config=tuple(configs), prepared=Path("p"), output=Path("r/global"), **shared))


def test_a_stage_goes_on_beside_its_own_folder() -> None:
    assert _after_global() == f"semicl pretrain-local {AFTER_GLOBAL}"


def test_what_the_stages_must_agree_on_is_carried_on() -> None:
    network, machine = NetworkOptions((4, 8), None), MachineOptions(accelerator="cpu")
    shared = {"label_fraction": 0.2, "seed": 3, "transductive": True, "network": network, "machine": machine}
    line = _after_global(split=1, **shared)
    assert line is not None
    words = ["--split", "1", "--label_fraction", "0.2", "--seed", "3", "--transductive"]
    words += ["--network.widths", "4", "8", "--network.centre", "None", "--machine.accelerator", "cpu"]
    assert shlex.split(line) == ["semicl", "pretrain-local", *AFTER_GLOBAL.split(), *words]


def test_a_config_is_carried_on_with_what_was_told_against_it(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("label_fraction: 0.2\nnetwork: {widths: [4, 8]}\npretrain_local: {seed: 7, channels: 8}\n")
    line = _after_global([str(config)], label_fraction=0.05, network=NetworkOptions((4, 8)), seed=0)
    told = "--label_fraction 0.05 --seed 0"
    assert line == f"semicl pretrain-local --config {config} {AFTER_GLOBAL} {told}"


def test_after_prepare_an_experiment_takes_what_it_was_told(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("data: d\nlabel_fraction: 0.2\nprepare: {repeats: 2}\n")
    line = next_line(Prepare(config=(str(config),), data="d", prepared=Path("p"), repeats=2))
    assert line == f"semicl run --config {config} --prepared p"
    classes = {"a b": 1, "c": [2, 3]}
    line = next_line(Prepare(data="d", classes=classes, resize=True, overwrite=True))
    assert line is not None
    words = ["--data", "d", "--prepare.resize", "--prepare.classes", '{"a b": 1, "c": [2, 3]}']
    assert shlex.split(line) == ["semicl", "run", *words]
    assert next_line(Prepare(prepared=Path())) == "semicl run --prepared ."


def test_what_is_switched_off_against_a_config_is_carried_on(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("machine: {compile: true}\n")
    line = _after_global([str(config)])
    assert line == f"semicl pretrain-local --config {config} {AFTER_GLOBAL} --machine.no_compile"


def test_a_config_of_one_command_alone_is_not_carried_on(tmp_path: Path) -> None:
    config = tmp_path / "global.yaml"
    config.write_text("seed: 2\ntemperature: 0.2\n")
    assert _after_global([str(config)], seed=2) == f"semicl pretrain-local {AFTER_GLOBAL} --seed 2"


def test_an_experiment_goes_on_with_its_last_start() -> None:
    line = next_line(Demo(output=Path("o"), splits=(2, 3), starts=("global", "random")))
    assert line == "semicl predict --checkpoint o/split-2/finetune-random/model.ckpt --input FILE_OR_FOLDER"


def test_nothing_follows_a_picture_or_a_table() -> None:
    assert next_line(Embed()) is None
    assert next_line(Table()) is None


@pytest.mark.parametrize(
    ("called", "told"),
    [
        (".venv/bin/python", ".venv/bin/python -m semicl predict "),
        ("python3", "python3 -m semicl predict "),
        ("{here}/my venv/bin/python", "'my venv/bin/python' -m semicl predict "),
        ("/elsewhere/bin/python", "/elsewhere/bin/python -m semicl predict "),
    ],
)
def test_where_the_shell_does_not_find_semicl_python_is_called_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "orig_argv", [called.format(here=tmp_path), "-m", "semicl", "evaluate"])
    line = next_line(Evaluate(checkpoint=Path("model.ckpt")))
    assert line is not None
    assert line.startswith(told)
