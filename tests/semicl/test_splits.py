"""Splits go by subject, follow the seed, and define the label fraction."""

from pathlib import Path

import pytest

from semicl.cases import Case
from semicl.errors import SemiclError
from semicl.splits import Split, split_by_subject


def _cases(subjects: int) -> list[Case]:
    """Two cases of each subject, as in the hippocampus task."""
    return [Case(f"case_{i}", f"subject {(i + 1) // 2}", Path(), Path()) for i in range(1, 2 * subjects + 1)]


def _subjects(cases: tuple[Case, ...]) -> set[str]:
    return {case.subject for case in cases}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("subjects", [5, 13, 132])
def test_no_subject_is_on_two_sides(subjects: int, seed: int) -> None:
    cases = _cases(subjects)
    split = split_by_subject(cases, 0.05, seed)
    sides = [split.training, split.validation, split.test]
    assert sorted(case.name for side in sides for case in side) == sorted(case.name for case in cases)
    assert sum(len(_subjects(side)) for side in sides) == subjects
    assert all(sides)


def test_shares_are_three_to_one_to_one() -> None:
    split = split_by_subject(_cases(100), 0.05, 0)
    assert [len(_subjects(side)) for side in (split.training, split.validation, split.test)] == [60, 20, 20]


@pytest.mark.parametrize(("fraction", "labelled"), [(0.001, 1), (0.05, 3), (0.051, 4), (0.5, 30), (1.0, 60)])
def test_the_fraction_counts_training_subjects_rounded_up(fraction: float, labelled: int) -> None:
    split = split_by_subject(_cases(100), fraction, 0)
    assert len(_subjects(split.labelled)) == labelled
    assert len(split.labelled) == 2 * labelled
    assert set(split.labelled) <= set(split.training)


def test_a_larger_fraction_keeps_the_smaller_ones_subjects() -> None:
    few, many = (split_by_subject(_cases(100), fraction, 0) for fraction in (0.05, 0.1))
    assert set(few.labelled) < set(many.labelled)


def test_the_seed_decides_the_split() -> None:
    def split(seed: int) -> Split:
        return split_by_subject(_cases(50), 0.1, seed)

    assert split(1) == split(1)
    assert split(1).test != split(2).test


def test_too_few_subjects_are_refused() -> None:
    with pytest.raises(SemiclError, match=r"4 subjects \(8 cases\) are too few .* at least 5"):
        split_by_subject(_cases(4), 0.5, 0)
