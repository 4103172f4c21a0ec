"""``python -m benchmarks.markdown RESULT.json``: a result as the tables of the README."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .providers import PROVIDERS
from .report import milliseconds
from .targets import SPARSE

SHOWN = (*SPARSE, "full", "dense-2048-128", "dense-8192-128", "dense-16384-128")
COLUMNS = ("fused", "fused-bf16", "anchors-only", "authors")
VERDICTS = {True: "met", False: "missed", None: "not measured"}


def machine(result: Mapping[str, Any]) -> str:
    about = result["machine"]
    peaks = " and ".join(f"{value:.0f} in {dtype}" for dtype, value in about["peak_gflops"].items())
    return (
        f"`python -m benchmarks`, {about['date']}, {about['processor']} ({about['instruction_set']}), "
        f"{about['threads']} threads, {peaks} GFLOP/s at most, torch {about['versions']['torch']}. "
        "Forward + backward, medians of interleaved runs; \\* is one run and no median."
    )


def cell(shape: Mapping[str, Any], provider: str) -> str:
    measured = shape["providers"].get(provider, {})
    if "median_ms" not in measured:
        return measured.get("skipped", "").split(":")[0]
    size = shape["extra_peak_bytes"].get(provider)
    alone = "\\*" if measured["rounds"] == 1 else ""
    return f"{milliseconds(measured['median_ms'])} ms{alone}" + (f", {size / 2**20:.0f} MiB" if size else "")


def speeds(shapes: Mapping[str, Any]) -> list[str]:
    lines = [f"| shape | {' | '.join(PROVIDERS[name].title for name in COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    return lines + [
        f"| {name} | {' | '.join(cell(shapes[name], provider) for provider in COLUMNS)} |"
        for name in SHOWN
        if name in shapes
    ]


def targets(verdicts: list[Mapping[str, Any]]) -> list[str]:
    lines = ["| target | asked | measured | |", "|---|---|---|---|"]
    return lines + [f"| {v['target']} | {v['asked']} | {v['measured']} | {VERDICTS[v['met']]} |" for v in verdicts]


def tables(result: Mapping[str, Any]) -> str:
    return "\n".join([machine(result), "", *speeds(result["shapes"]), "", *targets(result["targets"])])


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
