"""Tables of a result on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .providers import PROVIDERS

MARKS = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}


def show(console: Console, result: Mapping[str, Any]) -> None:
    machine = result["machine"]
    peaks = ", ".join(f"{value:.0f} GFLOP/s in {dtype}" for dtype, value in machine["peak_gflops"].items())
    console.print(
        f"{machine['processor']}, {machine['threads']} threads, {machine['instruction_set']}, peak {peaks}; "
        f"torch {machine['versions']['torch']}; {machine['date']}"
    )
    console.print(speeds(result["shapes"]))
    if result["accuracy"]:
        console.print(errors(result["accuracy"]))
    if result["boundary_us"]:
        console.print(costs(result["boundary_us"]))
    console.print(targets(result["targets"]))


def speeds(shapes: Mapping[str, Any]) -> Table:
    table = Table(title="forward + backward", title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.caption = (
        "ms: medians of interleaved rounds, with their quartiles; x semicl: median of the rounds' ratios; "
        "peak: counted multiply-adds over the best peak measured between the rounds; "
        "MiB: what the peak of resident memory adds. "
        "FLOPs in the result file: dense 6 n n C, anchored 6 a n C for a anchors of n points in each block, executed 2 "
        "for each counted multiply-add"
    )
    for name in ("shape", "provider"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "quartiles", "x semicl", "peak", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for shape_name, shape in shapes.items():
        for index, (name, measured) in enumerate(shape["providers"].items()):
            table.add_row(shape_name if index == 0 else "", PROVIDERS[name].title, *cells(measured), extra(shape, name))
        table.add_section()
    return table


def milliseconds(value: float) -> str:
    """Three digits, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cells(measured: Mapping[str, Any]) -> tuple[str, ...]:
    if "skipped" in measured:
        return "-", measured["skipped"].split(":")[0], "", ""
    quartiles = f"{milliseconds(measured['quartile1_ms'])}-{milliseconds(measured['quartile3_ms'])}"
    peak = f"{100 * measured['executed_over_peak']:.0f} %" if "executed_over_peak" in measured else ""
    return milliseconds(measured["median_ms"]), quartiles, f"{measured['ratio_to_fused']:.2f}", peak


def extra(shape: Mapping[str, Any], provider: str) -> str:
    if provider not in shape["extra_peak_bytes"]:
        return ""
    size = shape["extra_peak_bytes"][provider]
    return "killed" if size is None else f"{size / 2**20:.0f}"


def errors(accuracies: list[Mapping[str, Any]]) -> Table:
    table = Table(title="relative error against float64", title_justify="left")
    for name in ("shape", "dtype", "backend", "loss", "plain PyTorch", "gradient (L2)", "plain PyTorch"):
        table.add_column(name, justify="left" if name in ("shape", "dtype", "backend") else "right")
    for entry in accuracies:
        own, plain = entry["fused"], entry["plain"]
        numbers = (own["loss"], plain["loss"], own["gradient"], plain["gradient"])
        table.add_row(entry["shape"], entry["dtype"], entry["backend"], *(f"{number:.2e}" for number in numbers))
    return table


def costs(boundary: Mapping[str, float]) -> Table:
    table = Table(title="a call with next to no arithmetic", title_justify="left")
    table.add_column("call")
    table.add_column("microseconds", justify="right")
    for name, value in boundary.items():
        table.add_row(name, f"{value:.0f}")
    return table


def targets(verdicts: list[Mapping[str, Any]]) -> Table:
    table = Table(title="targets", title_justify="left")
    for name in ("against", "asked", "measured", ""):
        table.add_column(name)
    for verdict in verdicts:
        table.add_row(verdict["target"], verdict["asked"], verdict["measured"], MARKS[verdict["met"]])
    return table
