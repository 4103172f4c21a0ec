"""The command line: options from typed dataclasses, configs under them, errors in one line."""

import json
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from io import TextIOWrapper
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentParser

from semicl import own_version
from semicl.command_words import configs_first, is_typed, plain_words
from semicl.commands.following import following
from semicl.config import gives, options_of, read_config, shipped_configs
from semicl.config_check import check
from semicl.console import complain, say, speak_alone
from semicl.errors import OptionError, SemiclError, UsageError
from semicl.help_text import HelpText
from semicl.names_alike import did_you_mean, names_alike
from semicl.option_errors import as_typed
from semicl.option_tree import kinds, places
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
from semicl.training.interruption import end_children, interruptible


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
        return set(self.options())

    def options(self) -> dict[str, Any]:
        """Names and types of the options at the top, sections included."""
        return {name: kind for part in self.flat.values() for name, kind in kinds(part).items()} | self.sections

    def required(self) -> list[str]:
        """Names of the options that have no default."""
        given = [field for part in self.flat.values() for field in fields(part)]
        return [field.name for field in given if field.default is MISSING and field.default_factory is MISSING]


_OF_STAGES = (
    "Options of a single stage go under its name, as in --finetune.schedule.epochs 60 or --prepare.seed 1; "
    "`semicl STAGE --help` lists them: prepare, pretrain-global (here pretrain_global), pretrain-local, finetune."
)
_STAGE: dict[str, type] = {"experiment": ExperimentOptions, "stage": StageOptions}
_OF_STUDY: dict[str, type] = {"source": SourceOptions, "experiment": ExperimentOptions, "study": StudyOptions}
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
    "search": Command("a study on validation volumes alone, for choosing options", _OF_STUDY, _RUN.sections),
    "table": Command("a study: methods x label fractions x splits, side by side", _OF_STUDY, _RUN.sections),
    "embed": Command("picture of pixel features by class, before and after", {"options": EmbedOptions}, {}),
    "demo": Command("the quick tour, a few minutes on a CPU", _RUN.flat, _RUN.sections),
}
OVERRULED = {"label_fraction": "label_fractions", "finetune.schedule.learning_rate": "learning_rates"}
"""Options of a single experiment, and those of a study that take their place."""
DEMO = "demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for what the user can mend, 2 for options, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold letters that the encoding of the locale lacks
            stream.reconfigure(errors="backslashreplace")
    with interruptible():
        return _answered(list(sys.argv[1:] if arguments is None else arguments))


def _answered(words: list[str]) -> int:
    """Run the command of these words; what goes wrong is told in a line. Without a word, show the help."""
    if not words:
        _parser().print_help(sys.stderr)
        return 2
    try:
        _run(*_parse(words))
    except ArgumentError as error:
        return _fail(as_typed(error.message, _known(words)), 2)
    except UsageError as error:
        return _fail(error, 2)
    except SemiclError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error}; give folders that can be read and written, on a disk with space", 1)
    except KeyboardInterrupt:
        end_children()
        way_out = "call it again to go on, a single stage with --resume, predict with --skip_existing"
        return _fail(f"interrupted; {way_out}", 130)
    return 0


def _known(words: Sequence[str]) -> list[str]:
    """Places of the options of the command among the words."""
    command = next((COMMANDS[word] for word in words if word in COMMANDS), None)
    return ["config", *(place for place, _ in places(command.options()))] if command else []


def _fail(error: object, code: int) -> int:
    complain(error)
    return code


def _run(name: str, configs: Sequence[str], chosen: dict[str, Any]) -> None:
    """Run a command and tell the next; those that it calls tell none."""
    after = following(name, configs, **chosen)  # first: who trains for hours may edit the configs
    if all(part.machine.devices == 1 for part in chosen.values() if hasattr(part, "machine")):
        speak_alone()
    module = name.replace("-", "_")
    getattr(import_module(f"semicl.commands.{module}"), module)(**chosen)
    if after is not None:
        say(f"Next: {after}")


