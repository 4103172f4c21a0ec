"""Keys, weights, "pairwise" and a process group, against plain PyTorch: ``python -m benchmarks.beside``.

Forward and backward, in float32 on a CPU; the process group has one process. Calls that are compared are timed in turn,
and a ratio is of their medians. Plain PyTorch is the strongest there is without a kernel: rows for anchors alone, and
for "pairwise" products of classes, not of all points with all.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.functional import normalize, softplus

from semicl_kernels import local_contrastive_loss, supervised_contrastive_loss
from semicl_kernels.backends import cpu

from . import flops
from .__main__ import refusal
from .machine import describe
from .memory import PRELOADED, peak_growth
from .problems import BACKGROUND, SHAPES, TEMPERATURE, Problem, blocks_of, build, dense
from .report import milliseconds, table, write_whole
from .timing import interleaved

RESULTS = Path(__file__).parent / "results" / "beside"
ANCHORS, KEYS, CHANNELS, CLASSES = 4096, 65536, 128, 10
PAIRWISE = ("hippocampus16", "hippocampus32", "mmwhs16")
GROUPED = ("hippocampus32", "dense-2048-128")
MIB = 2**20


def vectors(anchors: int, keys: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors (N, C), keys (K, C) and their labels."""
    generator = torch.Generator().manual_seed(0)
    x, y = (normalize(torch.randn(n, CHANNELS, generator=generator), dim=1) for n in (anchors, keys))
    labels, key_labels = (torch.randint(0, CLASSES, (n,), generator=generator) for n in (anchors, keys))
    return x.requires_grad_(), labels, y, key_labels


def with_keys(x: Tensor, labels: Tensor, y: Tensor, key_labels: Tensor) -> Tensor:
    return supervised_contrastive_loss(x[:, None], labels, keys=y, key_labels=key_labels, temperature=TEMPERATURE)


