"""Time and memory of one loss call at full resolution, by the size of the image: ``python -m benchmarks.sizes``.

One image in two views, one organ of 6 % of its pixels, no blocks and no stride: every foreground pixel against every
pixel. Measured as the other shapes are on a CPU; what does not fit the memory is not tried, and where the authors'
algorithm stops fitting is marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .__main__ import refusal
from .plan import Plan, Task
from .plots import NAIVE_MATRICES, draw_line, save
from .problems import VIEWS, Shape
from .providers import PROVIDERS
from .report import cell, table, write_whole
from .session import Session

RESULTS = Path(__file__).parent / "results" / "sizes"
SIZES = (32, 64, 96, 160, 256, 512)
NAMES = ("fused", "anchors-only", "authors")
FLOAT_BYTES = 4


def full_resolution(side: int) -> Shape:
    return Shape(f"full-{side}", "full", 1, 64, side, side, 3, 0.06)


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
    shapes, about = list(result["shapes"].values()), result["machine"]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in NAMES:
        for axes, series in zip(panels, measured(shapes, name), strict=True):
            draw_line(axes, name, series)
    for axes, heading in zip(panels, ("forward + backward, ms", "extra peak memory, MiB"), strict=True):
        finish(axes, heading, [shape["width"] for shape in shapes], last_side(about["memory_bytes"]))
    panels[1].axhline(about["memory_bytes"] / 2**20, color="black", linewidth=1, label="memory of this machine")
    panels[1].legend(fontsize=8)
    figure.suptitle(
        f"One loss call at full resolution, one image in two views, 64 channels; {about['processor']}, "
        f"{about['threads']} threads, {about['date']}",
        fontsize=9,
    )
    save(figure, path)


def finish(axes: Axes, heading: str, sides: list[int], limit: float) -> None:
    axes.axvline(limit, color=PROVIDERS["authors"].color, linestyle="--", linewidth=1)
    note = f"the authors' algorithm\nruns out of memory\nat {limit:.0f} pixels"
    axes.annotate(note, (limit, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                  fontsize=7)  # fmt: skip
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    axes.set(xlabel="side of the image, pixels", ylabel=heading)
    axes.grid(True, which="major", alpha=0.3)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="sides of the images, in pixels")
    parser.add_argument("--seconds", type=float, default=6.0, help="for the repetitions of a size, all together")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's own choice)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for result.json and sizes.png")
    asked = parser.parse_args()
    reason = refusal("cpu")
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    tasks = tuple(Task(full_resolution(side), NAMES, asked.seconds) for side in asked.sizes)
    result = Session(Plan(tasks, (), float("inf"), 3600), "cpu", float("inf"), None, print, asked.threads).run()
    write_whole(result, asked.output / "result.json")
    plot(result, asked.output / "sizes.png")
    shapes = result["shapes"].values()
    rows = [[str(shape["width"]), *(cell(shape, name) for name in NAMES)] for shape in shapes]
    print("\n".join(table(["pixels", *(PROVIDERS[name].title for name in NAMES)], rows, 0)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
