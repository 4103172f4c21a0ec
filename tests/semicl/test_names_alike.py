"""A name that there is not is told with those that may be meant."""

import pytest

from semicl.names_alike import did_you_mean, names_alike


@pytest.mark.parametrize(
    ("word", "meant"), [("tabel", ["table"]), ("pre", ["prepare", "predict"]), ("nothing", []), ("", [])]
)
def test_names_alike(word: str, meant: list[str]) -> None:
    assert names_alike(word, ["prepare", "predict", "table"]) == meant


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "; did you mean a?"), (["a", "b"], "; did you mean a or b?")]
)
def test_did_you_mean(names: list[str], text: str) -> None:
    assert did_you_mean(names) == text
