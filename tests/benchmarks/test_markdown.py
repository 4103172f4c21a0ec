"""The README shows the numbers of the committed result, all of them and no others."""

import json
from pathlib import Path

from benchmarks.markdown import tables

ROOT = Path(__file__).parents[2]


def test_the_readme_holds_the_tables_of_the_committed_result():
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / "cpu" / "result.json").read_text())
    for part in tables(result).split("\n\n"):
        assert part in readme
