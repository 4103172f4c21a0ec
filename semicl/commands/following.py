"""What to run after a command, made of the command's options, so that the line runs as it stands."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from semicl.commands.command import OF_RUN, Command, with_configs
from semicl.config import part, read_config
from semicl.options import ExperimentOptions, MachineOptions
from semicl.training.folder import StageFolder

STAGES = ("pretrain-local", "finetune")
"""Commands that follow one that may train on several devices, and may do so too."""


def next_line(command: Command) -> str | None:
    """The next command line; None after a command that is the last."""
    words = command.following()
    if not words:
        return None
    called, machine = _as_called(), getattr(command, "machine", MachineOptions())
    if words[0] in STAGES and machine.devices > 1:
        called = ["torchrun", "--nproc-per-node", str(machine.devices), "-m", "semicl"]
    return shlex.join([*called, *map(str, words)])


def after_stage(following: type[Command], output: str, stage: Any) -> list[object]:
    """The words of a stage that starts with another's weights, in a folder beside it, and shares its options."""
    start = ["--start", StageFolder(stage.output).model]
    places = ["--prepared", stage.prepared, *start, "--output", stage.output.parent / output]
    return words_of(following, stage.config, places, {"split": stage.split} | vars(part(ExperimentOptions, stage)))


def words_of(
    kind: type[Command], configs: Sequence[str], places: Sequence[object], shared: Mapping[str, Any]
) -> list[object]:
    """A command's words: the configs that it takes, where things are, and what the configs and defaults lack."""
    taken = [name for name in configs if set(read_config(name)) <= OF_RUN]
    usual = dict(_typed(vars(with_configs(kind, taken))))
    given = [word for name in taken for word in ("--config", name)]
    return [*given, *places, *(word for place, words in _typed(shared) if usual[place] != words for word in words)]


def _as_called() -> list[str]:
    """How this program is called: by its name where the shell finds it, else by way of Python."""
    if shutil.which("semicl") is not None:
        return ["semicl"]
    interpreter = Path(sys.orig_argv[0])
    if interpreter.is_relative_to(Path.cwd()):
        interpreter = interpreter.relative_to(Path.cwd())
    return [str(interpreter), "-m", "semicl"]


def _typed(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Places of options, and how they are typed."""
    for name, value in options.items():
        if is_dataclass(value):
            yield from _typed(vars(value), f"{above}{name}.")
        elif isinstance(value, Mapping):
            yield f"{above}{name}", [f"--{above}{name}", json.dumps(value, default=str, ensure_ascii=False)]
        elif isinstance(value, bool):
            yield f"{above}{name}", [f"--{above}{'' if value else 'no_'}{name}"]
        else:
            values = value if isinstance(value, tuple) else [value]
            yield f"{above}{name}", [f"--{above}{name}", *map(str, values)]
