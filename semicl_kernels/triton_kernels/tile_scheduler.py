"""The tile scheduler: Stream-K ranges of steps over the M tiles of ragged groups, found on the device.

docs/gpu.md has the schedule, with pictures; csrc/cuda/tile_scheduler.h is the same for Hopper. A pass is one of three:

    GRADIENT   tiles of all points: those with an anchor meet all points of their group, the others its anchors
    RECTANGLE  tiles of anchors, which meet all points
    TRIANGLE   tiles of anchors, which meet the points from their own first row on

:func:`count_work` writes, for every group, the steps of both passes up to and with it. A program finds the tiles of its
own range by bisection, over the groups and then over the tiles of one.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Estimates, not measured on a GPU. In steps: the cost of a tile beside its steps, and the shortest range of a program.
PROLOGUE_COST = tl.constexpr(2)
MIN_STREAM_K_RANGE = tl.constexpr(4)
GRADIENT, RECTANGLE, TRIANGLE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
WHOLE, NOTHING = tl.constexpr(-1), tl.constexpr(-2)  # instead of a partial


@triton.jit
def count_work(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    sums_ends,  # (G,) int64, written: steps of the sums' tiles of all groups up to this one, prologue costs included
    gradient_ends,  # (G,) int64, written: likewise of the gradient's tiles
    tile_ends,  # (G,) int32, written: row tiles of all groups up to this one
    G,
    SUMS_PASS: tl.constexpr,
    SUMS_M: tl.constexpr,
    SUMS_N: tl.constexpr,
    GRADIENT_M: tl.constexpr,
    GRADIENT_N: tl.constexpr,
    PARTS: tl.constexpr,  # of the gradient's channels, each with steps of its own
    TILE_ROWS: tl.constexpr,  # of the passes over rows
    CHUNK: tl.constexpr,
):
    """Count the work of every group; one program."""
    tiles, sums, gradient = 0, tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    for first in range(0, G, CHUNK):
        g = first + tl.arange(0, CHUNK)
        inside = g < G
        a = tl.load(anchors + g, mask=inside, other=0)
        n = tl.load(offsets + g + 1, mask=inside, other=0) - tl.load(offsets + g, mask=inside, other=0)
        group_tiles = tile_count(n, a, TILE_ROWS, 1, GRADIENT)
        group_sums = group_steps(n, a, SUMS_M, SUMS_N, 1, SUMS_PASS)
        group_gradient = group_steps(n, a, GRADIENT_M, GRADIENT_N, PARTS, GRADIENT)
        tl.store(tile_ends + g, tiles + tl.cumsum(group_tiles, 0), mask=inside)
        tl.store(sums_ends + g, sums + tl.cumsum(group_sums, 0), mask=inside)
        tl.store(gradient_ends + g, gradient + tl.cumsum(group_gradient, 0), mask=inside)
        tiles += tl.sum(group_tiles)
        sums += tl.sum(group_sums)
        gradient += tl.sum(group_gradient)


@triton.jit
def find_item(item, ends, G):
    """Return the group of an item and the item's number in it."""
    low, high = 0, G - 1
    while low < high:
        middle = (low + high) // 2
        after = tl.load(ends + middle) <= item
        low = tl.where(after, middle + 1, low)
        high = tl.where(after, high, middle)
    before = tl.where(low > 0, tl.load(ends + tl.maximum(low - 1, 0)), 0)
    return low, item - before


# ---- the tiles of a group --------------------------------------------------------------------------------------------


@triton.jit
def tile_count(points, anchors, BLOCK_M: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr):
    """Return the M tiles of a group, each of PARTS parts of the channels a tile of its own."""
    rows = tl.where(anchors > 0, points, 0) if PASS == GRADIENT else anchors
    return tl.cdiv(rows, BLOCK_M) * PARTS


