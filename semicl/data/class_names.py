"""Names of cases and classes: which ones are the same, and which a class may have."""

import unicodedata
from collections.abc import Iterable

BACKGROUND = "background"


def nfc(name: str) -> str:
    """The name with each accented letter as one character: some systems write the accent after its letter."""
    return unicodedata.normalize("NFC", name)


def needed_of_classes(classes: Iterable[tuple[str, int]], background: str = BACKGROUND) -> str | None:
    """What classes must have and do not, in words that follow "takes"; None where they have it.

    A class is known by its name, and a voxel's class by its value, so both must be different ones. Names that differ in
    capitals, in space around them or in how an accent is written are the same.

    Args:
        classes: names and values of all but the background.
        background: its name.
    """
    names: dict[str, str] = {}
    values: dict[int, str] = {}
    for name, value in classes:
        if not folded(name):
            return f"a name for each class, also for the one of value {value}"
        if folded(name) in (folded(BACKGROUND), folded(background)):
            return f"no class named {name!r}, which is the name of value 0; rename it"
        if folded(name) in names:
            return f"names that differ, and {names[folded(name)]!r} and {name!r} do not; rename one, or merge them"
        if value in values:
            return (
                f"a value of its own for each class, and {values[value]!r} and {name!r} both have {value}; leave one "
                "out, or mend the value"
            )
        names[folded(name)], values[value] = name, name
    return None


def folded(name: str) -> str:
    """A class's name as it compares: without regard to capitals, space around it and how accents are written."""
    return nfc(nfc(name).strip().casefold())
