"""``python -m benchmarks``: measure, show, and write the result file, its report and its pictures."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markdown import Markdown

from semicl_kernels import available_backends

from . import plots, report
from .devices import DEVICES
from .plan import PLANS, only
from .session import Session

RESULTS = Path(__file__).parent / "results"
WIDTH = 170  # of the tables in a log


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=DEVICES, help="default: cuda where there is an NVIDIA GPU, else cpu; "
                        "interpreter: a GPU's plan in little, by Triton's interpreter")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few shapes, under two minutes")
    parser.add_argument("--only", nargs="+", metavar="SHAPE", help="shapes whose name begins so, such as dense-8192")
    parser.add_argument("--minutes", type=float, help="time there is (default: 9 on a GPU, no limit on a CPU)")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's own choice)")
    parser.add_argument("--output", type=Path, help="folder for all files (default: the device's name, -quick, in "
                        "benchmarks/results; nothing is written with --only unless it is given)")  # fmt: skip
    return parser.parse_args()


def refusal(device: str) -> str | None:
    """Return why the device cannot be measured, with the way out, or None."""
    if device == "cuda" and (not torch.cuda.is_available() or torch.version.hip is not None):
        return "torch sees no NVIDIA GPU: run this on a machine with one and a torch for it, or with --device cpu"
    state = available_backends()["cpu"]
    if device == "cpu" and state != "available":
        return f"on a CPU the compiled cpu backend is measured, but {state}"
    return None


def main() -> int:
    asked = arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    device = asked.device or ("cuda" if torch.cuda.is_available() and torch.version.hip is None else "cpu")
    # Read by the processes that compute.
    os.environ["TRITON_INTERPRET"] = "1" if device == "interpreter" else "0"
    plan = PLANS[device](asked.quick)
    reason = refusal(device)
    try:
        plan = only(plan, asked.only) if asked.only else plan
    except ValueError as error:
        reason = reason or str(error)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    folder = asked.output or (None if asked.only else RESULTS / (device + ("-quick" if asked.quick else "")))
    minutes = plan.minutes if asked.minutes is None else asked.minutes
    say = lambda line: console.print(line, markup=False, soft_wrap=True)  # noqa: E731
    result = Session(plan, device, minutes, folder, say, asked.threads).run()
    text = report.full(result)
    console.print(Markdown(text))
    if folder is not None:
        (folder / "report.md").write_text(text + "\n")
        pictures = plots.draw_all(result, folder) if result["machine"] else []
        for path in (folder / "result.json", folder / "report.md", *pictures):
            say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
