"""Who is trained on, who is held out, and whose labels may be used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semicl.cases import Case
from semicl.errors import SemiclError

SHARES = (3, 1, 1)
"""Training : validation : test, the paper's split of the hippocampus cases."""


@dataclass(frozen=True)
class Split:
    """Three sets of cases without a common subject.

    `labelled` is the part of `training` whose labels may be used; everything else in `training` is images only.
    """

    labelled: tuple[Case, ...]
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]


def split_by_subject(cases: Sequence[Case], label_fraction: float, seed: int) -> Split:
    """Split cases 3:1:1 by subject and choose the labelled subjects, both by the seed.

    The label fraction is defined here and nowhere else: the cases of the first
    ceil(label_fraction * training subjects) subjects of the shuffled training list.

    Raises:
        SemiclError: fewer subjects than shares.
    """
    subjects = sorted({case.subject for case in cases})
    if len(subjects) < sum(SHARES):
        raise SemiclError(
            f"{len(subjects)} subjects ({len(cases)} cases) are too few to split "
            f"{':'.join(map(str, SHARES))}; give at least {sum(SHARES)} subjects"
        )
    shuffled = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    held_out = [len(subjects) * share // sum(SHARES) for share in SHARES[1:]]
    validation, test, training = np.split(np.array(shuffled), np.cumsum(held_out))
    labelled = training[: math.ceil(label_fraction * len(training))]
    return Split(*(_of(cases, part) for part in (labelled, training, validation, test)))


def _of(cases: Sequence[Case], subjects: np.ndarray) -> tuple[Case, ...]:
    chosen = set(subjects.tolist())
    return tuple(case for case in cases if case.subject in chosen)