def _parse(words: list[str]) -> tuple[str, list[str], dict[str, Any]]:
    """The command's name, the names of its configs and its function's arguments."""
    _require_command(words[0])
    name = next((word for word in words if not word.startswith("-")), None)
    configs: dict[str, dict[str, Any]] = {}
    if name in COMMANDS:
        place = words.index(name) + 1
        of_command = plain_words(words[place:], COMMANDS[name].options())
        quick = ["--config", "demo-quick"] if name == DEMO and "--quick" in of_command else []
        words = [*words[:place], *quick, *configs_first(of_command)]
        configs = _configs(COMMANDS[name], words)
        words = [
            json.dumps(configs[word], default=str) if before == "--config" else word
            for before, word in pairwise(["", *words])
        ]
    parser = _parser(name)
    parsed = parser.parse_args(words)
    command = COMMANDS[parsed.command]
    try:
        values = parser.instantiate(parsed, instantiate_groups=False)[parsed.command]
        chosen: dict[str, Any] = {argument: made(part, values) for argument, part in command.flat.items()}
        for section, part in command.sections.items():
            chosen[section] = made(part, values[section], f"{section}.")
    except OptionError as error:
        raise _of_config(error, words, configs) from None
    _require_heard(words, chosen)
    return parsed.command, list(configs), chosen


def _parser(name: str | None = None) -> ArgumentParser:
    """Of all commands; only that of this name gets its options, since they take a moment to make."""
    parser = ArgumentParser(
        prog="semicl",
        usage="semicl COMMAND [--OPTION VALUE ...]",
        description="Label-efficient medical image segmentation.",
        version=own_version(),
        formatter_class=HelpText,
        exit_on_error=False,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(dest="command")
    for each, command in COMMANDS.items():
        own = _command_parser(each, command) if each == name else ArgumentParser()
        commands.add_subcommand(each, own, help=command.help)
    return parser


def _require_command(word: str) -> None:
    """Raise where the first word is no command, and asks for nothing that is there without one."""
    if word not in (*COMMANDS, "-h", "--help", "--version"):
        raise UsageError(
            f"{word or 'an empty word'}: no such command; give one of {', '.join(COMMANDS)}"
            f"{did_you_mean(names_alike(word, list(COMMANDS)))}"
        )


def _require_heard(words: list[str], chosen: dict[str, Any]) -> None:
    """Raise where an option is typed that a study overrules, which would else be lost without a word."""
    typed = {word.partition("=")[0] for word in words}
    for option, other in OVERRULED.items():
        values = getattr(chosen.get("study"), other, None)
        if values is not None and f"--{option}" in typed:
            raise SemiclError(
                f"--{option} has no effect beside {other} {json.dumps(values)}, which the study tries all; give "
                f"--{other} instead"
            )


def _command_parser(name: str, command: Command) -> ArgumentParser:
    needed = [f"--{option} VALUE" for option in command.required()]
    parser = ArgumentParser(
        usage=" ".join(["semicl", name, *needed, "[--OPTION VALUE ...]"]),
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        epilog=_OF_STAGES if command.sections else None,
        formatter_class=HelpText,
        exit_on_error=False,
        allow_abbrev=False,
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


def _configs(command: Command, words: list[str]) -> dict[str, dict[str, Any]]:
    """What a command takes of each config of its command line.

    Raises:
        SemiclError: a config cannot be read, or holds what the command does not take.
    """
    taken = {}
    for word, config in pairwise(words):
        if word == "--config":
            taken[config] = options_of(read_config(config), command.section, command.keys(), _RUN.keys(), config)
            check(taken[config], command.options(), f"--config {config}: ")
    return taken


def _of_config(error: OptionError, words: list[str], configs: dict[str, dict[str, Any]]) -> SemiclError:
    """The error, with the config that a value of its options is from, unless the command line gives one of them."""
    if any(is_typed(option, words) for option in error.options):
        return error
    givers = [config for config, taken in configs.items() if any(gives(taken, option) for option in error.options)]
    return error.of_config(givers[-1]) if givers else error
