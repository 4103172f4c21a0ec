"""What the loss is meant to reach on a CPU and on a GPU (an H100 or H200), and whether a run's numbers say so."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .devices import DEVICES
from .providers import PROVIDERS

SPARSE = ("hippocampus16", "hippocampus32", "mmwhs16", "mmwhs32")
CPU_DEEP = "dense-8192-128"
DEEP = "dense-16384-128-bfloat16"
NARROW = "dense-16384-64-bfloat16"
FULL = "full512-bfloat16"
MIN_POINTS = 4096  # from which on CUDA is held against Triton
MEBIBYTE = 2**20

Shapes = Mapping[str, Mapping[str, Any]]
Worst = tuple[float | None, str]  # a number, and words on where


@dataclass(frozen=True)
class Verdict:
    target: str
    asked: str
    measured: str
    met: bool | None  # None where the run did not measure it


def judge(target: str, sign: str, asked: float, measured: float | None, unit: str = "x", detail: str = "") -> Verdict:
    if measured is None:
        return Verdict(target, f"{sign} {asked:g}{unit}", "not measured", None)
    met = measured >= asked if sign == ">=" else measured <= asked
    return Verdict(target, f"{sign} {asked:g}{unit}", f"{measured:.3g}{unit}{detail}", met)


def number(shapes: Shapes, shape: str, provider: str, name: str) -> float | None:
    """Return a number of a provider on a shape, or None where it was not measured."""
    return shapes.get(shape, {}).get("providers", {}).get(provider, {}).get(name)


def times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def mean(ratios: list[float | None], digits: int = 0) -> Worst:
    """The geometric mean, where there are all."""
    found = [ratio for ratio in ratios if ratio is not None]
    complete = len(found) == len(ratios)
    detail = f" ({', '.join(f'{ratio:.{digits}f}' for ratio in found)})"
    return statistics.geometric_mean(found) if complete else None, detail


# ---- a CPU -----------------------------------------------------------------------------------------------------------


def on_cpu(shapes: Shapes) -> list[Verdict]:
    plain, authors = (
        [number(shapes, name, provider, "ratio_to_fused") for name in SPARSE]
        for provider in ("anchors-only", "authors")
    )
    slowest = min([ratio for ratio in plain if ratio is not None], default=None) if None not in plain else None
    share = times(number(shapes, CPU_DEEP, "fused", "executed_over_peak"), 100)
    half = number(shapes, CPU_DEEP, "fused-bf16", "ratio_to_fused")
    memory: list[Worst] = [
        (shape["extra_peak_bytes"]["fused"] / (3 * shape["feature_bytes"] + 64 * MEBIBYTE), f" ({name})")
        for name, shape in shapes.items()
        if shape["extra_peak_bytes"].get("fused") is not None
    ]
    worst, where = max(memory, default=(None, ""))
    average, each = mean(plain, 2)
    authors_average, authors_each = mean(authors)
    return [
        judge("plain PyTorch with anchor rows, sparse shapes, geometric mean", ">=", 2, average, detail=each),
        judge("the same, slowest shape", ">=", 1, slowest),
        judge("naive code, sparse shapes, geometric mean", ">=", 25, authors_average, detail=authors_each),
        judge(f"{CPU_DEEP}: executed over peak", ">=", 75, share, " %"),
        judge(f"{CPU_DEEP}: bfloat16 over float32", ">=", 1.6, None if half is None else 1 / half),
        judge("extra peak memory over (3 x features + 64 MiB), worst shape", "<=", 1, worst, detail=where),
    ]


# ---- a GPU -----------------------------------------------------------------------------------------------------------


def fastest(shapes: Shapes, shape: str, providers: Iterable[str]) -> tuple[float, str] | None:
    found = [(time, name) for name in providers if (time := number(shapes, shape, name, "median_ms")) is not None]
    return min(found, default=None)


def leads(shapes: Shapes, own: Iterable[str], others: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return by shape how much faster the fastest of ours is than the fastest of the others, and who that is."""
    found = {}
    for shape in shapes:
        ours, other = fastest(shapes, shape, own), fastest(shapes, shape, others)
        if ours is not None and other is not None:
            found[shape] = other[0] / ours[0], other[1]
    return found


def worst_of(found: Iterable[tuple[float, str]]) -> Worst:
    lead, where = min(found, default=(None, ""))
    return lead, f" ({where})"


def on_gpu(shapes: Shapes, own: tuple[str, ...]) -> list[Verdict]:
    peers = [name for name, provider in PROVIDERS.items() if provider.backend is None]
    authors = leads(shapes, own, ["authors"])
    average, each = mean([authors.get(f"{name}-bfloat16", (None,))[0] for name in SPARSE])
    worst, where = worst_of((lead, f"{shape}, {name}") for shape, (lead, name) in leads(shapes, own, peers).items())
    pairs = {
        name: [number(shapes, name, one, "pairs_ms") for one in ("triton", "cuda")]
        for name, shape in shapes.items()
        if shape["family"] == "dense" and shape["dtype"] == "bfloat16" and shape["points"] >= MIN_POINTS
    }
    lead, shape = worst_of((slow / fast, name) for name, (slow, fast) in pairs.items() if slow and fast)
    # Dense-equivalent operations, 6 n n C, are 6/5 of those that are executed.
    share = times(number(shapes, NARROW, "cuda", "executed_over_peak"), 120)
    verdicts = [
        judge("naive code, sparse shapes, bfloat16, geometric mean", ">=", 50, average, detail=each),
        judge("the best other provider, worst shape", ">=", 2, worst, detail=where),
        judge(f"triton, {DEEP}, a graph's replay", "<=", 0.6, number(shapes, DEEP, "triton", "graph_ms"), " ms"),
        judge(f"triton, {DEEP}, a call", "<=", 0.6, number(shapes, DEEP, "triton", "median_ms"), " ms"),
        judge(f"cuda, {DEEP}, a graph's replay", "<=", 0.4, number(shapes, DEEP, "cuda", "graph_ms"), " ms"),
        # All around the pairs is the same in both.
        judge(f"cuda ahead of triton, N >= {MIN_POINTS}, pairs alone, worst", ">=", 1.3, lead, detail=shape),
        judge(f"cuda, {NARROW}: dense-equivalent over the rate of products", ">=", 50, share, " %"),
    ]
    for name in own:
        extra = shapes.get(FULL, {}).get("extra_peak_bytes", {}).get(name)
        beyond = None if extra is None else (extra - shapes[FULL]["feature_bytes"]) / 2**30
        verdicts.append(judge(f"{name}, {FULL}, memory beyond features and gradient", "<=", 2, beyond, " GiB"))
    return verdicts


def accuracy(accuracies: list[Mapping[str, Any]]) -> list[Verdict]:
    worst = {part: max((entry[f"{part}_ratio"] for entry in accuracies), default=None) for part in ("loss", "gradient")}
    return [judge(f"error of the {part} over plain PyTorch's", "<=", 2, value) for part, value in worst.items()]


def verdicts(result: Mapping[str, Any]) -> list[dict[str, object]]:
    """Judge a result; of the interpreter the errors alone."""
    device = result["device"]
    shapes = {} if device == "interpreter" else result["shapes"]
    found = on_cpu(shapes) if device == "cpu" else on_gpu(shapes, DEVICES[device].own)
    return [asdict(verdict) for verdict in (*found, *accuracy(result["accuracy"]))]
