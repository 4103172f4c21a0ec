"""``python -m benchmarks.gpu``: check, measure and judge the GPU backends within nine minutes, on one NVIDIA GPU."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .. import plots
from . import plan, report
from .campaign import Campaign, Clock
from .plan import TYPES, Plan
from .providers import PROVIDERS

RESULTS = Path(__file__).parents[1] / "results"
MINUTES = 9.0
WIDTH = 170  # of the tables in a log
NO_GPU = (
    "torch sees no NVIDIA GPU: run this on a machine with one and a torch for it, or with --toy for a run in Triton's "
    "interpreter that says nothing about speed"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="the same code at toy sizes in Triton's interpreter")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"time there is (default: {MINUTES:g})")
    parser.add_argument("--output", type=Path, help=f"folder for JSON, pictures and logs (default: {RESULTS.name}/gpu, "
                        "or gpu-toy, beside the code)")  # fmt: skip
    return parser.parse_args()


def draw(result: dict[str, Any], chosen: Plan, folder: Path) -> list[Path]:
    """Draw time and memory against the number of points, for each dtype, and the sparse shapes."""
    looks = {name: provider.look for name, provider in PROVIDERS.items()}
    written = []
    for dtype in TYPES:
        name = str(dtype).removeprefix("torch.")
        shapes = {key: shape for key, shape in result["shapes"].items() if shape["dtype"] == name}
        dense = plots.dense_shapes(shapes, chosen.plotted_channels)
        path = folder / f"dense-{name}.png"
        heading = f"dense, C = {chosen.plotted_channels}, {name}, {result['machine'].get('name')}"
        total = result["machine"].get("total_bytes")
        if total and plots.plot_dense(dense, looks, total, dtype.itemsize, heading, path):
            written.append(path)
        path = folder / f"sparse-{name}.png"
        if plots.plot_sparse(shapes, looks, path):
            written.append(path)
    return written


def main() -> int:
    asked = arguments()
    console = Console(record=True, width=None if sys.stdout.isatty() else WIDTH)
    if asked.toy:
        os.environ["TRITON_INTERPRET"] = "1"  # read by the processes that compute
    elif not torch.cuda.is_available() or torch.version.hip is not None:
        print(NO_GPU, file=sys.stderr)
        return 2
    chosen = plan.toy() if asked.toy else plan.full()
    folder = asked.output or RESULTS / ("gpu-toy" if asked.toy else "gpu")
    campaign = Campaign(
        chosen,
        asked.toy,
        Clock(60 * asked.minutes),
        folder,
        lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
    )
    result = campaign.run()
    pictures = draw(result, chosen, folder)
    report.show(console, result)
    text = folder / "report.txt"
    text.write_text(console.export_text())
    for path in (folder / "result.json", text, *pictures):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
