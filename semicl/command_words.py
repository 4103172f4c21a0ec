"""The words of a command line, as jsonargparse asks for them."""

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from semicl.config_check import check
from semicl.errors import UsageError
from semicl.option_tree import entries, is_part, places
from semicl.yaml_text import load_yaml, require_keys_once


def plain_words(words: list[str], options: Mapping[str, Any]) -> list[str]:
    """The words with `--config NAME` in two, and with a value for every switch.

    Args:
        words: what was typed.
        options: names and types of the command's options at the top.

    Raises:
        UsageError: a value gives a key twice, or a mapping of names, as --methods, holds what it does not take.
    """
    _require_keys_once(words, {f"--{place}" for place, kind in places(options) if is_part(kind)})
    named = {f"--{option}": option for option, kind in options.items() if entries(kind)}
    apart = {"--config", *named}
    words = [part for word in words for part in (word.split("=", 1) if word.partition("=")[0] in apart else [word])]
    for word, value in pairwise(words):
        if word in named:
            check({named[word]: _loaded(value)}, options, "--")
    switches = {f"--{place}" for place, kind in places(options) if kind is bool}
    return [part for word, following in pairwise([*words, "--"]) for part in _switched_on(word, following, switches)]


def configs_first(words: list[str]) -> list[str]:
    """The words with the configs before all others, which so win over them."""
    configs = {place for at, word in enumerate(words[:-1]) if word == "--config" for place in (at, at + 1)}
    others = [word for at, word in enumerate(words) if at not in configs]
    return [words[at] for at in sorted(configs)] + others


def is_typed(option: str, words: list[str]) -> bool:
    """Whether an option, given by its place, or a group that it is in, is among the words."""
    typed = {word.partition("=")[0] for word in words}
    path = option.split(".")
    return any(f"--{'.'.join(path[:depth])}" in typed for depth in range(1, len(path) + 1))


def _require_keys_once(words: list[str], parts: set[str]) -> None:
    """Raise where the value of an option gives a key twice; those of parts may be the names of YAML files.

    Raises:
        UsageError: it does.
    """
    for word, following in pairwise([*words, "--"]):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if not option.startswith("--"):
            continue
        try:
            file = option in parts and os.path.isfile(value)
            require_keys_once(Path(value).read_text(errors="replace") if file else value)
        except ValueError as error:
            raise UsageError(f"{option}: {error}; leave one out") from error


def _loaded(text: str) -> Any:
    """A value; what is no YAML stays text."""
    try:
        return load_yaml(text)
    except Exception:  # whatever the loader raises
        return text


def _switched_on(word: str, following: str, switches: set[str]) -> list[str]:
    """A word of the command line; a switch without a value gets "true", which jsonargparse asks for."""
    return [word, "true"] if word in switches and following.startswith("-") else [word]
