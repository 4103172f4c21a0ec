"""A key that is given twice is refused, in every text that options come from."""

from pathlib import Path

import pytest

from semicl.yaml_text import load_yaml
from tests.semicl.conftest import error_of

CONFIG = "prepared: p\nlabel_fraction: 0.5\nfinetune: {schedule: {epochs: 2}}\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: 1\nb: 2\na: 1", "a"),
        ("a: {b: 1, b: 2}", "b"),
        ('{"a": [{"b": 1}, {"c": 1, "c": 2}]}', "c"),
        ("a: 1\n'a': 2", "a"),
        ("1: a\n1: b", "1"),
    ],
)
def test_a_key_that_is_given_twice_is_named(text: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is given twice"):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {b: 1}\nc: {b: 1}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: *x", {"a": {"b": 1}, "c": {"b": 2}, "d": {"b": 1}}),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
        ("[1, 1]", [1, 1]),
    ],
)
def test_other_keys_are_read(text: str, expected: object) -> None:
    assert load_yaml(text) == expected


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("label_fraction: 1.0", "label_fraction"),
        ("finetune: {mixup: 0.2}", "finetune"),
        ("network: {widths: [4], widths: [8]}", "widths"),
    ],
)
def test_a_config_with_a_key_twice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, key: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG + more)
    error = error_of(capsys, "finetune", "--config", path)
    assert error.startswith(f"error: --config {path}: ")
    assert f"'{key}' is given twice" in error


@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "--data", "d", "--classes", '{"a": 1, "a": 2}'),
        ("prepare", "--data", "d", '--classes={"a": 1, "a": 2}'),
        ("run", "--data", "d", "--prepare", '{"classes": {"a": 1, "a": 2}}'),
        ("table", "--data", "d", "--methods", "{a: {start: random}, a: {start: global}}"),
        ("finetune", "--schedule", "a.yaml"),
    ],
)
def test_an_option_with_a_key_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("a: 1\na: 2\n")
    option = next(word.partition("=")[0] for word in words[::-1] if word.startswith("--"))
    assert error_of(capsys, *words, code=2).startswith(f"error: {option}: 'a' is given twice")
