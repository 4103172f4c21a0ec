"""Tables of a result on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..report import errors, milliseconds, targets
from .providers import OWN, PROVIDERS

TERA = 1e-12


def show(console: Console, result: Mapping[str, Any]) -> None:
    if result["toy"]:
        console.print("a toy run in Triton's interpreter: its times say nothing about speed")
    console.print(device(result["machine"], result["limits"]), highlight=False)
    console.print(speeds(result["shapes"]))
    if result["accuracy"]:
        console.print(errors(result["accuracy"]))
    said = ", ".join(f"{name} {value:.0f}" for name, value in result["host_us"].items())
    console.print(f"microseconds until a call on a tiny shape returns: {said or 'not measured'}", highlight=False)
    for name, check in result["checks"].items():
        told = check.get("skipped") or f"exit {check['exit']}, {check['seconds']} s, {check['last_line']}"
        console.print(f"{name}: {told}", highlight=False)
    for name, error in (*result["errors"].items(), *result.get("banned", {}).items()):
        console.print(f"[red]{name}[/]: {error}", highlight=False)
    if result["left_out"]:
        console.print(f"no time was left for: {', '.join(result['left_out'])}", highlight=False)
    console.print(targets(result["targets"]))


def device(machine: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    parts = [
        str(machine.get("name")),
        f"torch {machine['versions']['torch']}",
        f"triton {machine['versions']['triton']}",
    ]
    for name, unit in (("bfloat16_flops", "TFLOP/s bfloat16"), ("float32_flops", "TFLOP/s float32")):
        if limits.get(name):
            parts.append(f"{TERA * limits[name]:.3g} {unit}")
    if limits.get("copied_bytes"):
        parts.append(f"{TERA * limits['copied_bytes']:.2f} TB/s copied")
    if limits.get("exponentials"):
        parts.append(f"{TERA * limits['exponentials']:.2f} T exponentials/s by its clock")
    return "; ".join(parts)


def speeds(shapes: Mapping[str, Any]) -> Table:
    """One row a shape: of ours a call, a graph's replay, TFLOP/s, launches and memory; of the others a call."""
    table = Table(title="forward + backward, ms", title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.caption = (
        "medians of interleaved calls; of ours also a CUDA graph's replay, TFLOP/s executed / dense-equivalent of it, "
        "kernel launches and MiB of extra peak memory; least: the largest of the three limits"
    )
    table.add_column("shape", no_wrap=True)
    for name in PROVIDERS:
        columns = (name, "replay", "TFLOP/s", "launches", "MiB") if name in OWN else (name,)
        for column in columns:
            table.add_column(column, justify="right")
    table.add_column("least", justify="right")
    for name, shape in shapes.items():
        cells = [cell for provider in PROVIDERS for cell in provider_cells(shape, provider)]
        least = max((value for value in shape["least_ms"].values() if value is not None), default=None)
        table.add_row(name, *cells, "" if least is None else milliseconds(least))
    return table


def provider_cells(shape: Mapping[str, Any], provider: str) -> list[str]:
    measured = shape["providers"].get(provider, {})
    width = 5 if provider in OWN else 1
    if "median_ms" not in measured:
        reason = measured.get("skipped", "").split(":")[0]
        return [reason if reason in ("out of memory", "failed") else "-", *[""] * (width - 1)]
    call = milliseconds(measured["median_ms"])
    if width == 1:
        return [call]
    size = shape["extra_peak_bytes"].get(provider)
    rates = [measured[name] for name in ("executed_tflops", "dense_equivalent_tflops") if name in measured]
    return [
        call,
        milliseconds(measured["replayed"]["median_ms"]) if "replayed" in measured else "",
        " / ".join(f"{rate:.3g}" for rate in rates),
        str(measured.get("launches") or ""),
        "" if size is None else f"{size / 2**20:.0f}",
    ]
