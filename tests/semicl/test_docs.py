"""What README and docs tell to type is taken as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from semicl import cli
from semicl.cli import COMMANDS
from semicl.commands.command import OF_RUN
from semicl.config import load_yaml, of_command, places, structured
from tests.semicl.conftest import REPOSITORY, run_command

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OF_OTHER_PROGRAMS = {"--quick", "--only", "--device", "--minutes", "--nproc"}
"""Options of `python -m benchmarks` and its kin, and of torchrun."""


def _blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for of, text in blocks if of == language]


def _command_lines() -> list[str]:
    """Every command line of semicl in a fenced block or in backticks, but those that stand for any command."""
    found = []
    for page in PAGES:
        for block in _blocks(page, ""):
            found += re.findall(r"^(?:Next: )?(semicl .*)", block.replace("\\\n", ""), re.MULTILINE)
        found += re.findall(r"`(semicl [^`]*--[^`]*)`", page.read_text())
    return [" ".join(line.split()) for line in found if "COMMAND" not in line]


@pytest.mark.parametrize("line", sorted(set(_command_lines())))
def test_command_lines_are_taken(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    ran: list[type] = []
    monkeypatch.setattr(cli, "_run", lambda command: ran.append(type(command)))
    words = shlex.split(line, comments=True)[1:]
    monkeypatch.chdir(REPOSITORY)
    assert run_command(*words) == 0
    assert ran == [COMMANDS[words[0]]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    known = {place for command in COMMANDS.values() for place in places(command)}
    known |= {f"{above}{dot}no_{name}" for above, dot, name in (place.rpartition(".") for place in known)}
    named = set(re.findall(r"--[a-z]\w*(?:\.\w+)*", " ".join(re.findall(r"`([^`\n]*)`", page.read_text()))))
    named -= OF_OTHER_PROGRAMS | {"--help"}
    assert {option for option in named if option.removeprefix("--") not in known} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lists_and_mappings_are_quoted_for_the_shell(page: Path) -> None:
    assert re.findall(r"--[a-z][\w.]*[ =][\[{].*", page.read_text()) == []


@pytest.mark.parametrize("command", ["run", "search", "table"])
def test_configs_are_taken(command: str) -> None:
    kind = COMMANDS[command]
    blocks = _blocks(REPOSITORY / "docs" / f"{command}.md", "yaml")
    assert blocks
    for block in blocks:
        structured(kind, of_command(load_yaml(block), kind, None, OF_RUN, "c"))
