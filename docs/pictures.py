"""Draws the pictures of the README from committed results: ``python docs/pictures.py [FOLDER]``."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

HERE = Path(__file__).parent
SIZES = HERE.parent / "benchmarks" / "results" / "sizes" / "result.json"
PROVIDERS = {
    "fused": ("semicl", "#0b6e4f"),
    "anchors-only": ("plain PyTorch", "#3b6fb6"),
    "authors": ("naive", "#c8553d"),
}
GIB = 2**30
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "semicl", "font.family": "sans-serif", "font.size": 9}


def speed(result: dict[str, Any]) -> Figure:
    """Time and memory of a call against the side of the image; a cross where it did not fit the machine."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    shapes = list(result["shapes"].values())
    memory = result["machine"]["memory_bytes"]
    panels = figure.subplots(1, 2)
    for name, (title, color) in PROVIDERS.items():
        times = [(s["width"], s["providers"][name].get("median_ms", 0) / 1e3) for s in shapes]
        sizes = [(s["width"], (s["extra_peak_bytes"].get(name) or 0) / GIB) for s in shapes]
        for axes, points in zip(panels, (times, sizes), strict=True):
            measured = [point for point in points if point[1]]
            axes.plot(*zip(*measured, strict=True), "o-", color=color, label=title, markersize=4)
    for axes, heading in zip(panels, ("seconds, forward and backward", "memory of the call, GiB"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="side of the image, pixels", title=heading)
        axes.set_xticks([s["width"] for s in shapes], [str(s["width"]) for s in shapes])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].axhline(memory / GIB, color="black", linewidth=1)
    panels[1].text(512, 1.2 * memory / GIB, f"this machine: {memory / GIB:.0f} GiB", ha="right", fontsize=8)
    panels[1].set_ylim(top=150)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


ROWS = (("organ A", 0.18, "#0b6e4f"), ("organ B", 0.14, "#3b6fb6"), ("background", 0.68, "#b9bec4"))
"""Share of the points, as the picture of the pairs has it."""


def pairs() -> Figure:
    """The pairs of points that are held and computed, by the dense code and by semicl."""
    figure = Figure(figsize=(8.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    anchors = sum(share for _, share, _ in ROWS[:-1])
    for axes in (left, right):
        place = 0.0
        for name, share, color in ROWS:
            axes.add_patch(Rectangle((-0.06, place), 0.04, share, color=color))
            axes.add_patch(Rectangle((place, -0.06), share, 0.04, color=color))
            axes.text(-0.09, place + share / 2, name, ha="right", va="center", fontsize=8)
            place += share
        axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor="0.4"))
        axes.set(xlim=(-0.42, 1.02), ylim=(1.02, -0.1), aspect="equal")
        axes.axis("off")
    left.set_title("dense: every pair, in matrices that are kept")
    left.add_patch(Rectangle((0, 0), 1, 1, color="#e8b9ae"))
    left.text(0.5, 0.5, "points x points,\nseven matrices at the peak", ha="center", va="center")
    right.set_title("semicl: rows of anchors, one strip at a time")
    right.add_patch(Rectangle((0, 0), 1, anchors, color="#cfe6dc"))
    right.add_patch(Rectangle((0, 0.11), 1, 0.05, color="#f2c14e"))
    place = 0.0
    for _, share, color in ROWS[:-1]:
        right.add_patch(Rectangle((place, place), share, share, fill=False, edgecolor=color, linewidth=2))
        place += share
    right.text(0.66, 0.135, "in the cache", ha="center", va="center", fontsize=8)
    right.text(0.66, 0.24, "positives: a sum for each organ", ha="center", va="center", fontsize=8)
    right.text(0.5, 0.66, "background has no rows", ha="center", va="center", color="0.4")
    return figure


def main(folder: Path) -> None:
    drawn_from = f"{SIZES.name}, sha256 {hashlib.sha256(SIZES.read_bytes()).hexdigest()}"
    with matplotlib.rc_context(STYLE):
        speed(json.loads(SIZES.read_text())).savefig(
            folder / "speed.svg", metadata={"Date": None, "Description": drawn_from}
        )
        pairs().savefig(folder / "pairs.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images")