def plain_with_keys(x: Tensor, labels: Tensor, y: Tensor, key_labels: Tensor) -> Tensor:
    units = normalize(x, dim=1)
    names, met = torch.cat([labels, key_labels]), torch.cat([units, y])
    itself = torch.eye(len(x), len(met), dtype=torch.bool)
    s = (units @ met.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == names) & ~itself
    return (s.logsumexp(1) - s.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def contrast(problem: Problem, **options: Any) -> Tensor:
    return local_contrastive_loss(
        problem.features,
        problem.labels,
        block_size=problem.block,
        temperature=TEMPERATURE,
        reduction="anchor",
        **options,
    )


def plain_pairwise(problem: Problem) -> Tensor:
    points = normalize(problem.features, dim=2)
    labels, total, count = problem.labels, points.new_zeros(()), 0
    assert labels is not None
    for tile, names in zip(*(blocks_of(each, problem.block) for each in (points, labels)), strict=True):
        x, names = tile.movedim(2, -1).flatten(0, -2), names.flatten()
        for label in names.unique().tolist():
            own = names == label
            if label == BACKGROUND or own.sum() < 2 or own.all():
                continue
            rows = x[own]
            lse = (rows @ x[~own].T / TEMPERATURE).logsumexp(1)
            terms = softplus(lse[:, None] - rows @ rows.T / TEMPERATURE)
            total = total + (terms.sum() - terms.diagonal().sum()) / (len(rows) - 1)
            count += len(rows)
    return total / count


def call(leaves: tuple[Tensor, ...], loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Forward and backward, without a gradient from before."""

    def run() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        value = loss()
        value.backward()
        return value.detach()

    return run


def of_keys(anchors: int, keys: int, seconds: float) -> dict[str, float]:
    x, labels, y, key_labels = vectors(anchors, keys)
    learned = y.clone().requires_grad_()
    calls = {
        "keys": call((x,), lambda: with_keys(x, labels, y, key_labels)),
        "keys with gradients": call((x, learned), lambda: with_keys(x, labels, learned, key_labels)),
        "plain": call((x,), lambda: plain_with_keys(x, labels, y, key_labels)),
    }
    executed = flops.executed(calls["keys"])
    times = {name: each.median for name, each in interleaved(calls, seconds).items()}
    return {
        "keys: time, ms": 1e3 * times["keys"],
        "keys: time of plain PyTorch / ours": times["plain"] / times["keys"],
        "keys: share of the peak": executed / times["keys"] / (2 * cpu.peak_multiply_adds()),
        "keys: time with their gradient / without": times["keys with gradients"] / times["keys"],
    }


def keys_memory(anchors: int, keys: int, threads: int) -> int:
    torch.set_num_threads(threads)
    small, whole = vectors(64, 64), vectors(anchors, keys)
    call(small[:1], lambda: with_keys(*small))()
    return peak_growth(call(whole[:1], lambda: with_keys(*whole)))


def of_memory(anchors: int, keys: int) -> dict[str, float]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as pool:
        growth = pool.submit(keys_memory, anchors, keys, torch.get_num_threads()).result()
    return {"keys: memory beside features and keys, MiB": (growth - 4 * CHANNELS * (anchors + keys)) / MIB}


def of_weights(points: int, seconds: float) -> dict[str, float]:
    problem = build(dense(points, CHANNELS))
    size = (*problem.features.shape[:2], *problem.features.shape[3:])
    generator = torch.Generator().manual_seed(0)
    few = (torch.rand(size, generator=generator) < 0.1).float()
    labels = torch.randint(1, 5, size, generator=generator)
    problem = Problem(problem.features, labels, None)
    calls = {
        "none": call((problem.features,), lambda: contrast(problem)),
        "few": call((problem.features,), lambda: contrast(problem, weights=few)),
    }
    times = {name: each.median for name, each in interleaved(calls, seconds).items()}
    return {"weights, 90 % of them 0: time without weights / with": times["none"] / times["few"]}


def build_named(name: str) -> Problem:
    return build(next(shape for shape in SHAPES if shape.name == name))


def of_pairwise(name: str, seconds: float) -> dict[str, float]:
    problem = build_named(name)
    calls = {
        "pairwise": call((problem.features,), lambda: contrast(problem, denominator="pairwise")),
        "all": call((problem.features,), lambda: contrast(problem)),
        "plain": call((problem.features,), lambda: plain_pairwise(problem)),
    }
    times = {name: each.median for name, each in interleaved(calls, seconds).items()}
    return {
        f"pairwise, {name}: time of plain PyTorch / ours": times["plain"] / times["pairwise"],
        f'pairwise, {name}: time / that of "all"': times["pairwise"] / times["all"],
    }


def of_a_group(name: str, seconds: float) -> dict[str, float]:
    problem = build_named(name)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        whole = distributed.group.WORLD
        calls = {
            "alone": call((problem.features,), lambda: contrast(problem)),
            "group": call((problem.features,), lambda: contrast(problem, process_group=whole)),
        }
        times = {name: each.median for name, each in interleaved(calls, seconds).items()}
    finally:
        distributed.destroy_process_group()
    return {f"a process group of one, {name}: time / without": times["group"] / times["alone"]}


def measured(seconds: float) -> dict[str, float]:
    found = of_memory(ANCHORS, KEYS) | of_keys(ANCHORS, KEYS, 5 * seconds) | of_weights(ANCHORS, seconds)
    for name in PAIRWISE:
        found |= of_pairwise(name, 2 * seconds)
    ratios = [found[f"pairwise, {name}: time of plain PyTorch / ours"] for name in PAIRWISE]
    found["pairwise, geometric mean: time of plain PyTorch / ours"] = math.prod(ratios) ** (1 / len(ratios))
    for name in GROUPED:
        found |= of_a_group(name, seconds)
    return found


def page(found: dict[str, float]) -> str:
    """Return the table of docs/benchmarks.md."""
    rows = [[name, milliseconds(value)] for name, value in found.items()]
    return "\n".join(table(["call", "measured"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="for the repetitions of a comparison")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's own choice)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for result.json")
    asked = parser.parse_args()
    reason = refusal("cpu")
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    found = measured(asked.seconds)
    write_whole({"machine": describe(), "measured": found}, asked.output / "result.json")
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
