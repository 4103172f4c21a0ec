"""Writes what a run of the tests found into tested.json beside this file, and all that it holds into README's table.

    make test TORCH=torch==2.14.1 PYTHON=python3.12 && make tested

It is run by the Python of the tests, with the path of their junit file: torch and Python are those installed here.
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RECORD = ROOT / ".ci" / "tested.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- tested: written by make tested -->\n", "<!-- /tested -->\n"


def counts(junit: Path) -> dict[str, Any]:
    """How many tests passed and were skipped, and the day, of a junit file.

    Raises:
        SystemExit: a test failed, or none passed.
    """
    suites = list(ElementTree.parse(junit).getroot().iter("testsuite"))
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    if failed or not passed:
        raise SystemExit(f"{junit}: {failed} tests failed and {passed} passed; nothing is recorded")
    return {"passed": passed, "skipped": total["skipped"], "date": suites[0].attrib["timestamp"][:10]}


def merged(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with this one, in place of an earlier one of the same torch and Python; the newest torch comes first."""

    def key(each: dict[str, Any]) -> list[list[int]]:
        return [[int(part) for part in each[name].split(".")] for name in ("torch", "python")]

    return sorted([each for each in rows if key(each) != key(row)] + [row], key=key, reverse=True)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| torch | Python | tests passed | skipped | day |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {row['torch']} | {row['python']} | {row['passed']} | {row['skipped']} | {row['date']} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def between(text: str, new: str) -> str:
    """The text with this between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + new + END + after


def main(junit: Path) -> None:
    """Record the run of this junit file."""
    torch, _, _ = version("torch").partition("+")
    python = ".".join(platform.python_version_tuple()[:2])
    rows = merged(json.loads(RECORD.read_text()), {"torch": torch, "python": python} | counts(junit))
    RECORD.write_text(json.dumps(rows, indent=2) + "\n")
    README.write_text(between(README.read_text(), table(rows)))
    print(table(rows), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
