"""A result as tables in Markdown, for the terminal and docs/: ``python -m benchmarks.report RESULT.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .providers import PROVIDERS
from .targets import SPARSE

Shapes = Mapping[str, Mapping[str, Any]]

PAGE_SHAPES = (*SPARSE, "full", "dense-2048-128", "dense-8192-128", "dense-16384-128", "nt-xent-16", "supcon-256")
PAGE_PROVIDERS = ("fused", "fused-bf16", "anchors-only", "authors")
REASONS = ("out of memory", "failed", "wrong")
VERDICTS = {True: "met", False: "missed"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Return the lines of a table whose first ``words`` columns are words, the others numbers."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * words}{'---:|' * (len(head) - words)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def milliseconds(value: float) -> str:
    """Three digits, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def duration(value: float) -> str:
    """Milliseconds with their unit, in seconds from ten of them on."""
    return f"{value / 1e3:.3g} s" if value >= 1e4 else f"{milliseconds(value)} ms"


def machine(result: Mapping[str, Any]) -> str:
    about = result["machine"]
    parts = [about["date"], about.get("name") or f"{about['processor']} ({about['instruction_set']})"]
    if "threads" in about:
        parts.append(f"{about['threads']} threads")
    peaks = " and ".join(f"{value:.0f} in {dtype}" for dtype, value in about.get("peak_gflops", {}).items())
    if peaks:
        parts.append(f"{peaks} GFLOP/s at most")
    parts.append(f"torch {about['versions']['torch']}")
    return f"`python -m benchmarks`, {', '.join(parts)}. Forward + backward, medians; \\* is one run and no median."


def cell(shape: Mapping[str, Any], provider: str) -> str:
    measured = shape["providers"].get(provider, {})
    if "median_ms" not in measured:
        reason = measured.get("skipped", "").split(":")[0]
        return reason if reason in REASONS else ""
    size = shape["extra_peak_bytes"].get(provider)
    alone = "\\*" if measured["rounds"] == 1 else ""
    return f"{duration(measured['median_ms'])}{alone}" + (f", {size / 2**20:.0f} MiB" if size else "")


def speeds(shapes: Shapes, providers: Iterable[str]) -> list[str]:
    seen = [name for name in providers if any(name in shape["providers"] for shape in shapes.values())]
    rows = [[name, *(cell(shape, provider) for provider in seen)] for name, shape in shapes.items()]
    return table(["shape", *(PROVIDERS[name].title for name in seen)], rows)


def detail(measured: Mapping[str, Any]) -> dict[str, str]:
    formats = {
        "x semicl, by round": ("ratio_to_fused", "{:.2f}"),
        "graph, ms": ("graph_ms", "{:.3g}"),
        "of the peak": ("executed_over_peak", "{:.0%}"),
        "launches": ("launches", "{}"),
        "longest two kernels, ms": ("pairs_ms", "{:.3g}"),
        "error of the gradient": ("gradient_error", "{:.1e}"),
    }
    quartiles = "-".join(milliseconds(measured[f"quartile{k}_ms"]) for k in (1, 3))
    found = {head: form.format(measured[name]) for head, (name, form) in formats.items() if name in measured}
    return {"quartiles, ms": quartiles, **found}


def details(shapes: Shapes) -> list[str]:
    """A row for every provider of every shape; columns that nothing was measured for are left out."""
    rows = {
        (shape, name): detail(measured)
        for shape, entry in shapes.items()
        for name, measured in entry["providers"].items()
        if "median_ms" in measured
    }
    heads = list(dict.fromkeys(head for row in rows.values() for head in row))
    cells = [
        [shape, PROVIDERS[name].title, *(row.get(head, "") for head in heads)] for (shape, name), row in rows.items()
    ]
    return table(["shape", "provider", *heads], cells, 2)  # fmt: skip


def errors(accuracies: list[Mapping[str, Any]]) -> list[str]:
    head = ("shape", "dtype", "backend", "error of the loss", "plain PyTorch's", "of the gradient", "plain PyTorch's")
    rows = []
    for entry in accuracies:
        own, plain = entry["fused"], entry["plain"]
        numbers = (own["loss"], plain["loss"], own["gradient"], plain["gradient"])
        rows.append([entry["shape"], entry["dtype"], entry["backend"], *(f"{number:.2e}" for number in numbers)])
    return table(head, rows, 3)


def targets(verdicts: list[Mapping[str, Any]]) -> list[str]:
    """Those that the shapes that were measured tell of."""
    rows = [[v["target"], v["asked"], v["measured"], VERDICTS[v["met"]]] for v in verdicts if v["met"] is not None]
    return table(("our target", "asked", "measured", "verdict"), rows, 4)


def page(result: Mapping[str, Any]) -> str:
    shapes = {name: result["shapes"][name] for name in PAGE_SHAPES if name in result["shapes"]}
    parts = ([machine(result)], speeds(shapes, PAGE_PROVIDERS), targets(result["targets"]))
    return "\n\n".join("\n".join(part) for part in parts)


def full(result: Mapping[str, Any]) -> str:
    """Return all that was measured, and what was not with the reason."""
    shapes = result["shapes"]
    parts = [[machine(result)]] if result["machine"] else []
    if result.get("device") == "interpreter":
        parts.append(["Triton's interpreter: its times say nothing about speed."])
    parts += [speeds(shapes, PROVIDERS), details(shapes)]
    parts += [errors(result["accuracy"])] if result["accuracy"] else []
    parts += [targets(result["targets"])]
    for name, check in result.get("checks", {}).items():
        parts.append([f"{name}: exit {check['exit']}, {check['seconds']} s, {check['last_line']}"])
    parts += [[f"{name}: {error}"] for name, error in result.get("errors", {}).items()]
    seen = [(name, one.get("skipped")) for shape in shapes.values() for name, one in shape["providers"].items()]
    parts += [[f"{PROVIDERS[name].title}, not measured: {why}"] for name, why in dict.fromkeys(seen) if why is not None]
    parts += [[f"No time was left for {', '.join(result['left_out'])}."]] if result.get("left_out") else []
    return "\n\n".join("\n".join(part) for part in parts)


def write_whole(result: Mapping[str, Any], path: Path) -> None:
    """Write the result as JSON; an earlier file is replaced when its successor is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(path)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    print(page(json.loads(Path(sys.argv[1]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
