"""Mistakes in options, told in the words of the command line instead of those of jsonargparse."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from semicl.names_alike import ALIKE, did_you_mean

_UNKNOWN = "unrecognized arguments: "
_MISSING = "the following arguments are required: "
_INNERMOST_KEY = re.compile(r'.*Parser key "([\w.]+)":\s*(.*)', re.DOTALL)
_EXPECTED = re.compile(r"Expected an? (.+?)(?:\. Got value:|\s+- |\s+Given value type:)", re.DOTALL)
_GOT = re.compile(r"(?:Got|Given) value: (.*?)(?=\s+- Expected an? |\s*$)", re.DOTALL)  # a union has several reasons
_NO_MAPPING = re.compile(r"Unable to load config ['\"](.*?)['\"]", re.DOTALL)
_CHOICES = re.compile(r"typing\.Literal\[(.+)\]")
_BETWEEN = re.compile(r"[,\s]+")
_ITEMS = re.compile(r"[\w.+-]+([,\s]+[\w.+-]+)*")
_KINDS = {
    "<class 'int'>": "an integer",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'tuple'>": "a list",
    "<class 'dict'>": "a mapping",
}

_EXAMPLES = {
    "shares": "'[3,1,1]'",
    "spacing": "'[1,1,1]'",
    "patch_size": "'[64,64]'",
    "classes": """'{"liver": 1, "spleen": 4}'""",
    "checkpoint": "runs/mine/finetune/model.ckpt",
    "input": "scan.nii.gz",
}
"""Values, as they are typed, of options whose form is not plain from their name."""


def as_typed(message: str, known: Sequence[str] = ()) -> str:
    """A message of jsonargparse, with options as they are typed (`--loss.stride`) and types in plain words.

    Args:
        message: what jsonargparse said.
        known: places of all options there are, as "loss.stride", among which a mistyped one may be meant.
    """
    if message.startswith(_UNKNOWN):
        options = [word for word in message.removeprefix(_UNKNOWN).split() if word.startswith("-")]
        return message + (_suggestion(options[0], known) if options else "")
    if message.startswith(_MISSING):
        # The command's name comes first.
        names = [key.partition(".")[2] for key in message.removeprefix(_MISSING).split(", ")]
        return _MISSING + ", ".join(f"--{name}" for name in names) + _example(*names)
    found = _INNERMOST_KEY.match(message)
    if found is None:
        return message
    option, reason = found.groups()
    no_mapping = _NO_MAPPING.match(reason)
    if no_mapping:
        return f"--{option}: expected a mapping of options, got {no_mapping[1]}"
    expected, got = _EXPECTED.search(reason), _GOT.search(reason)
    if not expected or not got:
        return f"--{option}: {reason}"
    told = f"--{option}: expected {_kind(expected[1], got[1])}, got {'null' if got[1] == 'None' else got[1]}"
    return told + _example(option)


def _kind(expected: str, got: str) -> str:
    """A Python type in words; a list with an example made of what was given instead."""
    if expected == "<class 'tuple'>" and _ITEMS.fullmatch(got) and got != "None":
        items = _BETWEEN.split(got)
        return f"a list in brackets, as '[{','.join(items if len(items) > 1 else [*items, '...'])}]'"
    choices = _CHOICES.fullmatch(expected)
    return f"one of {choices[1]}" if choices else _KINDS.get(expected, f"a {expected.replace('tuple with', 'list of')}")


def _example(*options: str) -> str:
    """Values that these options take, where there is an example."""
    known = [f"--{option} {_EXAMPLES[name]}" for option in options if (name := option.rpartition(".")[2]) in _EXAMPLES]
    return f"; an example: {' '.join(known)}" if known else ""


def _suggestion(word: str, known: Sequence[str]) -> str:
    """The options that a mistyped one may stand for: of a name alike, or of its last part alone."""
    wanted = word.partition("=")[0].lstrip("-").replace("-", "_")
    by_last_part: dict[str, list[str]] = {}
    for place in known:
        by_last_part.setdefault(place.rpartition(".")[2], []).append(place)
    meant = get_close_matches(wanted, known, 1, ALIKE)
    if not meant:
        meant = [place for part in get_close_matches(wanted, by_last_part, 1, ALIKE) for place in by_last_part[part]]
    return did_you_mean(f"--{place}" for place in meant)
