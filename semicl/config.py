"""Configs: YAML files of options, shipped or of one's own, for one command or for all of them.

A config of `semicl run` holds what all stages share at its top and one section a stage. Each stage's command takes the
same file: it reads what it shares and its own section. A config of one command holds that command's options at its top.
"""

import json
import os
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

from semicl.errors import SemiclError, UsageError
from semicl.names_alike import did_you_mean, names_alike
from semicl.yaml_text import load_yaml

_SHIPPED = files("semicl") / "configs"


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir() if file.name.endswith(".yaml"))


def read_config(name: str) -> dict[str, Any]:
    """The options of a config, given by the name of a shipped one or by the path of a file.

    Raises:
        SemiclError: neither of both, not readable, a key given twice, or no mapping.
    """
    shipped = name in shipped_configs()
    source = _SHIPPED / f"{name}.yaml" if shipped else Path(os.path.expanduser(name))
    if not source.is_file():
        raise SemiclError(
            f"--config {name}: no such file; give a YAML file or one of {', '.join(shipped_configs())}"
            f"{did_you_mean(names_alike(name, shipped_configs()))}"
        )
    try:
        content = load_yaml(source.read_text(encoding="utf-8-sig"))
    except Exception as error:  # whatever the loader raises
        raise SemiclError(f"--config {name}: not readable as YAML ({error}); mend the file") from error
    if not isinstance(content, dict):
        raise SemiclError(f"--config {name}: holds no options; write lines of the form 'option: value'")
    return content


def options_of(
    content: dict[str, Any], section: str | None, own: Collection[str], known: Collection[str], name: str
) -> dict[str, Any]:
    """What one command takes of a config.

    Args:
        content: the whole config.
        section: the command's section, whose keys come to the top; None for a command that takes sections itself.
        own: the command's options.
        known: the options and sections of `semicl run`.
        name: of the config, for the error.

    Raises:
        UsageError: a key that neither the command nor `semicl run` knows, or a section that holds no options.
    """
    unknown = [key for key in content if key not in own and key not in known]
    if unknown:
        raise UsageError(f"--config {name}: unknown key '{unknown[0]}'; it takes {', '.join(sorted(own))}")
    taken = {key: value for key, value in content.items() if key in own}
    if section in content:
        inner = content[section]
        if not isinstance(inner, dict):
            raise UsageError(f"--config {name}: {section} takes a mapping of options, got {json.dumps(inner)}")
        taken |= inner
    return taken


def gives(content: dict[str, Any], place: str) -> bool:
    """Whether a config holds the option of this place, as "finetune.loss.stride"; "*" stands for any key."""
    inner: Any = content
    for key in place.split("."):
        if key == "*":
            return True
        if not isinstance(inner, dict) or key not in inner:
            return False
        inner = inner[key]
    return True
