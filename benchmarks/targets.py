"""What the loss is meant to reach on a CPU, and whether a run's numbers say that it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SPARSE = ("hippocampus16", "hippocampus32", "mmwhs16", "mmwhs32")
DEEP = "dense-8192-128"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Verdict:
    target: str
    asked: str
    measured: str
    met: bool | None  # None where the run did not measure it


Shapes = Mapping[str, Mapping[str, Any]]


def at_least(target: str, asked: float, measured: float | None, unit: str = "x", detail: str = "") -> Verdict:
    if measured is None:
        return Verdict(target, f">= {asked:g}{unit}", "not measured", None)
    return Verdict(target, f">= {asked:g}{unit}", f"{measured:.3g}{unit}{detail}", measured >= asked)


def at_most(target: str, asked: float, measured: float | None, unit: str = "x", detail: str = "") -> Verdict:
    if measured is None:
        return Verdict(target, f"<= {asked:g}{unit}", "not measured", None)
    return Verdict(target, f"<= {asked:g}{unit}", f"{measured:.3g}{unit}{detail}", measured <= asked)


def speedups(shapes: Shapes, provider: str) -> list[float] | None:
    """How many times faster the fused loss is on the four sparse shapes, or None where one was not measured."""
    found = [shapes.get(name, {}).get("providers", {}).get(provider, {}).get("ratio_to_fused") for name in SPARSE]
    return None if None in found else found


def geometric_mean(values: list[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def against_plain(shapes: Shapes) -> list[Verdict]:
    faster = speedups(shapes, "anchors-only")
    mean = geometric_mean(faster) if faster else None
    detail = f" ({', '.join(f'{value:.2f}' for value in faster)})" if faster else ""
    return [
        at_least("plain PyTorch with anchor rows, sparse shapes, geometric mean", 2, mean, detail=detail),
        at_least("the same, slowest shape", 1, min(faster) if faster else None),
    ]


def against_authors(shapes: Shapes) -> list[Verdict]:
    faster = speedups(shapes, "authors")
    mean = geometric_mean(faster) if faster else None
    detail = f" ({', '.join(f'{value:.0f}' for value in faster)})" if faster else ""
    return [at_least("the authors' algorithm, sparse shapes, geometric mean", 25, mean, detail=detail)]


def arithmetic(shapes: Shapes) -> list[Verdict]:
    providers = shapes.get(DEEP, {}).get("providers", {})
    share = providers.get("fused", {}).get("executed_over_peak")
    narrow = providers.get("fused-bf16", {}).get("ratio_to_fused")
    return [
        at_least(f"{DEEP}: executed over peak", 75, None if share is None else 100 * share, " %"),
        at_least(f"{DEEP}: bfloat16 over float32", 1.6, None if narrow is None else 1 / narrow),
    ]


def memory(shapes: Shapes) -> list[Verdict]:
    """The worst of extra peak / (3 features + 64 MiB)."""
    shares = {
        name: shape["extra_peak_bytes"]["fused"] / (3 * shape["feature_bytes"] + 64 * MEBIBYTE)
        for name, shape in shapes.items()
        if shape["extra_peak_bytes"].get("fused") is not None
    }
    worst = max(shares, key=shares.__getitem__, default=None)
    target = "extra peak memory over (3 x features + 64 MiB), worst shape"
    return [at_most(target, 1, None if worst is None else shares[worst], detail=f" ({worst})")]


def accuracy(accuracies: list[Mapping[str, Any]]) -> list[Verdict]:
    worst = {part: max((entry[f"{part}_ratio"] for entry in accuracies), default=None) for part in ("loss", "gradient")}
    return [at_most(f"error of the {part} over plain PyTorch's", 2, value) for part, value in worst.items()]


def verdicts(shapes: Shapes, accuracies: list[Mapping[str, Any]]) -> list[dict[str, object]]:
    found = [
        *against_plain(shapes),
        *against_authors(shapes),
        *arithmetic(shapes),
        *memory(shapes),
        *accuracy(accuracies),
    ]
    return [asdict(verdict) for verdict in found]
