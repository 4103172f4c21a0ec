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

from .looks import Looks

# What the naive code keeps and makes of a dense problem at its peak: (points x points) matrices.
NAIVE_MATRICES = 7
LIMIT_COLOUR = "#c8553d"

Shapes = Mapping[str, Mapping[str, Any]]


def dense_shapes(shapes: Shapes, channels: int) -> list[Mapping[str, Any]]:
    chosen = [s for s in shapes.values() if s["family"] == "dense" and s["channels"] == channels]
    return sorted(chosen, key=lambda shape: shape["points"])


def draw(axes: Axes, series: Mapping[str, list[tuple[int, float]]], looks: Looks) -> None:
    for name, points in series.items():
        if points:
            axes.loglog(*zip(*points, strict=True), "o-", color=looks[name].colour, label=looks[name].title)
    axes.set_xlabel("points N, all in one group, every one an anchor")
    axes.set_xscale("log", base=2)
    axes.grid(True, which="major", alpha=0.3)


def plot_dense(
    chosen: list[Mapping[str, Any]], looks: Looks, memory_bytes: int, item_bytes: int, heading: str, path: Path
) -> bool:
    """Draw time and memory of dense shapes against N; return whether there was anything to draw.

    ``memory_bytes`` is what the machine has, ``item_bytes`` the size of a number of the naive code's matrices.
    """
    if len(chosen) < 2:
        return False
    times = {
        name: [
            (s["points"], s["providers"][name]["median_ms"])
            for s in chosen
            if "median_ms" in s["providers"].get(name, {})
        ]
        for name in looks
    }
    sizes = {
        name: [(s["points"], s["extra_peak_bytes"][name] / 2**20) for s in chosen if s["extra_peak_bytes"].get(name)]
        for name in looks
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    draw(left, times, looks)
    left.set_ylabel("forward + backward, ms")
    draw(right, sizes, looks)
    right.set_ylabel("extra peak memory, MiB")
    right.axhline(memory_bytes / 2**20, color="black", linewidth=1)
    limit = (memory_bytes / NAIVE_MATRICES / item_bytes) ** 0.5
    right.axvline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1)
    note = f"memory of this machine; naive code, {NAIVE_MATRICES} matrices of N x N, runs out at N = {limit:,.0f}"
    right.annotate(
        note, (0.02, memory_bytes / 2**20), xycoords=("axes fraction", "data"),
        xytext=(0, -4), textcoords="offset points", va="top", fontsize=7,
    )  # fmt: skip
    left.legend(fontsize=8)
    figure.suptitle(heading)
    save(figure, path)
    return True


def plot_sparse(shapes: Shapes, looks: Looks, path: Path) -> bool:
    """Draw the sparse shapes as bars of times; return whether there was anything to draw."""
    names = [name for name, shape in shapes.items() if shape["family"] == "sparse"]
    if not names:
        return False
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(looks)
    for k, (provider, look) in enumerate(looks.items()):
        places, heights = [], []
        for i, name in enumerate(names):
            measured = shapes[name]["providers"].get(provider, {})
            if "median_ms" in measured:
                places.append(i + (k - (len(looks) - 1) / 2) * width)
                heights.append(measured["median_ms"])
        if heights:
            bars = axes.bar(places, heights, width, color=look.colour, label=look.title)
            axes.bar_label(bars, fmt=lambda value: f"{value:.3g}", fontsize=6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("forward + backward, ms")
    axes.legend(fontsize=8)
    save(figure, path)
    return True


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    plt.close(figure)
