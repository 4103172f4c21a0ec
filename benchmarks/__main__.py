"""``python -m benchmarks``: measure, show, and write the result file and its pictures."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import accuracy, boundary, machine, plots, report, targets
from .files import write_whole
from .looks import Look
from .measure import shape_result
from .plan import PLOTTED_CHANNELS, Plan, full, only, quick
from .providers import PROVIDERS, require_compiled

RESULTS = Path(__file__).parent / "results"
COLOURS = ("#0b6e4f", "#6fb98f", "#8a8d91", "#3b6fb6", "#c8553d")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few shapes, under two minutes")
    parser.add_argument("--only", nargs="+", metavar="SHAPE", help="shapes whose name begins so, such as dense-8192")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's own choice)")
    parser.add_argument("--output", type=Path, help=f"folder for JSON and PNG (default: {RESULTS.name}/cpu, or "
                        "cpu-quick, beside the code; nothing is written with --only unless it is given)")  # fmt: skip
    return parser.parse_args()


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    bar = progress.add_task("machine", total=len(plan.tasks) + len(plan.accuracies) + 2)
    result: dict[str, Any] = {"machine": machine.describe(), "shapes": {}, "accuracy": []}
    progress.advance(bar)
    for task in plan.tasks:
        progress.update(bar, description=task.shape.name)
        result["shapes"][task.shape.name] = shape_result(task)
        progress.advance(bar)
    for shape, dtype in plan.accuracies:
        progress.update(bar, description=f"error of {shape.name}")
        result["accuracy"].append(accuracy.compare(shape, dtype, "cpu", "reference"))
        progress.advance(bar)
    progress.update(bar, description="cost of a call")
    result["boundary_us"] = boundary.microseconds()
    progress.advance(bar)
    result["targets"] = targets.verdicts(result["shapes"], result["accuracy"])
    return result


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write the JSON and the pictures."""
    written = [write_whole(result, folder / "result.json")]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    looks = {name: Look(PROVIDERS[name].title, colour) for name, colour in zip(PROVIDERS, COLOURS, strict=True)}
    chosen = plots.dense_shapes(result["shapes"], PLOTTED_CHANNELS)
    heading = f"dense, C = {PLOTTED_CHANNELS}, float32 unless said"
    if plots.plot_dense(chosen, looks, total, torch.float32.itemsize, heading, folder / "dense.png"):
        written.append(folder / "dense.png")
    if plots.plot_sparse(result["shapes"], looks, folder / "sparse.png"):
        written.append(folder / "sparse.png")
    return written


def main() -> int:
    chosen = arguments()
    console = Console()
    try:
        require_compiled()
        plan = quick() if chosen.quick else full()
        if chosen.only:
            plan = only(plan, chosen.only)
    except (RuntimeError, ValueError) as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 2
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        result = run(plan, progress)
    report.show(console, result)
    folder = chosen.output or (None if chosen.only else RESULTS / ("cpu-quick" if chosen.quick else "cpu"))
    if folder is not None:
        for path in write(result, folder):
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
