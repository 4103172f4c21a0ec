"""A result names the commit of the code that made it, and no other's."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from semicl.training.provenance import commit, provenance


def _git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(["git", *names, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository of its own."""
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    _git(package, "init", "--quiet")
    _git(package, "add", ".")
    _git(package, "commit", "--quiet", "--message", "first")
    return package


def test_the_commit_of_a_checkout(package: Path) -> None:
    assert commit(package) == _git(package, "rev-parse", "--short=12", "HEAD")


def test_changes_are_not_passed_over(package: Path) -> None:
    (package / "__init__.py").write_text("changed")
    assert commit(package) == _git(package, "rev-parse", "--short=12", "HEAD") + "-dirty"


def test_an_installed_copy_inside_another_project_has_its_version(package: Path) -> None:
    copy = package / "site-packages" / "semicl"
    copy.mkdir(parents=True)
    (copy / "__init__.py").touch()
    assert commit(copy) == f"semicl {version('semicl')}"


def test_a_summary_names_machine_and_day() -> None:
    lines = provenance(torch.device("cpu"))
    assert "cores" in lines["machine"]
    assert lines["date"].startswith("20")
    assert lines["threads"] == torch.get_num_threads()
