"""The options that a dataclass holds, those of the dataclasses within it included."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard, get_args, get_origin


def is_part(kind: Any) -> TypeGuard[type]:
    """Whether an option's type is a dataclass of further options."""
    return isinstance(kind, type) and is_dataclass(kind)


def kinds(part: type) -> dict[str, Any]:
    """Names and types of the options of a dataclass."""
    return {field.name: field.type for field in fields(part)}


def entries(kind: Any) -> type | None:
    """The dataclass that the entries of a mapping of names are, where an option's type is such a mapping."""
    entry = get_args(kind)[1] if get_origin(kind) is dict else None
    return entry if is_part(entry) else None


def places(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Place and type of every option at any depth, as `schedule` and `schedule.epochs`.

    Args:
        options: names and types of those at the top.
        above: the place of what holds them, as "finetune.".
    """
    for name, kind in options.items():
        yield f"{above}{name}", kind
        if is_part(kind):
            yield from places(kinds(kind), f"{above}{name}.")
