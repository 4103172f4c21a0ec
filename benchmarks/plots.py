"""Pictures of a result: time and memory against the size of a problem, and the sparse shapes as bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from .plan import PLOTTED_CHANNELS
from .providers import PROVIDERS

# What the naive code keeps and makes of one group at its peak: (points x points) matrices.
NAIVE_MATRICES = 7
ITEM_BYTES = {"float32": 4, "bfloat16": 2}

Shapes = Mapping[str, Mapping[str, Any]]


def draw_all(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw both pictures of every dtype; return the files of those that there was something for."""
    written = []
    for dtype in ITEM_BYTES:
        shapes = {name: shape for name, shape in result["shapes"].items() if shape["dtype"] == dtype}
        suffix = "" if dtype == "float32" else f"-{dtype}"
        for draw, name in ((draw_dense, "dense"), (draw_sparse, "sparse")):
            figure = draw(shapes, dtype, result["machine"])
            if figure is not None:
                written.append(folder / f"{name}{suffix}.png")
                save(figure, written[-1])
    return written


def naive_points(memory_bytes: int, dtype: str = "float32") -> float:
    """The most points in one group whose matrices of naive code fit the memory."""
    return (memory_bytes / NAIVE_MATRICES / ITEM_BYTES[dtype]) ** 0.5


def draw_curves(
    chosen: list[Mapping[str, Any]], names: Iterable[str], x: str, limit: float, memory: int, label: str
) -> Figure:
    """Draw time and memory of shapes against their number ``x``; naive code runs out of ``memory`` at ``limit``."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in names:
        times = [(s[x], s["providers"].get(name, {}).get("median_ms")) for s in chosen]
        sizes = [(s[x], (s["extra_peak_bytes"].get(name) or 0) / 2**20) for s in chosen]
        for axes, series in zip(panels, (times, sizes), strict=True):
            points = [(at, value) for at, value in series if value]
            if points:
                provider = PROVIDERS[name]
                axes.loglog(*zip(*points, strict=True), "o-", color=provider.color, label=provider.title)
    for axes, heading in zip(panels, ("forward + backward, ms", "extra peak memory, MiB"), strict=True):
        axes.set(xlabel=label, ylabel=heading)
        axes.set_xticks([s[x] for s in chosen], [f"{s[x]:,}" for s in chosen], fontsize=7)
        axes.minorticks_off()
        axes.axvline(limit, color=PROVIDERS["authors"].color, linestyle="--", linewidth=1)
        axes.grid(True, which="major", alpha=0.3)
    panels[1].axhline(memory / 2**20, color="black", linewidth=1)
    note = f"memory of this machine; naive code's {NAIVE_MATRICES} matrices fill it at {limit:,.0f}"
    panels[1].annotate(
        note, (0.02, memory / 2**20), xycoords=("axes fraction", "data"),
        xytext=(0, -4), textcoords="offset points", va="top", fontsize=7,
    )  # fmt: skip
    panels[0].legend(fontsize=8)
    return figure


def draw_dense(shapes: Shapes, dtype: str, machine: Mapping[str, Any]) -> Figure | None:
    chosen = [s for s in shapes.values() if s["family"] == "dense" and s["channels"] == PLOTTED_CHANNELS]
    if len(chosen) < 2:
        return None
    chosen.sort(key=lambda shape: shape["points"])
    memory = machine["memory_bytes"]
    label = "points N, all in one group, every one an anchor"
    figure = draw_curves(chosen, PROVIDERS, "points", naive_points(memory, dtype), memory, label)
    figure.suptitle(f"dense, C = {PLOTTED_CHANNELS}, {dtype} unless said, {machine.get('name', machine['processor'])}")
    return figure


def draw_sparse(shapes: Shapes, dtype: str, machine: Mapping[str, Any]) -> Figure | None:
    """Bars of times."""
    chosen = {name: shape["providers"] for name, shape in shapes.items() if shape["family"] == "sparse"}
    times = {
        name: [(i, m[name]["median_ms"]) for i, m in enumerate(chosen.values()) if "median_ms" in m.get(name, {})]
        for name in PROVIDERS
    }
    times = {provider: found for provider, found in times.items() if found}
    if not times:
        return None
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(times)
    for k, (name, found) in enumerate(times.items()):
        places = [i + (k - (len(times) - 1) / 2) * width for i, _ in found]
        heights = [time for _, time in found]
        bars = axes.bar(places, heights, width, color=PROVIDERS[name].color, label=PROVIDERS[name].title)
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}", fontsize=6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(chosen)), list(chosen))
    axes.set_ylabel("forward + backward, ms")
    axes.legend(fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    plt.close(figure)
