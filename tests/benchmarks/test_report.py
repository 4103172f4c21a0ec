"""The report shows what was measured; README and docs hold the numbers of the committed results and no others."""

import json
from pathlib import Path
from typing import Any

from benchmarks import beside, sizes
from benchmarks.providers import PROVIDERS
from benchmarks.report import PAGE_PROVIDERS, full, page, targets

ROOT = Path(__file__).parents[2]
TIMES = {"median_ms": 2.0, "quartile1_ms": 1.0, "quartile3_ms": 3.0, "ratio_to_fused": 1.0, "rounds": 3}
MACHINE = {
    "processor": "a processor",
    "threads": 1,
    "instruction_set": "avx2",
    "peak_gflops": {"float32": 1.0},
    "versions": {"torch": "2"},
    "date": "today",
}


def shown(accuracy: list[dict[str, Any]]) -> str:
    shape = {"providers": {**dict.fromkeys(PAGE_PROVIDERS, TIMES), "tiled": {"skipped": "failed: why"}}}
    shape["extra_peak_bytes"] = {"fused": 2**20}
    return full({"machine": MACHINE, "shapes": {"a shape": shape}, "accuracy": accuracy, "targets": []})


def committed(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / name / "result.json").read_text())


def test_the_page_of_the_benchmarks_holds_the_tables_of_the_committed_results():
    text, result = (ROOT / "docs" / "benchmarks.md").read_text(), committed("cpu")
    tables = (sizes.readme(committed("sizes")), beside.page(committed("beside")["measured"]))
    for part in (*page(result).split("\n\n"), *tables):
        assert part in text
    assert page(result).split("\n")[0] in full(result)


def test_targets_that_no_shape_tells_of_are_left_out() -> None:
    verdicts = [
        {"target": name, "asked": "1x", "measured": "2x", "met": met} for name, met in (("a", True), ("b", None))
    ]
    assert [line.split("|")[1].strip() for line in targets(verdicts)[2:]] == ["a"]


def test_the_readme_holds_the_committed_numbers_of_the_sizes():
    assert sizes.readme(committed("sizes")) in (ROOT / "README.md").read_text()


def test_providers_have_the_names_of_the_page():
    text = shown([])
    assert "| a shape | 2 ms, 1 MiB | 2 ms | failed | 2 ms | 2 ms |" in text
    assert f"{PROVIDERS['tiled'].title}, not measured: failed: why" in text
    assert "fused" not in text
    assert "anchors-only" not in text


def test_no_table_of_errors_where_none_was_measured():
    assert "error of the loss" not in shown([])
    own = {"loss": 1e-7, "gradient": 1e-7}
    entry = {"shape": "a shape", "dtype": "float32", "backend": "cpu", "fused": own, "plain": own}
    assert "error of the loss" in shown([entry])
