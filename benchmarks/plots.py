"""Pictures of a result: time and memory against the number of points, and the sparse shapes as bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plan import PLOTTED_CHANNELS
from .providers import PROVIDERS

# What the naive code keeps and makes of a dense problem at its peak: (points x points) matrices.
NAIVE_MATRICES = 7
LIMIT_COLOR = "#c8553d"
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


def draw_line(axes: Axes, name: str, points: list[tuple[int, float]]) -> None:
    if points:
        axes.loglog(*zip(*points, strict=True), "o-", color=PROVIDERS[name].color, label=PROVIDERS[name].title)


def draw_dense(shapes: Shapes, dtype: str, machine: Mapping[str, Any]) -> Figure | None:
    chosen = [s for s in shapes.values() if s["family"] == "dense" and s["channels"] == PLOTTED_CHANNELS]
    chosen.sort(key=lambda shape: shape["points"])
    if len(chosen) < 2:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in PROVIDERS:
        measured = [(s["points"], s["providers"].get(name, {}), s["extra_peak_bytes"].get(name)) for s in chosen]
        draw_line(left, name, [(n, times["median_ms"]) for n, times, _ in measured if "median_ms" in times])
        draw_line(right, name, [(n, size / 2**20) for n, _, size in measured if size])
    for axes, heading in ((left, "forward + backward, ms"), (right, "extra peak memory, MiB")):
        axes.set(xlabel="points N, all in one group, every one an anchor", ylabel=heading)
        axes.set_xscale("log", base=2)
        axes.grid(True, which="major", alpha=0.3)
    memory = machine["memory_bytes"]
    limit = (memory / NAIVE_MATRICES / ITEM_BYTES[dtype]) ** 0.5
    right.axhline(memory / 2**20, color="black", linewidth=1)
    right.axvline(limit, color=LIMIT_COLOR, linestyle="--", linewidth=1)
    note = f"memory of this machine; naive code, {NAIVE_MATRICES} matrices of N x N, runs out at N = {limit:,.0f}"
    right.annotate(
        note, (0.02, memory / 2**20), xycoords=("axes fraction", "data"),
        xytext=(0, -4), textcoords="offset points", va="top", fontsize=7,
    )  # fmt: skip
    left.legend(fontsize=8)
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
    for k, (provider, found) in enumerate(times.items()):
        places = [i + (k - (len(times) - 1) / 2) * width for i, _ in found]
        color, label = PROVIDERS[provider].color, PROVIDERS[provider].title
        bars = axes.bar(places, [time for _, time in found], width, color=color, label=label)
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}", fontsize=6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(chosen)), list(chosen))
    axes.set_ylabel("forward + backward, ms")
    axes.legend(fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    plt.close(figure)
