"""Splits go by subject, follow the seed, and define the label fraction."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from semicl.data.cases import Case
from semicl.data.splits import Split, is_as_made, make_split, read_split, split_json
from semicl.errors import SemiclError

SHARES = (3, 1, 1)


def _cases(subjects: int) -> list[Case]:
    """Two cases of each subject, as in the hippocampus task."""
    return [Case(f"case_{i}", f"subject {(i + 1) // 2}", Path(), Path()) for i in range(1, 2 * subjects + 1)]


def _subjects(cases: tuple[Case, ...]) -> set[str]:
    return {case.subject for case in cases}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("subjects", [5, 13, 132])
def test_no_subject_is_on_two_sides(subjects: int, seed: int) -> None:
    cases = _cases(subjects)
    split = make_split(cases, SHARES, seed, repeat=0)
    sides = [split.training, split.validation, split.test]
    assert sorted(case.name for side in sides for case in side) == sorted(case.name for case in cases)
    assert sum(len(_subjects(side)) for side in sides) == subjects
    assert all(sides)


@pytest.mark.parametrize(("shares", "expected"), [((3, 1, 1), [60, 20, 20]), ((2, 1, 1), [50, 25, 25])])
def test_shares(shares: tuple[int, ...], expected: list[int]) -> None:
    split = make_split(_cases(100), shares, 0, repeat=0)
    assert [len(_subjects(side)) for side in (split.training, split.validation, split.test)] == expected


@pytest.mark.parametrize(("fraction", "labelled"), [(0.01, 1), (0.05, 3), (0.058, 3), (0.06, 4), (0.5, 30), (1.0, 60)])
def test_the_fraction_counts_training_subjects_rounded(fraction: float, labelled: int) -> None:
    split = make_split(_cases(100), SHARES, 0, repeat=0)
    cases = split.labelled(fraction)
    assert len(_subjects(cases)) == labelled
    assert len(cases) == 2 * labelled
    assert set(cases) <= set(split.training)


def test_a_fraction_that_yields_no_volume_is_refused() -> None:
    split = make_split(_cases(100), SHARES, 0, repeat=0)
    with pytest.raises(SemiclError, match=r"--label_fraction 0\.001 of 60 .* yields no volume; give 0\.0084 or more"):
        split.labelled(0.001)


@pytest.mark.parametrize("subjects", [1, 2, 3, 4, 7, 12, 60, 61, 500, 999])
def test_the_advised_fraction_yields_a_subject(subjects: int) -> None:
    split = Split(tuple(_cases(subjects)), (), ())
    with pytest.raises(SemiclError, match="yields no volume") as caught:
        split.labelled(0.49 / subjects)
    advised = str(caught.value).split("; give ")[1].removesuffix(" or more")
    assert len(_subjects(split.labelled(float(advised)))) == 1


def test_half_a_subject_is_rounded_up() -> None:
    assert len(_subjects(Split(tuple(_cases(4)), (), ()).labelled(0.125))) == 1


def test_a_larger_fraction_keeps_the_smaller_ones_subjects() -> None:
    split = make_split(_cases(100), SHARES, 0, repeat=0)
    assert set(split.labelled(0.05)) < set(split.labelled(0.1))


def test_seed_and_repeat_decide_the_split() -> None:
    splits = [make_split(_cases(50), SHARES, seed, repeat) for seed in (1, 2) for repeat in (0, 1)]
    assert splits[0] == make_split(_cases(50), SHARES, 1, 0)
    assert len({split.test for split in splits}) == 4


def test_unlabelled_subjects_are_trained_on_and_never_held_out() -> None:
    cases = [replace(case, label=None) if i < 20 else case for i, case in enumerate(_cases(30))]
    split = make_split(cases, SHARES, 0, repeat=0)
    assert all(case.label is not None for case in split.validation + split.test)
    assert sum(case.label is None for case in split.training) == 20
    assert all(case.label is not None for case in split.labelled(1.0))


def test_too_few_subjects_are_refused() -> None:
    with pytest.raises(SemiclError, match=r"4 labelled subjects \(8 labelled cases\) are too few .* at least 5"):
        make_split(_cases(4), SHARES, 0, repeat=0)


def _written(tmp_path: Path, split: Split, **changes: object) -> Path:
    path = tmp_path / "0.json"
    path.write_text(json.dumps(split_json(split, seed=0) | changes))
    return path


def test_a_written_split_is_read_back_in_its_order(tmp_path: Path) -> None:
    cases = _cases(20)
    split = make_split(cases, SHARES, 3, repeat=1)
    assert read_split(_written(tmp_path, split), cases) == split


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": {"subject 1": ["case_99"]}}, "case case_99 is not in the prepared folder"),
        ({"test": {}}, "test is empty"),
        ({"test": None}, "not a split"),
    ],
)
def test_an_unusable_split_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    cases = _cases(20)
    path = _written(tmp_path, make_split(cases, SHARES, 0, repeat=0), **changes)
    with pytest.raises(SemiclError, match=message) as caught:
        read_split(path, cases)
    assert str(caught.value).startswith(str(path))


def _made(tmp_path: Path, cases: list[Case]) -> Path:
    path = tmp_path / "1.json"
    split = make_split(cases, SHARES, 3, repeat=1)
    path.write_text(json.dumps(split_json(split, seed=3, repeat=1, shares=SHARES), indent=2))
    return path


def test_a_split_that_nobody_edited_is_as_made(tmp_path: Path) -> None:
    cases = _cases(20)
    assert is_as_made(_made(tmp_path, cases), cases)


def test_an_edited_split_is_not_as_made(tmp_path: Path) -> None:
    cases = _cases(20)
    path = _made(tmp_path, cases)
    content = json.loads(path.read_text())
    swapped = content | {"validation": content["test"], "test": content["validation"]}
    reordered = content | {"training": dict(reversed(content["training"].items()))}
    without_origin = {part: content[part] for part in ("training", "validation", "test")}
    for edited in (
        swapped,
        reordered,
        without_origin,
        [],
        content | {"shares": []},
        content | {"shares": [0, 0, 0]},
        content | {"seed": "x"},
    ):
        path.write_text(json.dumps(edited))
        assert not is_as_made(path, cases)
    path.write_text("{")
    assert not is_as_made(path, cases)


def test_an_edited_split_that_leaks_is_refused(tmp_path: Path) -> None:
    cases = _cases(20)
    split = make_split(cases, SHARES, 0, repeat=0)
    leak = split.training[0]
    path = _written(tmp_path, split, test={leak.subject: [leak.name]})
    with pytest.raises(SemiclError, match=f"{leak.subject} is in training and test"):
        read_split(path, cases)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"7\.json: no such split"):
        read_split(tmp_path / "7.json", [])
