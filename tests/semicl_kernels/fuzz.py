"""``python -m tests.semicl_kernels.fuzz``: random configurations against the oracle, by the rule of accuracy.py.

Case number k is the same on every machine, so that a run can be split (``--first``) and a failure repeated. A case that
fails is printed with its number; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from . import oracle
from .accuracy import assert_gradients_follow_rule, assert_reduced_follows_rule, assert_values_follow_rule
from .cases import AROUND, CODES, IGNORE, LABEL_KINDS, LAYOUTS, Case, true_value_and_gradient, value_and_gradient
from .on_device import local_contrastive_loss

NARROW = (torch.float32, torch.float32, torch.bfloat16, torch.float16)
# The reference is plain PyTorch, in a narrow dtype too: there it is what the others are measured by.
DTYPES = {"tiled": (*NARROW, torch.float64), "reference": (torch.float32, torch.float64)}
CHANNELS = (1, 2, 3, 8, 15, 16, 17, 32, 48, 64, 128)


@dataclass(frozen=True)
class Drawn:
    case: Case
    dtype: torch.dtype


def draw(number: int, backend: str, most_points: int = 400) -> Drawn:
    """Return the configuration of this number."""
    of = random.Random(number)
    dtype = of.choice(DTYPES.get(backend, NARROW))
    axes = of.choice((2, 2, 3))
    batch, views = of.randint(1, 3), of.randint(1, 3)
    side = max(1, int((most_points / (batch * views)) ** (1 / axes)))
    space = [of.randint(1, side) for _ in range(axes)]
    if of.random() < 0.3:  # large, and one group
        space = [side] * axes
    normalize = of.random() < 0.6
    low = high = 0.0
    temperature = of.choice((0.02, 0.07, 0.1, 0.5, 1.0))
    channels = of.choice(CHANNELS)
    if not normalize:
        # Of float16 neither the squares nor the similarities reach further.
        ends = (-2.0, 0.5) if dtype == torch.float16 else (-5.0, 5.0)
        low = high = of.uniform(*ends)
        if of.random() < 0.3:
            low, high = sorted((low, of.uniform(*ends)))
        if of.random() < 0.5 and dtype != torch.float16:
            temperature *= 10 ** (2 * high) * channels  # similarities of the usual size
    options = {
        "temperature": temperature,
        "stride": of.choice((1, 1, 1, 2, tuple(of.randint(1, 3) for _ in range(axes)))),
        "block_size": of.choice((None, None, 100, 3, 5, tuple(of.randint(1, 8) for _ in range(axes)))),
        "scope": of.choice(("batch", "image")),
        "denominator": of.choice(("all", "negatives")),
        "background": of.choice((CODES[0], CODES[2], 99)),
        "ignore_index": of.choice((None, IGNORE, CODES[3])),
        "normalize": normalize,
        "reduction": of.choice(("block", "anchor", "sum", "none")),
    }
    unlabelled = (None,) if views > 1 else ()
    case = Case(
        shape=(batch, views, channels, *space),
        label_kind=of.choice((*unlabelled, "random", "random", *LABEL_KINDS)),
        layout=of.choice(LAYOUTS),
        duplicated=of.random() < 0.2,
        around=of.choice(AROUND),
        spread=10 ** of.uniform(-4, 0),
        decades=(low, high),
        seed=number,
        options=options,
    )
    if of.random() < 0.3:
        options["denominator"] = "pairwise"
    return Drawn(case, dtype)


def judge(backend: str, drawn: Drawn) -> None:
    """Raise AssertionError if loss or gradient are off by more than twice plain PyTorch's error, or an exception."""
    case, dtype = drawn.case, drawn.dtype
    features = case.features(dtype)
    exact = np.longdouble if dtype == torch.float64 else np.float64
    truth, true_gradient = true_value_and_gradient(case, features, exact=exact)
    true_map, _ = true_value_and_gradient(case, features, exact=exact, reduction="none")
    value, gradient = value_and_gradient(partial(local_contrastive_loss, backend=backend), case, features)
    # The reference is plain PyTorch itself, and is measured by another one.
    by = oracle.plain_pytorch if backend == "reference" else case.plain(dtype)
    plain, plain_gradient = value_and_gradient(by, case, features)
    plain_map = by(features, case.labels(), **{**case.options, "reduction": "none"})
    sizes = case.sizes(dtype)
    assert value.shape == truth.shape
    assert_gradients_follow_rule(gradient, plain_gradient, true_gradient, sizes)
    if case.options["reduction"] == "none":
        assert_values_follow_rule(value, plain, truth, sizes)
    else:
        weight = sizes.anchors if case.options["reduction"] == "sum" else 1
        assert_reduced_follows_rule(value, plain_map, true_map, truth, sizes, weight)


def failure(backend: str, number: int, most_points: int = 400) -> str | None:
    """Return None, or what is wrong with the backend at this number."""
    drawn = draw(number, backend, most_points)
    try:
        judge(backend, drawn)
    except Exception as error:
        return f"{number}: {type(error).__name__}: {error}; {drawn}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.semicl_kernels.fuzz", description=__doc__)
    parser.add_argument("--backend", default="cpu", help="whom to judge (default: cpu)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--cases", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--points", type=int, default=400, help="points of a map at most (default: 400)")
    chosen = parser.parse_args()
    failed, start = 0, time.monotonic()
    for done in range(chosen.cases):
        wrong = failure(chosen.backend, chosen.first + done, chosen.points)
        if wrong is not None:
            failed += 1
            print(wrong, flush=True)
        if (done + 1) % 1000 == 0 or done + 1 == chosen.cases:
            seconds = time.monotonic() - start
            print(f"{chosen.backend}: {done + 1} cases, {failed} wrong, {seconds:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
