"""What to run after a command, made of the command's options."""

import shlex
from collections.abc import Callable
from typing import Any

from semicl.options import EvaluateOptions, PredictOptions, RunOptions, SourceOptions, StageOptions
from semicl.stage_folder import StageFolder


def following(command: str, **chosen: Any) -> str | None:
    """The next command line; None after a command that is the last.

    Args:
        command: its name.
        chosen: the arguments of its function.
    """
    if command not in _FOLLOWING:
        return None
    return shlex.join(["semicl", *map(str, _FOLLOWING[command](**chosen))])


def _after_prepare(source: SourceOptions, **_: Any) -> list[object]:
    output = f"runs/{source.prepared.name}/pretrain-global"
    return ["pretrain-global", "--prepared", source.prepared, "--output", output]


def _after_pretrain_global(stage: StageOptions, **_: Any) -> list[object]:
    return _with_its_weights("pretrain-local", stage, "pretrain-local")


def _after_pretrain_local(stage: StageOptions, **_: Any) -> list[object]:
    return _with_its_weights("finetune", stage, "finetune-pretrained")


def _with_its_weights(command: str, stage: StageOptions, output: str) -> list[object]:
    start = ["--start", StageFolder(stage.output).model]
    return [command, "--prepared", stage.prepared, *start, "--output", stage.output.parent / output]


def _after_finetune(stage: StageOptions, **_: Any) -> list[object]:
    tuned = StageFolder(stage.output)
    return ["evaluate", "--prepared", stage.prepared, "--checkpoint", tuned.model, "--output", tuned.test]


def _after_evaluate(options: EvaluateOptions) -> list[object]:
    return ["predict", "--checkpoint", options.checkpoint, "--input", "FILE_OR_FOLDER"]


def _after_predict(options: PredictOptions) -> list[object]:
    return ["evaluate", "--checkpoint", options.checkpoint, "--data", "LABELLED_FOLDER"]


def _after_run(run_options: RunOptions, **_: Any) -> list[object]:
    tuned = run_options.output / f"split-{run_options.splits[0]}" / f"finetune-{run_options.starts[-1]}"
    return ["predict", "--checkpoint", StageFolder(tuned).model, "--input", "FILE_OR_FOLDER"]


_FOLLOWING: dict[str, Callable[..., list[object]]] = {
    "prepare": _after_prepare,
    "pretrain-global": _after_pretrain_global,
    "pretrain-local": _after_pretrain_local,
    "finetune": _after_finetune,
    "evaluate": _after_evaluate,
    "predict": _after_predict,
    "run": _after_run,
    "demo": _after_run,
}
