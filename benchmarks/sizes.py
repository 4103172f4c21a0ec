"""Time and memory of one loss call at full resolution, by the size of the image: ``python -m benchmarks.sizes``.

One image in two views, one organ of 6 % of its pixels, no blocks and no stride: every foreground pixel against every
pixel. Measured as the other shapes are; what does not fit the memory is not tried, and where the authors' algorithm
stops fitting is marked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from rich.console import Console

from . import machine
from .files import write_whole
from .measure import Task, shape_result
from .plots import NAIVE_MATRICES, plt, save
from .problems import VIEWS, Shape
from .providers import PROVIDERS, require_compiled

RESULTS = Path(__file__).parent / "results" / "sizes"
SIZES = (32, 64, 96, 160, 256, 512)
COLOURS = {"fused": "#0b6e4f", "anchors-only": "#3b6fb6", "authors": "#c8553d"}
FLOAT_BYTES = 4


def full_resolution(side: int) -> Shape:
    return Shape(f"full-{side}", "full", 1, 64, side, side, 3, 0.06)


def total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def last_side(memory_bytes: int) -> float:
    """The side of the largest image whose (points x points) matrices of the authors' algorithm fit the memory."""
    points = (memory_bytes / NAIVE_MATRICES / FLOAT_BYTES) ** 0.5
    return (points / VIEWS) ** 0.5


def measured(shapes: Sequence[Mapping[str, Any]], provider: str) -> tuple[list[tuple[int, float]], ...]:
    """Milliseconds and MiB by side, where the provider fitted."""
    times = [(s["width"], s["providers"][provider].get("median_ms")) for s in shapes]
    memories = [(s["width"], s["extra_peak_bytes"].get(provider)) for s in shapes]
    return (
        [(side, value) for side, value in times if value is not None],
        [(side, value / 2**20) for side, value in memories if value is not None],
    )


def plot(result: Mapping[str, Any], path: Path) -> None:
    shapes = list(result["shapes"].values())
    limit = last_side(result["memory_bytes"])
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name, colour in COLOURS.items():
        for axes, series in zip(panels, measured(shapes, name), strict=True):
            if series:
                axes.loglog(*zip(*series, strict=True), "o-", color=colour, label=PROVIDERS[name].title)
    for axes, heading in zip(panels, ("forward + backward, ms", "extra peak memory, MiB"), strict=True):
        finish(axes, heading, [shape["width"] for shape in shapes], limit)
    panels[1].axhline(result["memory_bytes"] / 2**20, color="black", linewidth=1, label="memory of this machine")
    panels[1].legend(fontsize=8)
    about = result["machine"]
    figure.suptitle(
        f"One loss call at full resolution, one image in two views, 64 channels; {about['processor']}, "
        f"{about['threads']} threads, {about['date']}",
        fontsize=9,
    )
    save(figure, path)


def finish(axes: Axes, heading: str, sides: list[int], limit: float) -> None:
    axes.axvline(limit, color=COLOURS["authors"], linestyle="--", linewidth=1)
    note = f"the authors' algorithm\nruns out of memory\nat {limit:.0f} pixels"
    axes.annotate(note, (limit, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                  fontsize=7)  # fmt: skip
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    axes.set(xlabel="side of the image, pixels", ylabel=heading)
    axes.grid(True, which="major", alpha=0.3)


def lines(result: Mapping[str, Any]) -> list[str]:
    """A line of Markdown a size: time and memory of each provider, or why it was not tried."""
    table = ["| pixels | " + " | ".join(PROVIDERS[name].title for name in COLOURS) + " |"]
    table.append("|---:|" + "---:|" * len(COLOURS))
    for shape in result["shapes"].values():
        table.append(f"| {shape['width']} | " + " | ".join(cell(shape, name) for name in COLOURS) + " |")
    return table


def cell(shape: Mapping[str, Any], name: str) -> str:
    times, weight = shape["providers"][name], shape["extra_peak_bytes"].get(name)
    if "median_ms" not in times:
        return str(times["skipped"])
    text = f"{times['median_ms']:.3g} ms" + ("\\*" if times["rounds"] == 1 else "")
    return text if weight is None else f"{text}, {weight / 2**20:.0f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="sides of the images, in pixels")
    parser.add_argument("--seconds", type=float, default=6.0, help="for the repetitions of a size, all together")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's own choice)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for result.json and sizes.png")
    chosen = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    try:
        require_compiled()
    except RuntimeError as error:
        console.print(f"[red]{error}[/]")
        return 2
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    shapes = {}
    for side in chosen.sizes:
        console.print(f"{side} x {side} ...")
        shapes[str(side)] = shape_result(Task(full_resolution(side), tuple(COLOURS), tuple(COLOURS), chosen.seconds))
    result = {"machine": machine.describe(), "memory_bytes": total_bytes(), "shapes": shapes}
    write_whole(result, chosen.output / "result.json")
    plot(result, chosen.output / "sizes.png")
    console.print("\n".join(lines(result)), markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
