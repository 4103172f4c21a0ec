"""Writes what a whole run of the tests found into tested.json beside this file, and all that it holds into the README.

    make test tested VENV=.venv-new TORCH=torch==2.14.1 PYTHON=python3.14

It is run by the Python of the tests, with the path of their junit file: torch and Python are those installed there.
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.version import Version

from semicl.training.provenance import COMMIT, processor

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tested: written by make tested -->\n", "<!-- /tested -->\n"


def counts(junit: Path) -> dict[str, Any]:
    """How many tests passed and were skipped, and the day, of a junit file.

    Raises:
        SystemExit: there is none, a test failed, or none passed.
    """
    if not junit.is_file():
        raise SystemExit(f"{junit} is not there; run `make test` without PYTEST_ARGS, which writes it")
    suites = list(ElementTree.parse(junit).getroot().iter("testsuite"))
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    if failed or not passed:
        raise SystemExit(f"{junit}: {failed} tests failed and {passed} passed; nothing is recorded")
    return {"passed": passed, "skipped": total["skipped"], "date": suites[0].attrib["timestamp"][:10]}


def merged(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with this one, in place of an earlier one of the same torch and Python; the newest torch comes first."""

    def key(each: dict[str, Any]) -> tuple[Version, Version]:
        return Version(each["torch"]), Version(each["python"])

    return sorted([each for each in rows if key(each) != key(row)] + [row], key=key, reverse=True)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| torch | Python | tests passed | skipped | day | processor | commit |",
        "|---|---|---:|---:|---|---|---|",
    ]
    columns = ("torch", "python", "passed", "skipped", "date", "processor", "commit")
    lines += [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def between(text: str, new: str) -> str:
    """The text with this between the two marks.

    Raises:
        ValueError: a mark is missing.
    """
    begin = text.index(BEGIN) + len(BEGIN)
    return text[:begin] + new + text[text.index(END, begin) :]


def main(junit: Path, root: Path) -> None:
    """Record the run of this junit file in the repository at this root."""
    record, readme = root / ".ci" / "tested.json", root / "README.md"
    python = ".".join(platform.python_version_tuple()[:2])
    row = {"torch": Version(version("torch")).public, "python": python, "processor": processor(), "commit": COMMIT}
    known = json.loads(record.read_text()) if record.is_file() else []
    rows = merged(known, row | counts(junit))
    text = between(readme.read_text(), table(rows))
    record.write_text(json.dumps(rows, indent=2) + "\n")
    readme.write_text(text)
    print(table(rows), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]), ROOT)
