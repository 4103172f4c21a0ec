"""Which name may have been meant by one that there is not."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

ALIKE = 0.75
"""How alike names are that may have been meant, from 0 to 1 of difflib."""


def names_alike(word: str, known: Sequence[str]) -> list[str]:
    """The one that is most alike, else those that begin with the word."""
    return get_close_matches(word, known, 1, ALIKE) or [name for name in known if word and name.startswith(word)]


def did_you_mean(names: Iterable[str]) -> str:
    """The end of an error: a question, where there are names to ask for."""
    asked = " or ".join(names)
    return f"; did you mean {asked}?" if asked else ""
