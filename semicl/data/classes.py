"""Classes: known by name, their values in label files, and which names are the same."""

import unicodedata
from collections.abc import Iterable, Mapping

from semicl.errors import SemiclError

ABSENT = "-"
"""What stands for the measures of a class that no label holds."""

IGNORED = 255
"""The number, in place of a class's, of voxels that no loss and no measure regards."""

Merged = Mapping[int, int | None]
"""Other values of label files, and the value of the class that each counts as; None: its voxels are ignored."""

Values = Mapping[str, int | None]
"""The value of each class in label files, the background first; None where they have no such class."""


def values_by_name(trained: Mapping[str, int], described: Mapping[str, int] | None, where: object) -> Values:
    """The value that each class of a checkpoint has in other label files.

    Args:
        trained: the checkpoint's classes, the background first.
        described: the classes of the label files, the background first; None where they have no names, and values are
            then those that the checkpoint was trained with.
        where: the label files, for the error.

    Raises:
        SemiclError: no class but the background has the same name in both.
    """
    if described is None:
        return dict(trained)
    there = {folded(name): value for name, value in _foreground(described)}
    background, *names = trained
    if not any(folded(name) in there for name in names):
        raise SemiclError(
            f"{where}: has no class of the checkpoint, which knows {_listed(names)}; its own are {_listed(described)}; "
            "give both the same names"
        )
    return {background: 0} | {name: there.get(folded(name)) for name in names}


def held_values(values: Values, held: Iterable[int]) -> Values:
    """The values, None for those that no label file holds."""
    there = {0, *held}
    return {name: value if value in there else None for name, value in values.items()}


def unknown_classes(values: Values, described: Mapping[str, int] | None, held: Iterable[int]) -> list[str]:
    """The described classes that label files hold and the checkpoint does not know."""
    there, known = set(held), {value for value in values.values() if value is not None}
    return [name for name, value in _foreground(described or {}) if value in there and value not in known]


def absent(values: Values) -> list[str]:
    """The classes that no label file holds."""
    return [name for name, value in values.items() if value is None]


def without(names: Iterable[str], what: str) -> str:
    """The line that tells of classes that no label holds."""
    return f"No label holds {_listed(names)}: left out of {what}."


def _foreground(classes: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(name, value) for name, value in classes.items() if value != 0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


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
