"""Dataclasses of options from the values of the command line."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import Namespace

from semicl.errors import OptionError
from semicl.option_tree import is_part

Part = TypeVar("Part")


def made(part: type[Part], values: Namespace, section: str = "") -> Part:
    """The dataclass of these values, inner dataclasses first.

    jsonargparse could make it too, but would not tell where in the tree of options one was refused.

    Args:
        part: the dataclass.
        values: what was parsed for its fields, and maybe for others.
        section: its place in the tree, as "finetune." or "loss.", for errors.

    Raises:
        OptionError: an option has a value that it does not take; it is named by its place.
    """
    content: dict[str, Any] = {}
    for field in fields(part):  # type: ignore[arg-type]
        value = values[field.name]
        if is_part(field.type):
            value = made(field.type, value, f"{section}{field.name}.")
        elif isinstance(value, Path):  # the shell leaves `--output=~/runs` alone, and every `~` in YAML
            value = Path(os.path.expanduser(value))
        content[field.name] = value
    try:
        return part(**content)
    except OptionError as error:
        raise error.inside(section) from None
