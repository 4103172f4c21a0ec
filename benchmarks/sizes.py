"""Time and memory of one loss call at full resolution, by the size of the image: ``python -m benchmarks.sizes``.

One image in two views, one organ of 6 % of its pixels, no blocks and no stride: every foreground pixel against every
pixel. Measured as the other shapes are on a CPU; what does not fit the memory is not tried.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .__main__ import refusal
from .plan import Plan, Task
from .plots import draw_curves, naive_points, save
from .problems import VIEWS, Shape
from .providers import PROVIDERS
from .report import cell, table, write_whole
from .session import Session

RESULTS = Path(__file__).parent / "results" / "sizes"
SIZES = (32, 64, 96, 160, 256, 512)
NAMES = ("fused", "anchors-only", "authors")


def full_resolution(side: int) -> Shape:
    return Shape(f"full-{side}", "full", 1, 64, side, side, 3, 0.06)


def plot(result: Mapping[str, Any], path: Path) -> None:
    about = result["machine"]
    limit = (naive_points(about["memory_bytes"]) / VIEWS) ** 0.5
    shapes = list(result["shapes"].values())
    figure = draw_curves(shapes, NAMES, "width", limit, about["memory_bytes"], "side of the image, pixels")
    figure.suptitle(
        f"One loss call at full resolution, one image in two views, 64 channels; {about['processor']}, "
        f"{about['threads']} threads, {about['date']}",
        fontsize=9,
    )
    save(figure, path)


def readme(result: Mapping[str, Any]) -> str:
    """Return the table of the README."""
    rows = [[str(s["width"]), *(cell(s, name) for name in NAMES)] for s in result["shapes"].values()]
    return "\n".join(table(["pixels", *(PROVIDERS[name].title for name in NAMES)], rows, 0))


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
    print(readme(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
