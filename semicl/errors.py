"""The exceptions a user can mend, and how a stage's are told in an experiment."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any


class SemiclError(Exception):
    """What is wrong, with which file or option, and how to mend it, in one line.

    The command line prints it in a box, without a traceback, and exits with code 1.
    """


class UsageError(SemiclError):
    """A command line or a config cannot be taken; the command line exits with code 2."""


class OptionError(UsageError, ValueError):
    """An option has a value that it does not take; tyro answers it, a ValueError, in a box."""


_OPTION = re.compile(r"`[^`]*`|--(\w+)")  # a command line in backticks is of a single stage


@contextmanager
def section(name: str, options: Any) -> Iterator[None]:
    """Errors of a stage name its own options as the experiment takes them: `--finetune.mixup`, not `--mixup`.

    Args:
        name: of the section.
        options: those of the stage.
    """
    own = {field.name for field in fields(options)}
    try:
        yield
    except SemiclError as error:
        error.args = (_OPTION.sub(lambda found: f"--{name}.{found[1]}" if found[1] in own else found[0], str(error)),)
        raise
