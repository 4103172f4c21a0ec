"""Whose scan a case is."""

import re
from collections.abc import Callable

from semicl.data.classes import nfc
from semicl.errors import SemiclError

TWO_SCANS_A_SUBJECT = ("Hippocampus", "Phantom")
"""Datasets whose cases 2k-1 and 2k are one scan: a split by case would leak between training and test."""


def subject_rule(
    dataset: str, scans_per_subject: int | None = None, subject_pattern: str | None = None
) -> Callable[[str], str]:
    """The function from a case's name to its subject's.

    Args:
        dataset: name of the dataset, which chooses where neither of the others is given.
        scans_per_subject: cases whose last number i gives the same ceil(i / scans_per_subject) are one subject.
        subject_pattern: regular expression whose first group that is found, and is not empty, names the subject.

    Raises:
        SemiclError: the pattern is no regular expression, has no group, or does not match a name.
    """
    if subject_pattern is not None:
        return _by_pattern(subject_pattern)
    scans = scans_per_subject or (2 if dataset in TWO_SCANS_A_SUBJECT else 1)
    return lambda name: _by_number(name, scans)


def _by_number(name: str, scans: int) -> str:
    number = re.search(r"(\d+)$", name)
    if number is None or scans == 1:
        return name
    return f"{name[: number.start()]}{-(-int(number[1]) // scans)}"


def _by_pattern(pattern: str) -> Callable[[str], str]:
    try:
        compiled = re.compile(nfc(pattern))
    except re.error as error:
        raise SemiclError(f"--subject_pattern takes a regular expression, got {pattern!r} ({error})") from error
    if compiled.groups < 1:
        raise SemiclError(f"--subject_pattern takes a pattern with a group, as in '(patient\\d+)', got {pattern!r}")

    def subject_of(name: str) -> str:
        groups = (group for found in compiled.finditer(name) for group in found.groups() if group)
        subject = next(groups, None)
        if subject is None:
            raise SemiclError(f"--subject_pattern {pattern!r} does not match case {name}; widen the pattern")
        return subject

    return subject_of
