"""Configs are found by name or path, and each command takes its own part of them."""

from pathlib import Path

import pytest

from semicl.cli import COMMANDS
from semicl.config import gives, options_of, read_config, shipped_configs
from semicl.errors import SemiclError, UsageError

RUN = COMMANDS["run"].keys()
LOCAL = COMMANDS["pretrain-local"].keys()


def test_the_shipped_configs() -> None:
    assert {"hippocampus", "mmwhs", "phantom", "hippocampus-small"} <= set(shipped_configs())


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 3\nfinetune: {schedule: {learning_rate: 1e-4}}\n")
    assert read_config(str(tmp_path / "mine.yaml")) == {"seed": 3, "finetune": {"schedule": {"learning_rate": 1e-4}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such file; give a YAML file"), ("a: [", "not readable"), ("7", "holds no")],
)
def test_an_unusable_config_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SemiclError, match=message) as caught:
        read_config(str(path))
    assert str(path) in str(caught.value)


def test_a_stage_takes_what_is_shared_and_its_own_section() -> None:
    content = {"seed": 3, "data": "x", "pretrain_local": {"loss": {"stride": 2}}, "finetune": {"mixup": 1}}
    taken = options_of(content, "pretrain_local", LOCAL, RUN, "c")
    assert taken == {"seed": 3, "loss": {"stride": 2}}


def test_a_run_takes_everything() -> None:
    content = {"seed": 3, "pretrain_local": {"loss": {"stride": 2}}}
    assert options_of(content, None, RUN, RUN, "c") == content


def test_a_config_of_one_command_has_its_options_at_the_top() -> None:
    assert options_of({"loss": {"stride": 2}}, "pretrain_local", LOCAL, RUN, "c") == {"loss": {"stride": 2}}


@pytest.mark.parametrize(("section", "own"), [("pretrain_local", LOCAL), (None, RUN)])
def test_an_unknown_key_is_an_error(section: str | None, own: set[str]) -> None:
    with pytest.raises(SemiclError, match="--config c: unknown key 'sead'"):
        options_of({"sead": 3}, section, own, RUN, "c")


def test_a_section_without_options_is_an_error() -> None:
    with pytest.raises(UsageError, match="--config c: pretrain_local takes a mapping of options, got null"):
        options_of({"pretrain_local": None}, "pretrain_local", LOCAL, RUN, "c")


def test_which_options_a_config_gives() -> None:
    content = {"loss": {"stride": 2}, "methods": {"a": {}}}
    assert gives(content, "loss.stride")
    assert gives(content, "methods.*.stages")
    assert not gives(content, "loss.scope")
    assert not gives(content, "seed")
