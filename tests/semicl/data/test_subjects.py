"""Cases of one person are one subject, by the rule of the dataset or of the user."""

import pytest

from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError


@pytest.mark.parametrize(
    ("name", "same_as"), [("hippocampus_003", "hippocampus_004"), ("hippocampus_367", "hippocampus_368")]
)
def test_in_the_hippocampus_task_an_odd_case_and_the_next_are_one_subject(name: str, same_as: str) -> None:
    rule = subject_rule("Hippocampus")
    assert rule(name) == rule(same_as)


def test_other_cases_are_other_subjects() -> None:
    rule = subject_rule("Hippocampus")
    names = ["hippocampus_004", "hippocampus_005", "hippocampus_007", "left", "right"]
    assert len({rule(name) for name in names}) == len(names)


def test_elsewhere_every_case_is_a_subject_of_its_own() -> None:
    rule = subject_rule("MMWHS")
    assert rule("ct_train_1001") != rule("ct_train_1002")


def test_the_user_may_say_how_many_scans_a_subject_has() -> None:
    rule = subject_rule("Spleen", scans_per_subject=3)
    assert rule("spleen_4") == rule("spleen_6")
    assert rule("spleen_3") != rule("spleen_4")


def test_the_user_may_give_a_pattern() -> None:
    rule = subject_rule("Hippocampus", subject_pattern=r"(patient\d+)_")
    assert rule("patient7_scan1") == rule("patient7_scan22") == "patient7"


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "takes a regular expression"), (r"\d+", "takes a pattern with a group")]
)
def test_an_unusable_pattern_is_named(pattern: str, message: str) -> None:
    with pytest.raises(SemiclError, match=message):
        subject_rule("any", subject_pattern=pattern)


def test_a_name_that_the_pattern_does_not_match_is_named() -> None:
    with pytest.raises(SemiclError, match="does not match case left_2"):
        subject_rule("any", subject_pattern=r"(patient\d+)")("left_2")


@pytest.mark.parametrize(
    ("pattern", "name", "subject"),
    [
        (r"(patient\d+)|(ctrl\d+)", "ctrl12_scan1", "ctrl12"),
        (r"(patient\d+)|(ctrl\d+)", "patient3_scan1", "patient3"),
        (r"(patient\d+)?_scan|(ctrl\d+)", "x_scan_ctrl7", "ctrl7"),
        (r"(patient\d+)?", "scan_patient7", "patient7"),
        (r"(?:a|(b\d))(?:c|(d\d))", "ad5", "d5"),
        (r"(?P<subject>s\d+)|x", "xx_s4", "s4"),
        ("(Jose\u0301\\d)", "Jos\u00e91_a", "Jos\u00e91"),
    ],
)
def test_the_group_that_took_part_names_the_subject(pattern: str, name: str, subject: str) -> None:
    assert subject_rule("any", subject_pattern=pattern)(name) == subject


@pytest.mark.parametrize("pattern", [r"(patient\d+)?_scan", r"(patient\d+)?", r"(x*)", r"()"])
def test_a_pattern_whose_groups_take_no_part_does_not_match(pattern: str) -> None:
    with pytest.raises(SemiclError, match="does not match case left_scan; widen the pattern"):
        subject_rule("any", subject_pattern=pattern)("left_scan")
