"""What a command names as the next one can be pasted into a shell."""

import shlex
from pathlib import Path

from semicl.following import following
from semicl.options import EvaluateOptions, RunOptions, StageOptions


def test_folders_with_spaces_are_quoted() -> None:
    line = following("evaluate", options=EvaluateOptions(Path("my runs/model.ckpt")))
    assert line is not None
    words = ["semicl", "predict", "--checkpoint", "my runs/model.ckpt", "--input", "FILE_OR_FOLDER"]
    assert shlex.split(line) == words


def test_a_stage_goes_on_beside_its_own_folder() -> None:
    stage = StageOptions(Path("p"), 1, Path("r/global"))
    line = following("pretrain-global", contrast=None, experiment=None, stage=stage)
    assert line == "semicl pretrain-local --prepared p --start r/global/model.ckpt --output r/pretrain-local"


def test_an_experiment_goes_on_with_its_last_start() -> None:
    line = following("demo", run_options=RunOptions(Path("o"), (2, 3), ("global", "random")))
    assert line == "semicl predict --checkpoint o/split-2/finetune-random/model.ckpt --input FILE_OR_FOLDER"


def test_nothing_follows_a_picture_or_a_table() -> None:
    assert following("embed") is None
    assert following("table") is None
