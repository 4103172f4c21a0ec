"""The stages of an experiment as sections of its options."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from semicl.errors import SemiclError

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
