"""``python -m benchmarks.tune``: search the Triton kernels' tiles on this GPU; prints entries of tile_configs.py.

Candidates are the tiles that the table of the GPU's architecture has for a pass, and their neighbors in rows of M and
N tiles, warps and pipeline stages. Each computes one dense group through the public primitive; one that does not
fit, or whose result is not that of the table's own tile, is out. The median of ``triton.testing.do_bench`` decides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from semicl_kernels import grouped_logsumexp
from semicl_kernels.backends.device import chip, interpreted, padded
from semicl_kernels.backends.triton import plane_count
from semicl_kernels.triton_kernels import tile_configs
from semicl_kernels.triton_kernels.tile_configs import MIN_BLOCK_N, Tile

PASSES = ("sums", "gradient")
CLOSE = 1e-2  # relative, of vectors: two tiles differ by the order of their sums alone
MAX_ROWS = 256  # of an M or N tile
SCALE, BOUND = 10.0, 10.1

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Problem:
    """One dense group of unit rows, every one an anchor."""

    rows: Tensor  # (N, C)
    planes: int
    padded: int
    architecture: str


def make(points: int, channels: int, dtype: torch.dtype, place: torch.device) -> Problem:
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(points, channels, generator=generator), dim=1).to(place, dtype)
    return Problem(rows.requires_grad_(), plane_count(dtype), padded(channels), chip(place).architecture)


def candidates(architecture: str, name: str, planes: int, channels: int) -> list[Tile]:
    """Return the table's own tile first, then the others."""
    own = tile_configs.tile(architecture, name, planes, channels)
    table = tile_configs.TABLES[architecture]
    known = [own, *(tile for key, entries in table.items() if key[0] == name for tile in entries.values())]
    found: dict[Tile, None] = {own: None}
    for tile in known:
        if max(tile.width, tile.out) > channels:
            continue
        sides = product(
            (tile.block_m // 2, tile.block_m, 2 * tile.block_m), (tile.block_n // 2, tile.block_n, 2 * tile.block_n)
        )
        for (block_m, block_n), warps, extra in product(sides, (4, 8), (-1, 0, 1)):
            stages = tile.stages + extra
            fits = min(block_m, block_n) >= MIN_BLOCK_N and max(block_m, block_n) <= MAX_ROWS and stages >= 1
            # The sums take whole N tiles out of an M tile.
            if fits and (name != "sums" or block_m % block_n == 0):
                found[replace(tile, block_m=block_m, block_n=block_n, warps=warps, stages=stages)] = None
    return list(found)


@contextmanager
def using(problem: Problem, name: str, tile: Tile) -> Iterator[None]:
    """Have the backend take the tile for the pass."""
    table = tile_configs.TABLES[problem.architecture]
    before = table[name, problem.planes]
    table[name, problem.planes] = {problem.padded: tile}
    try:
        yield
    finally:
        table[name, problem.planes] = before


def call_of(problem: Problem, name: str) -> Call:
    """Return a function that runs the pass with the tiles of now and returns its result."""
    rows = problem.rows
    own = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    offsets = torch.tensor([0, len(rows)], dtype=torch.int32, device=rows.device)
    forward = partial(
        grouped_logsumexp, rows, offsets, offsets[1:], own, own + 1,
        scale=SCALE, bound=BOUND, mutual=True, backend="triton",
    )  # fmt: skip
    if name == "sums":
        return lambda: forward().detach()
    lse = forward()
    grad = torch.ones_like(lse)
    return lambda: torch.autograd.grad(lse, rows, grad, retain_graph=True)[0]


def search(problem: Problem, name: str, timed: Callable[[Call], float]) -> dict[Tile, float]:
    """Return the milliseconds of the candidates that work; the table's own tile must."""
    expected: Tensor | None = None
    found = {}
    for tile in candidates(problem.architecture, name, problem.planes, problem.padded):
        try:
            with using(problem, name, tile):
                call = call_of(problem, name)
                result = call().clone()
                if expected is None:
                    expected = result
                if float((result - expected).norm()) <= CLOSE * float(expected.norm()):
                    found[tile] = timed(call)
        except Exception as error:
            if expected is None:
                raise
            print(f"  {tile}: {type(error).__name__}", file=sys.stderr)
    return found


def entry(tile: Tile) -> str:
    """Return the tile as tile_configs.py writes it."""
    extras = "".join(f", {part}={getattr(tile, part)}" for part in ("width", "out") if getattr(tile, part))
    return f"Tile({tile.block_m}, {tile.block_n}, {tile.warps}, {tile.stages}{extras})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--points", type=int, default=16384)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=["bfloat16", "float16", "float32"])
    asked = parser.parse_args()
    if interpreted() or not torch.cuda.is_available():
        print("torch sees no GPU, or the interpreter is on: there is nothing to time", file=sys.stderr)
        return 2
    from triton.testing import do_bench

    place = torch.device("cuda", torch.cuda.current_device())
    about = torch.cuda.get_device_name(place)
    for dtype in asked.dtype:
        for channels in asked.channels:
            problem = make(asked.points, channels, getattr(torch, dtype), place)
            for name in PASSES:
                own = tile_configs.tile(problem.architecture, name, problem.planes, problem.padded)
                times = search(problem, name, partial(do_bench, return_mode="median"))
                best = min(times, key=times.__getitem__)
                print(
                    f'("{name}", {problem.planes}): {{{problem.padded}: {entry(best)}}}  # by time on {about}, N = '
                    f"{asked.points}: {times[best]:.3g} ms, {entry(own)} {times[own]:.3g} ms",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
