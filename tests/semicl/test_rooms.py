"""Imports go one way: commands -> study -> training -> evaluation -> models -> data -> what stands beside the rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.semicl.conftest import REPOSITORY

ROOMS = ("data", "models", "evaluation", "training", "study", "commands")
"""In their order: a room imports from those before it, and from none behind it."""

ABOVE = ("cli", "__main__")
"""Modules beside the rooms that import from all of them."""

FILES = sorted((REPOSITORY / "semicl").rglob("*.py"))


def _imported(file: Path) -> Iterator[str]:
    """The modules of semicl that a file imports, by their first name inside it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("semicl."))


def _rank(name: str) -> int:
    return len(ROOMS) if name in ABOVE else ROOMS.index(name) if name in ROOMS else -1


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_imports_go_one_way(file: Path) -> None:
    own = file.relative_to(REPOSITORY / "semicl").parts[0].removesuffix(".py")
    wrong = {(own, name) for name in _imported(file) if _rank(name) > _rank(own)}
    assert wrong == set()