@triton.jit
def steps_before(
    number, points, anchors,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the steps of a group's tiles before tile ``number``, prologue costs included; int64.

    BLOCK_M is a multiple of BLOCK_N in a triangle.
    """
    number = tl.cast(number, tl.int64)
    length = tl.cdiv(points, BLOCK_N) + PROLOGUE_COST
    if PASS == GRADIENT:
        long_tiles = tl.minimum(number, tl.cdiv(anchors, BLOCK_M) * PARTS)
        return long_tiles * length + (number - long_tiles) * (tl.cdiv(anchors, BLOCK_N) + PROLOGUE_COST)
    elif PASS == TRIANGLE:
        return number * length - number * (number - 1) // 2 * (BLOCK_M // BLOCK_N)
    else:
        return number * length


@triton.jit
def group_steps(points, anchors, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr):
    """Return the steps of all tiles of a group; int64."""
    return steps_before(
        tile_count(points, anchors, BLOCK_M, PARTS, PASS), points, anchors, BLOCK_M, BLOCK_N, PARTS, PASS
    )


# ---- Stream-K ranges -------------------------------------------------------------------------------------------------


@triton.jit
def busy_workers(workers, total):
    """Return how many of the workers have a range, of ``total`` (int64) steps."""
    return tl.maximum(tl.minimum(workers, tl.cdiv(total, MIN_STREAM_K_RANGE)), 1)


@triton.jit
def stream_k_range(worker, workers, total):
    """Return the Stream-K range [at, stop) of a worker; empty for a worker too many."""
    busy = busy_workers(workers, total)
    at, stop = total * worker // busy, total * (worker + 1) // busy
    return tl.where(worker < busy, at, total), tl.where(worker < busy, stop, total)


@triton.jit
def worker_of(step, workers, total):
    """Return the worker whose range holds the step."""
    return (((step + 1) * busy_workers(workers, total) - 1) // total).to(tl.int32)


@triton.jit
def find_tile(
    step, step_ends, offsets, anchors, G,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the group of a step, the number of the step's tile in it, the part of its channels, and the tile's first
    and one-past-last of all steps, the prologue cost included."""
    g, local = find_item(step, step_ends, G)
    a = tl.load(anchors + g)
    n = tl.load(offsets + g + 1) - tl.load(offsets + g)
    low, high = 0, tile_count(n, a, BLOCK_M, PARTS, PASS) - 1
    while low < high:
        middle = (low + high + 1) // 2
        begins = steps_before(middle, n, a, BLOCK_M, BLOCK_N, PARTS, PASS) <= local
        low = tl.where(begins, middle, low)
        high = tl.where(begins, high, middle - 1)
    begin = step - local + steps_before(low, n, a, BLOCK_M, BLOCK_N, PARTS, PASS)
    end = step - local + steps_before(low + 1, n, a, BLOCK_M, BLOCK_N, PARTS, PASS)
    return g, low // PARTS, low % PARTS, begin, end


@triton.jit
def range_length(step_ends, G):
    """Return the steps of this program's range; int32."""
    at, stop = stream_k_range(tl.program_id(0), tl.num_programs(0), tl.load(step_ends + G - 1))
    return (stop - at).to(tl.int32)


@triton.jit
def next_tile(
    left, step_ends, offsets, anchors, G,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Find the tile of this program that ``left`` steps before the end of its range lie in.

    Returns (g, number, part, first_step, end_step, partial, left): the tile, which of its steps are this program's,
    the partial that it goes to, 0 or 1 (WHOLE for a whole tile, NOTHING where the range has no step of it), and the
    steps left after it. All is found anew for every tile: the loops over steps have no registers to spare.
    """
    _, stop = stream_k_range(tl.program_id(0), tl.num_programs(0), tl.load(step_ends + G - 1))
    at = stop - left
    g, number, part, begin, end = find_tile(at, step_ends, offsets, anchors, G, BLOCK_M, BLOCK_N, PARTS, PASS)
    first_step = tl.maximum(at - begin - PROLOGUE_COST, 0).to(tl.int32)
    end_step = tl.maximum(tl.minimum(stop, end) - begin - PROLOGUE_COST, 0).to(tl.int32)
    opens, ends = first_step == 0, end <= stop
    partial = tl.where(opens & ends, WHOLE, tl.where(end_step == 0, NOTHING, opens.to(tl.int32)))
    return g, number, part, first_step, end_step, partial, left - (end - at).to(tl.int32)
