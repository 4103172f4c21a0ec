"""A mapping of options is checked at any depth, and what is wrong is told by its place."""

import re
from typing import Any

import pytest

from semicl.cli import COMMANDS
from semicl.config import read_config, shipped_configs
from semicl.config_check import check
from semicl.errors import UsageError

TABLE = COMMANDS["table"].options()


def test_the_shipped_configs_are_sound() -> None:
    for name in shipped_configs():
        check(read_config(name), TABLE | COMMANDS["run"].options(), "--")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"finetune": {"loss": {"strid": 2}}}, "c: finetune.loss.strid is unknown; finetune.loss takes block_size, "),
        ({"finetune": {"loss": None}}, "c: finetune.loss takes a mapping of options (supervised, "),
        ({"finetune": {"loss": {"stride": None}}}, "c: finetune.loss.stride: expected an integer, got null"),
        ({"methods": {"a": {"stages": ["no"]}}}, "c: methods.a.stages: expected one of 'pretrain_global', "),
        ({"output": 3}, "c: output: expected a path, got 3"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        check(content, TABLE, "c: ")


def test_null_is_taken_where_an_option_can_be_left_out() -> None:
    check({"network": {"centre": None}, "prepare": {"spacing": None}}, TABLE, "c: ")
