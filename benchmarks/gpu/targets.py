"""What the loss is meant to reach on a GPU (an H100 or H200), and whether a run's numbers say that it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..targets import SPARSE, Verdict, accuracy, at_least, at_most, geometric_mean
from .providers import OWN, PEERS

Shapes = Mapping[str, Mapping[str, Any]]

DEEP = "dense-16384-128-bfloat16"
NARROW = "dense-16384-64-bfloat16"
FULL = "full512-bfloat16"
LEAST_POINTS = 4096  # from which on CUDA is held against Triton


def median(shapes: Shapes, shape: str, provider: str) -> float | None:
    """The milliseconds of a provider's calls, or None where it was not measured."""
    return shapes.get(shape, {}).get("providers", {}).get(provider, {}).get("median_ms")


def replayed(shapes: Shapes, shape: str, provider: str) -> float | None:
    """The milliseconds of a graph's replays."""
    return shapes.get(shape, {}).get("providers", {}).get(provider, {}).get("replayed", {}).get("median_ms")


def fastest(shapes: Shapes, shape: str, providers: Mapping[str, object]) -> tuple[float, str] | None:
    found = [(time, name) for name in providers if (time := median(shapes, shape, name)) is not None]
    return min(found, default=None)


def against_authors(shapes: Shapes) -> Verdict:
    """The authors' bfloat16 time over ours, partition and packing included."""
    quotients = []
    for name in SPARSE:
        own = fastest(shapes, f"{name}-bfloat16", OWN)
        theirs = median(shapes, f"{name}-bfloat16", "authors")
        if own is not None and theirs is not None:
            quotients.append(theirs / own[0])
    complete = len(quotients) == len(SPARSE)
    detail = f" ({', '.join(f'{value:.0f}' for value in quotients)})"
    target = "the authors' algorithm, sparse shapes, bfloat16, geometric mean"
    return at_least(target, 50, geometric_mean(quotients) if complete else None, detail=detail)


def against_best(shapes: Shapes) -> Verdict:
    worst = None
    for shape in shapes:
        own, other = fastest(shapes, shape, OWN), fastest(shapes, shape, PEERS)
        if own is not None and other is not None:
            candidate = (other[0] / own[0], f" ({shape}, {other[1]})")
            worst = candidate if worst is None else min(worst, candidate)
    target = "the best other provider, worst shape"
    return at_least(target, 2, None) if worst is None else at_least(target, 2, worst[0], detail=worst[1])


def triton(shapes: Shapes) -> list[Verdict]:
    return [
        at_most(f"triton, {DEEP}, a graph's replay", 0.6, replayed(shapes, DEEP, "triton"), " ms"),
        at_most(f"triton, {DEEP}, a call", 0.6, median(shapes, DEEP, "triton"), " ms"),
    ]


def memory(shapes: Shapes) -> list[Verdict]:
    verdicts = []
    for name in OWN:
        extra = shapes.get(FULL, {}).get("extra_peak_bytes", {}).get(name)
        beyond = None if extra is None else (extra - shapes[FULL]["feature_bytes"]) / 2**30
        verdicts.append(at_most(f"{name}, {FULL}, memory beyond features and gradient", 2, beyond, " GiB"))
    return verdicts


def cuda(shapes: Shapes, rate: float | None) -> list[Verdict]:
    """``rate``: bfloat16 products, FLOP/s."""
    leads = []
    for name, shape in shapes.items():
        if shape["family"] == "dense" and shape["dtype"] == "bfloat16" and shape["points"] >= LEAST_POINTS:
            slower, faster = (shape["providers"].get(one, {}).get("pairs_ms") for one in ("triton", "cuda"))
            if slower is not None and faster is not None:
                leads.append((slower / faster, f" ({name})"))
    lead, detail = min(leads, default=(None, ""))
    narrow = replayed(shapes, NARROW, "cuda")
    share = None
    if narrow is not None and rate:
        share = 100 * shapes[NARROW]["dense_flops"] / (1e-3 * narrow) / rate
    return [
        at_most(f"cuda, {DEEP}, a graph's replay", 0.40, replayed(shapes, DEEP, "cuda"), " ms"),
        # All around the pairs is the same in both.
        at_least(f"cuda ahead of triton, bfloat16, N >= {LEAST_POINTS}, pairs alone, worst", 1.3, lead, detail=detail),
        at_least(f"cuda, {NARROW}: dense-equivalent over the rate of products", 50, share, " %"),
    ]


def verdicts(result: Mapping[str, Any]) -> list[dict[str, object]]:
    """Judge a result; of a toy run the errors alone."""
    shapes = {} if result["toy"] else result["shapes"]
    found = [
        against_authors(shapes),
        against_best(shapes),
        *triton(shapes),
        *memory(shapes),
        *cuda(shapes, result["limits"].get("bfloat16_flops")),
        *accuracy(result["accuracy"]),
    ]
    return [asdict(verdict) for verdict in found]
