"""Who is trained on, who is held out, and whose labels may be used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any

import numpy as np

from semicl.data.cases import Case
from semicl.data.classes import nfc
from semicl.errors import SemiclError
from semicl.files import read_json

PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Three sets of cases without a common subject; the order of `training` is that in which labels are handed out."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]

    def labelled(self, label_fraction: float) -> tuple[Case, ...]:
        """The training cases whose labels may be used.

        The label fraction is defined here and nowhere else: of the training subjects that have a label, the first
        label_fraction * their number, rounded to the nearest whole number and a half up, with all their labelled cases.

        Raises:
            SemiclError: that is no subject.
        """
        subjects = list(dict.fromkeys(case.subject for case in self.training if case.label is not None))
        number = int(label_fraction * len(subjects) + 0.5)
        if number == 0:
            raise SemiclError(
                f"--label_fraction {label_fraction:g} of {len(subjects)} labelled training subjects yields no volume; "
                + (f"give {_least_fraction(len(subjects))} or more" if subjects else "add labels to the training cases")
            )
        chosen = set(subjects[:number])
        return tuple(case for case in self.training if case.subject in chosen and case.label is not None)


def make_split(cases: Sequence[Case], shares: Sequence[int], seed: int, repeat: int) -> Split:
    """Split cases by subject; validation and test take subjects with labels, all others are trained on.

    Raises:
        SemiclError: fewer labelled subjects than shares.
    """
    subjects = sorted({case.subject for case in cases if case.label is not None})
    if len(subjects) < sum(shares):
        raise SemiclError(
            f"{len(subjects)} labelled subjects ({sum(case.label is not None for case in cases)} labelled cases) are "
            f"too few to split {':'.join(map(str, shares))}; give at least {sum(shares)} subjects, or 3 and --shares "
            "1 1 1"
        )
    shuffled = [subjects[i] for i in np.random.default_rng((seed, repeat)).permutation(len(subjects))]
    ends = np.cumsum([len(subjects) * share // sum(shares) for share in shares[1:]])
    validation, test, training = shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] :]
    training += sorted({case.subject for case in cases} - set(subjects))
    return Split(*(_of(cases, part) for part in (training, validation, test)))


def split_json(split: Split, **origin: Any) -> dict[str, Any]:
    """A split as JSON: for each part, the subjects in their order and the names of their cases."""
    content: dict[str, Any] = dict(origin)
    for part in PARTS:
        content[part] = {}
        for case in getattr(split, part):
            content[part].setdefault(case.subject, []).append(case.name)
    return content


def read_split(path: Path, cases: Sequence[Case]) -> Split:
    """A split that `split_json` described, or a person edited.

    Raises:
        SemiclError: no such file, not a split, an unknown case, a subject in two parts or an empty part.
    """
    by_name = {nfc(case.name): case for case in cases}
    if not path.is_file():
        raise SemiclError(f"{path}: no such split; give the number of another one, or run `semicl prepare`")
    try:
        content = read_json(path)
        names = {part: [nfc(name) for group in content[part].values() for name in group] for part in PARTS}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise SemiclError(
            f"{path}: not a split ({type(error).__name__}: {error}); mend it, or remove it and "
            "run `semicl prepare` again"
        ) from error
    unknown = [name for part in PARTS for name in names[part] if name not in by_name]
    if unknown:
        raise SemiclError(
            f"{path}: case {unknown[0]} is not in the prepared folder; mend it, or remove it and "
            "run `semicl prepare` again"
        )
    split = Split(*(tuple(by_name[name] for name in names[part]) for part in PARTS))
    owners: dict[str, str] = {}
    for part in PARTS:
        if not names[part]:
            raise SemiclError(f"{path}: {part} is empty; every part needs a subject")
        for case in getattr(split, part):
            if owners.setdefault(case.subject, part) != part:
                raise SemiclError(f"{path}: {case.subject} is in {owners[case.subject]} and {part}; keep it in one")
    return split


def is_as_made(path: Path, cases: Sequence[Case]) -> bool:
    """Whether a split's file is, to the order, what `make_split` makes of these cases: no person has edited it."""
    try:
        content = read_json(path)
        origin = {name: content[name] for name in ("seed", "repeat", "shares")}
        made = split_json(make_split(cases, **origin), **origin)
    except (ValueError, LookupError, ArithmeticError, TypeError, OSError, SemiclError):  # whatever was edited
        return False
    return json.dumps(content) == json.dumps(made)


def is_made_for(path: Path, number: int) -> bool:
    """Whether a file is split `number` of some preparation, by what it says of itself, and not a person's own."""
    try:
        content = read_json(path)
        return bool(content["repeat"] == number and "seed" in content and "shares" in content)
    except (ValueError, LookupError, TypeError, OSError):
        return False


def _least_fraction(subjects: int) -> str:
    """The smallest fraction of two digits that yields one of so many subjects."""
    return str(Context(prec=2, rounding=ROUND_CEILING).divide(1, 2 * subjects))


def _of(cases: Sequence[Case], subjects: Sequence[str]) -> tuple[Case, ...]:
    return tuple(case for subject in subjects for case in cases if case.subject == subject)
