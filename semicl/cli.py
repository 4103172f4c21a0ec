"""The command line: options from typed dataclasses, configs under them, errors in one line."""

import json
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentParser

from semicl.config import options_of, read_config, shipped_configs
from semicl.errors import SemiclError
from semicl.following import following
from semicl.help_text import HelpText
from semicl.option_errors import as_typed
from semicl.option_values import made
from semicl.options import (
    EmbedOptions,
    EvaluateOptions,
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    PredictOptions,
    PrepareOptions,
    RunOptions,
    SegmentationOptions,
    SourceOptions,
    StageOptions,
    StudyOptions,
)


@dataclass(frozen=True)
class Command:
    """A command: the function of its own name in `semicl.commands`, and the options it takes.

    Args:
        help: what it does, in a line.
        flat: the function's arguments whose fields are options at the top.
        sections: the function's arguments whose fields are options under the argument's name.
        section: the section of a config of `semicl run` that is this command's.
    """

    help: str
    flat: dict[str, type]
    sections: dict[str, type]
    section: str | None = None

    def keys(self) -> set[str]:
        """Names of the options at the top, sections included."""
        return {field.name for part in self.flat.values() for field in fields(part)} | set(self.sections)

    def required(self) -> list[str]:
        """Names of the options that have no default."""
        given = [field for part in self.flat.values() for field in fields(part)]
        return [field.name for field in given if field.default is MISSING and field.default_factory is MISSING]


_OF_STAGES = (
    "Options of a single stage go under its name, as in --finetune.schedule.epochs 60 or --prepare.seed 1; "
    "`semicl STAGE --help` lists them: prepare, pretrain-global (here pretrain_global), pretrain-local, finetune."
)
_STAGE: dict[str, type] = {"experiment": ExperimentOptions, "stage": StageOptions}
_RUN = Command(
    "all stages from one config, skipping what is done already",
    {"source": SourceOptions, "experiment": ExperimentOptions, "run_options": RunOptions},
    {
        "prepare": PrepareOptions,
        "pretrain_global": GlobalContrastOptions,
        "pretrain_local": LocalContrastOptions,
        "finetune": SegmentationOptions,
    },
)
COMMANDS = {
    "prepare": Command(
        "find cases, check every file, make splits and a cache",
        {"source": SourceOptions, "options": PrepareOptions},
        {},
        "prepare",
    ),
    "pretrain-global": Command(
        "stage 1: NT-Xent on the encoder, images of all training volumes",
        {"contrast": GlobalContrastOptions, **_STAGE},
        {},
        "pretrain_global",
    ),
    "pretrain-local": Command(
        "stage 2: local contrast on encoder and decoder, labelled fraction",
        {"contrast": LocalContrastOptions, **_STAGE},
        {},
        "pretrain_local",
    ),
    "finetune": Command(
        "stage 3: cross entropy + Dice on the labelled fraction",
        {"segmentation": SegmentationOptions, **_STAGE},
        {},
        "finetune",
    ),
    "evaluate": Command("Dice, HD95 and surface distance of a checkpoint", {"options": EvaluateOptions}, {}),
    "predict": Command("NIfTI in, NIfTI out, in the case's own geometry", {"options": PredictOptions}, {}),
    "run": _RUN,
    "table": Command(
        "a study: methods x label fractions x splits, side by side",
        {"source": SourceOptions, "experiment": ExperimentOptions, "study": StudyOptions},
        _RUN.sections,
    ),
    "embed": Command("picture of pixel features by class, before and after", {"options": EmbedOptions}, {}),
    "demo": Command("the quick tour, a few minutes on a CPU", _RUN.flat, _RUN.sections),
}
DEMO = "demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for what the user can mend, 2 for options, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(*_parse(words), configs=_configs(words))
    except ArgumentError as error:
        return _fail(as_typed(error.message), 2)
    except SemiclError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error}; give folders that can be read and written, on a disk with space", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; call it again to go on, a single stage with --resume", 130)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # libraries put line breaks in their reasons
    return code


def _run(name: str, chosen: dict[str, Any], configs: Sequence[str]) -> None:
    """Run a command and tell the next; those that it calls tell none."""
    after = following(name, configs, **chosen)  # first: who trains for hours may edit the configs
    # Imported here so that --help and a mistyped option answer at once.
    from semicl.console import say

    module = name.replace("-", "_")
    getattr(import_module(f"semicl.commands.{module}"), module)(**chosen)
    if after is not None:
        say(f"Next: {after}")


def _parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its function's arguments."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name in COMMANDS:
        words = _with_configs(name, words)
    parser = ArgumentParser(
        prog="semicl",
        usage="semicl COMMAND [--OPTION VALUE ...]",
        description="Label-efficient medical image segmentation.",
        version=_version(),
        formatter_class=HelpText,
        exit_on_error=False,
    )
    commands = parser.add_subcommands(dest="command")
    for each, command in COMMANDS.items():
        commands.add_subcommand(each, _command_parser(each, command), help=command.help)
    given = parser.instantiate(parser.parse_args(words), instantiate_groups=False)
    values = given[given.command]
    command = COMMANDS[given.command]
    chosen: dict[str, Any] = {argument: made(part, values) for argument, part in command.flat.items()}
    for section, part in command.sections.items():
        chosen[section] = made(part, values[section], f"{section}.")
    return given.command, chosen


def _version() -> str:
    try:
        return version("semicl")
    except PackageNotFoundError:
        return "from source, not installed"


def _command_parser(name: str, command: Command) -> ArgumentParser:
    needed = [f"--{option} VALUE" for option in command.required()]
    parser = ArgumentParser(
        usage=" ".join(["semicl", name, *needed, "[--OPTION VALUE ...]"]),
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        epilog=_OF_STAGES if command.sections else None,
        formatter_class=HelpText,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config",
        action="config",
        help=f"YAML file of options, or one of {', '.join(shipped_configs())}; the command line wins",
    )
    if name == DEMO:
        parser.add_argument("--quick", action="store_true", help="a few steps of a tiny network: does everything run?")
    for part in command.flat.values():
        parser.add_class_arguments(part)
    for section, part in command.sections.items():
        parser.add_class_arguments(part, section)
    if name == DEMO:
        defaults = dict(parser.parse_object(read_config(DEMO)).items())
        del defaults["config"]  # which takes none
        parser.set_defaults(defaults)
    return parser


def _with_configs(name: str, words: list[str]) -> list[str]:
    """The words of a command line, with each config replaced by what the command takes of it, as JSON."""
    command = COMMANDS[name]
    words = _apart(words)
    switches = {f"--{field.name}" for part in command.flat.values() for field in fields(part) if field.default is False}
    words = [part for word, following in pairwise([*words, "--"]) for part in _switched_on(word, following, switches)]
    if name == DEMO:
        place = words.index(name) + 1
        words[place:place] = ["--config", "demo-quick"] if "--quick" in words else []
    for place, word in enumerate(words[:-1]):
        if word == "--config":
            config = words[place + 1]
            taken = options_of(read_config(config), command.section, command.keys(), _RUN.keys(), config)
            words[place + 1] = json.dumps(taken, default=str)
    return words


def _configs(words: list[str]) -> list[str]:
    """The names of the configs of a command line."""
    return [after for word, after in pairwise(_apart(words)) if word == "--config"]


def _apart(words: list[str]) -> list[str]:
    """The words of a command line, with --config=NAME as two of them."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]


def _switched_on(word: str, following: str, switches: set[str]) -> list[str]:
    """A word of the command line; a switch without a value gets "true", which jsonargparse asks for."""
    return [word, "true"] if word in switches and following.startswith("-") else [word]
