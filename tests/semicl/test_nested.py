"""Mappings laid over each other at any depth."""

from semicl.files import laid_over


def test_changes_win_at_any_depth_and_leave_the_rest() -> None:
    content = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert laid_over(content, {"a": {"c": {"d": 4, "f": 5}}, "g": 6}) == {
        "a": {"b": 1, "c": {"d": 4, "f": 5}},
        "e": 3,
        "g": 6,
    }
    assert content == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_a_mapping_and_a_value_take_each_others_place() -> None:
    assert laid_over({"a": {"b": 1}}, {"a": None}) == {"a": None}
    assert laid_over({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
