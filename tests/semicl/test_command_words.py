"""Typed words become what jsonargparse asks for."""

import pytest

from semicl.cli import COMMANDS
from semicl.command_words import configs_first, is_typed, plain_words
from semicl.errors import UsageError

FINETUNE = COMMANDS["finetune"].options()


def test_switches_at_any_depth_get_their_value() -> None:
    typed = ["--resume", "--machine.compile", "--loss.supervised", "false", "--config=demo"]
    expected = ["--resume", "true", "--machine.compile", "true", "--loss.supervised", "false", "--config", "demo"]
    assert plain_words(typed, FINETUNE) == expected


def test_a_mapping_of_names_is_checked_with_its_names() -> None:
    with pytest.raises(UsageError, match=r"^--methods\.a takes a mapping of options \(stages, .*\), got 3$"):
        plain_words(["--methods={a: 3}"], COMMANDS["table"].options())


def test_configs_come_first_in_their_order() -> None:
    words = ["--seed", "3", "--config", "a", "--resume", "--config", "b", "--config"]
    assert configs_first(words) == ["--config", "a", "--config", "b", "--seed", "3", "--resume", "--config"]


def test_an_option_is_typed_by_itself_or_by_its_group() -> None:
    assert is_typed("loss.stride", ["--loss.stride=3"])
    assert is_typed("loss.stride", ["--loss", "{stride: 3}"])
    assert not is_typed("loss.stride", ["--loss.scope", "image"])
