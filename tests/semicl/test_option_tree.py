"""Options are found at any depth of their dataclasses."""

from semicl.option_tree import entries, is_part, kinds, places
from semicl.options import GlobalContrastOptions, MethodOptions, NetworkOptions, StudyOptions


def test_options_have_places_at_any_depth() -> None:
    found = dict(places({"pretrain_global": GlobalContrastOptions, "seed": int}))
    assert found["pretrain_global.schedule.epochs"] is int
    assert found["pretrain_global.channels"] is int
    assert found["seed"] is int
    assert is_part(found["pretrain_global.augmentation"])


def test_the_entries_of_a_mapping_of_names() -> None:
    assert entries(kinds(StudyOptions)["methods"]) is MethodOptions
    assert entries(dict[str, int]) is None
    assert entries(NetworkOptions) is None
