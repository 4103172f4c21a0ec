"""The terminal shows what was measured, by the names of the README."""

import io
from typing import Any

from rich.console import Console

from benchmarks.markdown import COLUMNS
from benchmarks.providers import PROVIDERS
from benchmarks.report import show

TIMES = {"median_ms": 2.0, "quartile1_ms": 1.0, "quartile3_ms": 3.0, "ratio_to_fused": 1.0}
MACHINE = {
    "processor": "a processor",
    "threads": 1,
    "instruction_set": "avx2",
    "peak_gflops": {"float32": 1.0},
    "versions": {"torch": "2"},
    "date": "today",
}


def shown(accuracy: list[dict[str, Any]]) -> str:
    shape = {"providers": dict.fromkeys(COLUMNS, TIMES), "extra_peak_bytes": {}}
    result = {"machine": MACHINE, "shapes": {"a shape": shape}, "accuracy": accuracy, "boundary_us": {}, "targets": []}
    console = Console(file=io.StringIO(), width=120)
    show(console, result)
    return console.file.getvalue()


def test_providers_have_the_names_of_the_readme():
    text = shown([])
    for name in COLUMNS:
        assert PROVIDERS[name].title in text
    assert "fused" not in text
    assert "anchors-only" not in text


def test_no_table_of_errors_where_none_was_measured():
    assert "relative error" not in shown([])
    own = {"loss": 1e-7, "gradient": 1e-7}
    entry = {"shape": "a shape", "dtype": "float32", "backend": "cpu", "fused": own, "plain": own}
    assert "relative error against float64" in shown([entry])
