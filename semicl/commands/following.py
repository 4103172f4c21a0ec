"""What to run after a command, made of the command's options, so that the line runs as it stands."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from semicl.config import read_config
from semicl.options import (
    STAGES,
    EvaluateOptions,
    ExperimentOptions,
    PredictOptions,
    RunOptions,
    SourceOptions,
    StageOptions,
)
from semicl.training.folder import StageFolder

_OF_RUN = {field.name for part in (SourceOptions, ExperimentOptions, RunOptions) for field in fields(part)} | {*STAGES}
"""Keys of a config that every command takes."""


def following(command: str, configs: Sequence[str] = (), **chosen: Any) -> str | None:
    """The next command line; None after a command that is the last.

    Args:
        command: its name.
        configs: names of the configs that it was given.
        chosen: the arguments of its function.

    Raises:
        SemiclError: a config cannot be read.
    """
    if command not in _FOLLOWING:
        return None
    contents = {name: read_config(name) for name in configs}
    return shlex.join([*_as_called(), *map(str, _FOLLOWING[command](configs=contents, **chosen))])


def _as_called() -> list[str]:
    """How this program is called: by its name where the shell finds it, else by way of Python."""
    if shutil.which("semicl") is not None:
        return ["semicl"]
    interpreter = Path(sys.orig_argv[0])
    if interpreter.is_relative_to(Path.cwd()):
        interpreter = interpreter.relative_to(Path.cwd())
    return [str(interpreter), "-m", "semicl"]


def _after_prepare(configs: Mapping[str, Any], source: SourceOptions, **_: Any) -> list[object]:
    output = f"runs/{source.prepared.resolve().name}/pretrain-global"
    places = ["--prepared", source.prepared, "--output", output]
    return _stage("pretrain-global", configs, places, {})


def _after_pretrain_global(**chosen: Any) -> list[object]:
    return _with_its_weights("pretrain-local", "pretrain-local", **chosen)


def _after_pretrain_local(**chosen: Any) -> list[object]:
    return _with_its_weights("finetune", "finetune-pretrained", **chosen)


def _with_its_weights(
    command: str,
    output: str,
    configs: Mapping[str, Any],
    stage: StageOptions,
    experiment: ExperimentOptions,
    **_: Any,
) -> list[object]:
    start = ["--start", StageFolder(stage.output).model]
    places = ["--prepared", stage.prepared, *start, "--output", stage.output.parent / output]
    return _stage(command, configs, places, {"split": stage.split} | asdict(experiment))


def _after_finetune(stage: StageOptions, **_: Any) -> list[object]:
    # The checkpoint tells its split, and a config's data would be judged instead of that split.
    tuned = StageFolder(stage.output)
    return ["evaluate", "--prepared", stage.prepared, "--checkpoint", tuned.model, "--output", tuned.test]


def _after_evaluate(options: EvaluateOptions, **_: Any) -> list[object]:
    return ["predict", "--checkpoint", options.checkpoint, "--input", "FILE_OR_FOLDER"]


def _after_predict(options: PredictOptions, **_: Any) -> list[object]:
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


def _stage(
    command: str, configs: Mapping[str, Any], places: Sequence[object], shared: Mapping[str, Any]
) -> list[object]:
    """A stage's command line: the configs that it takes, where things are, and what the configs and defaults lack."""
    taken = {name: content for name, content in configs.items() if set(content) <= _OF_RUN}
    usual = dict(_words({"split": StageOptions.split} | asdict(ExperimentOptions())))
    for content in taken.values():
        section = content.get(command.replace("-", "_"))
        usual |= dict(_words(content | (section if isinstance(section, dict) else {})))
    given = [word for name in taken for word in ("--config", name)]
    other = [part for name, word in _words(shared) if usual[name] != word for part in (f"--{name}", word)]
    return [command, *given, *places, *other]


def _words(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names of options, the inner ones with dots, and their values as they are typed."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _words(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
            yield f"{prefix}{name}", text
