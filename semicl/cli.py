"""The command line: a command's options by its configs and by tyro, errors in a box."""

import json
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from io import TextIOWrapper

import tyro

from semicl import own_version
from semicl.commands.command import Command, with_configs
from semicl.commands.demo import Demo
from semicl.commands.embed import Embed
from semicl.commands.evaluate import Evaluate
from semicl.commands.export import Export
from semicl.commands.finetune import Finetune
from semicl.commands.following import next_line
from semicl.commands.predict import Predict
from semicl.commands.prepare import Prepare
from semicl.commands.pretrain_global import PretrainGlobal
from semicl.commands.pretrain_local import PretrainLocal
from semicl.commands.run import Run
from semicl.commands.search import Search
from semicl.commands.table import Table
from semicl.config import did_you_mean, places
from semicl.console import complain, on_main_process, say, speak_alone
from semicl.errors import SemiclError, UsageError
from semicl.options import ExperimentOptions, MachineOptions, StudyOptions
from semicl.training.interruption import interruptible
from semicl.training.together import together

COMMANDS: dict[str, type[Command]] = {
    "prepare": Prepare,
    "pretrain-global": PretrainGlobal,
    "pretrain-local": PretrainLocal,
    "finetune": Finetune,
    "evaluate": Evaluate,
    "predict": Predict,
    "run": Run,
    "search": Search,
    "table": Table,
    "export": Export,
    "embed": Embed,
    "demo": Demo,
}
OVERRULED = {"label_fraction": "label_fractions", "finetune.schedule.learning_rate": "learning_rates"}
"""Options of a single experiment, and those of a study that take their place."""

SECONDS_TO_BE_ENDED = 10
"""What goes wrong on all processes is told by the first; torchrun ends the others when it has gone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0, 1 for what the user can mend, 2 for options, 130 when interrupted, 141 when nobody reads what it prints.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold letters that the encoding of the locale lacks
            stream.reconfigure(errors="backslashreplace")
    with interruptible():
        return _answered(list(sys.argv[1:] if arguments is None else arguments))


def _answered(words: list[str]) -> int:
    """Run the command of these words; what goes wrong is told in a box."""
    try:
        _run(parsed(words))
    except SystemExit as left:  # tyro has answered
        return int(left.code or 0)
    except UsageError as error:
        return _fail(error, 2)
    except SemiclError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # as of `semicl --help | head`, whose reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(f"{error}; give folders that can be read and written, on a disk with space", 1)
    except KeyboardInterrupt:
        way_out = "call it again to go on, a single stage with --resume, predict with --skip_existing"
        return _fail(f"interrupted; {way_out}", 130)
    return 0


def _fail(error: object, code: int) -> int:
    if not on_main_process():
        time.sleep(SECONDS_TO_BE_ENDED)
    complain(error)
    return code


def parsed(words: Sequence[str]) -> Command:
    """The command of these words: its defaults, under its configs in their order, under the command line.

    Raises:
        UsageError: a config cannot be used, or an option has no effect.
        SystemExit: tyro has shown help, or what is wrong with the words.
    """
    name, *rest = words or [""]
    if [*words] == ["--version"]:
        print("semicl", own_version())
        raise SystemExit(0)
    if name not in COMMANDS and not name.startswith("-") and words:
        meant = did_you_mean(name, COMMANDS)
        raise UsageError(f"{name or 'an empty word'}: no such command; give one of {', '.join(COMMANDS)}{meant}")
    if name not in COMMANDS:  # tyro shows the help
        tyro.extras.subcommand_cli_from_dict(
            dict(COMMANDS), prog="semicl", description="Label-efficient medical image segmentation.", args=list(words)
        )
        raise SystemExit(2)
    kind = COMMANDS[name]
    # Before tyro, which takes what they hold for defaults.
    finder = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", action="append", default=[])
    found, typed = finder.parse_known_args(rest)
    own = ["demo", *(["demo-quick"] if "--quick" in typed else [])] if kind is Demo else []
    options: Command = tyro.cli(
        kind, prog=f"semicl {name}", args=typed, default=with_configs(kind, [*own, *found.config]), use_underscores=True
    )
    _require_heard(typed, options)
    return replace(options, typed=_places(typed, kind)) if isinstance(options, Run) else options


def _places(words: Sequence[str], kind: type[Command]) -> tuple[str, ...]:
    """The options of a command that are among its words, by their places."""
    named = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    known = ((place, *place.rpartition(".")) for place in places(kind))
    return tuple(place for place, above, dot, name in known if {place, f"{above}{dot}no_{name}"} & named)


def _require_heard(words: Sequence[str], options: Command) -> None:
    """Raise where an option is typed that a study overrules, which would else be lost without a word."""
    typed = {word.partition("=")[0] for word in words}
    for option, other in OVERRULED.items():
        values = getattr(options, other, None)
        if values is not None and f"--{option}" in typed:
            raise UsageError(
                f"--{option} has no effect beside {other} {json.dumps(values)}, which the study tries all; give "
                f"--{other} instead"
            )


def _run(command: Command) -> None:
    """Run a command and tell the next; those that it calls tell none."""
    after = next_line(command)  # first: who trains for hours may edit the configs
    machine = MachineOptions()  # of one device
    if isinstance(command, ExperimentOptions) and not isinstance(command, StudyOptions):
        machine = command.machine
    if machine.devices == 1:
        speak_alone()
    with together(machine):
        command.run()
    if after is not None:
        say(f"Next: {after}")
