"""What was held out from a network stays held out from what begins with it."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from semicl.data.prepared import Prepared
from semicl.errors import SemiclError
from semicl.models.lineage import Seen, known_test_images, seen_after, seen_in, split_to_judge, trained_on

START = Path("start.ckpt")


@pytest.fixture
def unlabelled(prepared: Prepared) -> Seen:
    """What stage 1 sees of split 0."""
    return seen_in("Phantom", 0, prepared.split(0), None)


@pytest.fixture
def labelled(prepared: Prepared) -> Seen:
    """What stage 3 sees of split 0."""
    return seen_in("Phantom", 0, prepared.split(0), 0.34)


def _of_other_cases(seen: Seen) -> Seen:
    parts = {part: tuple(f"other {name}" for name in names) for part, names in seen.parts.items()}
    return replace(seen, data="Other", parts=parts, labelled=())


def test_it_names_the_cases(prepared: Prepared, unlabelled: Seen, labelled: Seen) -> None:
    split = prepared.split(0)
    assert set(unlabelled.parts["test"]) == {case.name for case in split.test}
    assert unlabelled.labelled == ()
    assert set(labelled.labelled) == {case.name for case in split.labelled(0.34)}


def test_labels_are_added_and_not_forgotten(unlabelled: Seen, labelled: Seen) -> None:
    assert seen_after((unlabelled,), labelled, START) == (labelled,)
    assert seen_after((labelled,), unlabelled, START) == (labelled,)
    assert seen_after((labelled,), labelled, START) == (labelled,)


def test_fractions_that_come_to_the_same_cases_are_one(labelled: Seen) -> None:
    assert seen_after((labelled,), replace(labelled, label_fraction=0.33), START)[0].labelled == labelled.labelled


def test_another_fraction_is_refused(prepared: Prepared, labelled: Seen) -> None:
    everyone = seen_in("Phantom", 0, prepared.split(0), 1)
    for before, now in ((everyone, labelled), (labelled, everyone)):
        with pytest.raises(SemiclError, match=r"start\.ckpt: has seen the labels of .*; give --label_fraction"):
            seen_after((before,), now, START)


def test_another_split_is_refused_also_under_the_same_number(prepared: Prepared, unlabelled: Seen) -> None:
    for number in (0, 1):
        other = seen_in("Phantom", number, prepared.split(1), None)
        with pytest.raises(SemiclError, match=r"start\.ckpt: was trained on split 0 of Phantom, .*; give the --split"):
            seen_after((unlabelled,), other, START)


def test_another_data_set_is_taken_and_remembered(prepared: Prepared, unlabelled: Seen) -> None:
    other = _of_other_cases(unlabelled)
    both = seen_after((unlabelled,), other, START)
    assert both == (unlabelled, other)
    with pytest.raises(SemiclError, match="was trained on split 0 of Phantom"):
        seen_after(both, seen_in("Phantom", 1, prepared.split(1), None), START)


def test_cases_that_were_trained_on_are_known_by_name(prepared: Prepared, labelled: Seen) -> None:
    split = prepared.split(0)
    assert set(trained_on((_of_other_cases(labelled), labelled), prepared.cases)) == set(split.training)
    assert trained_on((_of_other_cases(labelled),), prepared.cases) == ()
    assert trained_on((), prepared.cases) == ()


def test_images_that_were_not_seen_are_not_counted(prepared: Prepared) -> None:
    split = prepared.split(0)
    few, everyone = split.labelled(0.2), split.training
    assert 0 < len(few) < len(everyone)
    tuned = seen_in("Phantom", 0, split, 0.2, images=few)
    assert trained_on((tuned,), prepared.cases) == tuple(case for case in prepared.cases if case in few)
    unlabelled = seen_in("Phantom", 0, split, None, images=everyone)
    after = seen_after((unlabelled,), tuned, START)
    assert set(trained_on(after, prepared.cases)) == set(everyone)
    assert after == (Seen.from_dict(asdict(after[0])),)


def test_test_images_that_were_seen_stay_known(prepared: Prepared, unlabelled: Seen, labelled: Seen) -> None:
    tests = prepared.split(0).test
    transductive = seen_in("Phantom", 0, prepared.split(0), None, transductive=True)
    assert set(known_test_images((transductive,), prepared.cases)) == set(tests)
    tuned = seen_after((transductive,), labelled, START)
    assert tuned == (replace(labelled, transductive=True),)
    assert set(known_test_images(tuned, prepared.cases)) == set(tests)
    assert known_test_images(seen_after((unlabelled,), labelled, START), prepared.cases) == ()


def test_the_split_to_judge_is_the_one_that_was_trained_on(prepared: Prepared, labelled: Seen) -> None:
    second = seen_in("Phantom", 1, prepared.split(1), 1)
    assert split_to_judge((second,), prepared, None, START) == 1
    assert split_to_judge((labelled,), prepared, 0, START) == 0
    assert split_to_judge((), prepared, None, START) == 0
    assert split_to_judge((), prepared, 1, START) == 1
    with pytest.raises(SemiclError, match=r"split 1 of .*it may have seen what is held out; give"):
        split_to_judge((labelled,), prepared, 1, START)
