"""Whether options given as a mapping are of the right names and kinds, told by their place in it."""

import json
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from semicl.errors import UsageError
from semicl.option_errors import as_typed
from semicl.option_tree import entries, is_part, kinds


def check(content: Mapping[str, Any], options: Mapping[str, Any], origin: str, above: str = "") -> None:
    """Check a mapping of options, at any depth.

    Args:
        content: the mapping.
        options: names and types of the options at its top.
        origin: what an error starts with, followed by the option's place: "--config FILE: ", or "--".
        above: the place of the mapping, as "finetune.".

    Raises:
        UsageError: an unknown name, no mapping where there are options within an option, or a value of another type.
    """
    for name, value in content.items():
        place = f"{above}{name}"
        if name not in options:
            holder = above.removesuffix(".") or "it"
            raise UsageError(f"{origin}{place} is unknown; {holder} takes {', '.join(sorted(options))}")
        kind = options[name]
        if is_part(kind):
            inner = kinds(kind)
            check(_mapping(value, f"{origin}{place}", f"options ({', '.join(inner)})"), inner, origin, f"{place}.")
        elif (entry := entries(kind)) is not None:
            named = _mapping(value, f"{origin}{place}", "names")
            check(named, dict.fromkeys(named, entry), origin, f"{place}.")
        else:
            _check_value(value, kind, f"{origin}{place}")


def _mapping(value: Any, told: str, of: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{told} takes a mapping of {of}, got {json.dumps(value, default=str)}")
    return value


def _check_value(value: Any, kind: Any, told: str) -> None:
    if kind is Path and not isinstance(value, str):
        raise UsageError(f"{told}: expected a path, got {json.dumps(value, default=str)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        parser.validate(parser.parse_object({"value": value}), False)  # else null would pass for any type
    except (ArgumentError, TypeError) as error:
        raise UsageError(f"{told}: {as_typed(str(error)).removeprefix('--value: ')}") from error
