"""The tile scheduler: Stream-K ranges of steps over the M tiles of ragged groups, found on the device.

docs/gpu.md has the schedule, with pictures; csrc/cuda/tile_scheduler.h is the same for Hopper. A pass is one of three:

    GRADIENT   tiles of all points: those with an anchor meet all points of their group, the others its anchors
    RECTANGLE  tiles of anchors, which meet all points
    TRIANGLE   tiles of anchors, which meet the points from their own first row on

A triangle comes in COLUMNS columns at a time, each such block with M tiles of its own: what a worker gives to later
anchors is then no longer than that. Elsewhere a group is one block.

:func:`count_work` writes, for every block, the steps of both passes up to and with it. A program finds the tiles of its
own range by bisection, over the blocks and then over the tiles of one.
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
    sums_ends,  # (G BLOCKS,) int64, written: steps of the sums' tiles of all blocks up to this one, with prologue costs
    gradient_ends,  # (G,) int64, written: likewise of the gradient's tiles
    tile_ends,  # (G,) int32, written: row tiles of all groups up to this one
    G,
    BLOCKS,  # of columns of a group in the sums
    SUMS_PASS: tl.constexpr,
    SUMS_M: tl.constexpr,
    SUMS_N: tl.constexpr,
    COLUMNS,  # of a block
    GRADIENT_M: tl.constexpr,
    GRADIENT_N: tl.constexpr,
    PARTS: tl.constexpr,  # of the gradient's channels, each with steps of its own
    TILE_ROWS: tl.constexpr,  # of the passes over rows
    CHUNK: tl.constexpr,
):
    """Count the work of every group; one program."""
    tiles, sums, gradient = 0, tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    for first in range(0, G * BLOCKS, CHUNK):
        block = first + tl.arange(0, CHUNK)
        inside = block < G * BLOCKS
        n, a, long_tiles = block_of(block, inside, offsets, anchors, BLOCKS, SUMS_M, COLUMNS, 1, SUMS_PASS)
        steps = block_steps(n, a, long_tiles, SUMS_M, SUMS_N, 1, SUMS_PASS)
        tl.store(sums_ends + block, sums + tl.cumsum(steps, 0), mask=inside)
        sums += tl.sum(steps)
    for first in range(0, G, CHUNK):
        g = first + tl.arange(0, CHUNK)
        inside = g < G
        n, a, long_tiles = block_of(g, inside, offsets, anchors, 1, GRADIENT_M, 0, PARTS, GRADIENT)
        steps = block_steps(n, a, long_tiles, GRADIENT_M, GRADIENT_N, PARTS, GRADIENT)
        rows = tile_count(n, a, TILE_ROWS, 1, GRADIENT)
        tl.store(gradient_ends + g, gradient + tl.cumsum(steps, 0), mask=inside)
        tl.store(tile_ends + g, tiles + tl.cumsum(rows, 0), mask=inside)
        gradient += tl.sum(steps)
        tiles += tl.sum(rows)


@triton.jit
def find_item(item, ends, G):
    """Return the group, or block, of an item and the item's number in it."""
    low, high = 0, G - 1
    while low < high:
        middle = (low + high) // 2
        after = tl.load(ends + middle) <= item
        low = tl.where(after, middle + 1, low)
        high = tl.where(after, high, middle)
    before = tl.where(low > 0, tl.load(ends + tl.maximum(low - 1, 0)), 0)
    return low, item - before


# ---- the tiles of a block --------------------------------------------------------------------------------------------


@triton.jit
def block_of(
    block, inside, offsets, anchors, BLOCKS,
    BLOCK_M: tl.constexpr, COLUMNS, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the columns of a block, the rows of its tiles that are anchors, and how many tiles come before those that
    are shorter.

    BLOCKS is 1 but in a triangle.
    """
    g = block // BLOCKS
    a = tl.load(anchors + g, mask=inside, other=0)
    n = tl.load(offsets + g + 1, mask=inside, other=0) - tl.load(offsets + g, mask=inside, other=0)
    if PASS == TRIANGLE:
        before = block % BLOCKS * COLUMNS
        n = tl.minimum(tl.maximum(n - before, 0), COLUMNS)
        return n, tl.where(n > 0, tl.minimum(a, before + COLUMNS), 0), before // BLOCK_M
    else:
        return n, a, tl.cdiv(a, BLOCK_M) * PARTS


@triton.jit
def tile_count(points, anchors, BLOCK_M: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr):
    """Return the M tiles of a block, each of PARTS parts of the channels a tile of its own."""
    rows = tl.where(anchors > 0, points, 0) if PASS == GRADIENT else anchors
    return tl.cdiv(rows, BLOCK_M) * PARTS


@triton.jit
def steps_before(number, points, anchors, long_tiles, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PASS: tl.constexpr):
    """Return the steps of a block's tiles before tile ``number``, prologue costs included; int64.

    BLOCK_M is a multiple of BLOCK_N in a triangle.
    """
    number = tl.cast(number, tl.int64)
    length = tl.cdiv(points, BLOCK_N) + PROLOGUE_COST
    past = tl.maximum(number - long_tiles, 0)
    if PASS == GRADIENT:
        return (number - past) * length + past * (tl.cdiv(anchors, BLOCK_N) + PROLOGUE_COST)
    elif PASS == TRIANGLE:
        return number * length - past * (past - 1) // 2 * (BLOCK_M // BLOCK_N)
    else:
        return number * length


@triton.jit
def block_steps(
    points, anchors, long_tiles,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the steps of all tiles of a block; int64."""
    number = tile_count(points, anchors, BLOCK_M, PARTS, PASS)
    return steps_before(number, points, anchors, long_tiles, BLOCK_M, BLOCK_N, PASS)


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
def tile_workers(
    number, block, step_ends, offsets, anchors, G, BLOCKS, WORKERS,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the first and the last worker that has a step of tile ``number`` of a block, the first one of the block,
    and the last one of the tiles before."""
    n, a, long_tiles = block_of(block, True, offsets, anchors, BLOCKS, BLOCK_M, COLUMNS, PARTS, PASS)
    total = tl.load(step_ends + G * BLOCKS - 1)
    begin = tl.load(step_ends + block) - block_steps(n, a, long_tiles, BLOCK_M, BLOCK_N, PARTS, PASS)
    tile_begin = begin + steps_before(number, n, a, long_tiles, BLOCK_M, BLOCK_N, PASS)
    tile_end = begin + steps_before(number + 1, n, a, long_tiles, BLOCK_M, BLOCK_N, PASS)
    return (
        worker_of(tile_begin + PROLOGUE_COST, WORKERS, total),
        worker_of(tile_end - 1, WORKERS, total),
        worker_of(begin, WORKERS, total),
        worker_of(tile_begin - 1, WORKERS, total),
    )


@triton.jit
def find_tile(
    step, step_ends, offsets, anchors, G, BLOCKS,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Return the block of a step, the number of the step's tile in it, and the tile's first and one-past-last of all
    steps, the prologue cost included."""
    block, local = find_item(step, step_ends, G * BLOCKS)
    n, a, long_tiles = block_of(block, True, offsets, anchors, BLOCKS, BLOCK_M, COLUMNS, PARTS, PASS)
    low, high = 0, tile_count(n, a, BLOCK_M, PARTS, PASS) - 1
    while low < high:
        middle = (low + high + 1) // 2
        begins = steps_before(middle, n, a, long_tiles, BLOCK_M, BLOCK_N, PASS) <= local
        low = tl.where(begins, middle, low)
        high = tl.where(begins, high, middle - 1)
    begin = step - local + steps_before(low, n, a, long_tiles, BLOCK_M, BLOCK_N, PASS)
    end = step - local + steps_before(low + 1, n, a, long_tiles, BLOCK_M, BLOCK_N, PASS)
    return block, low, begin, end


@triton.jit
def range_length(step_ends, count):
    """Return the steps of this program's range, of ``count`` blocks; int32."""
    at, stop = stream_k_range(tl.program_id(0), tl.num_programs(0), tl.load(step_ends + count - 1))
    return (stop - at).to(tl.int32)


@triton.jit
def next_tile(
    left, step_ends, offsets, anchors, G, BLOCKS,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS, PARTS: tl.constexpr, PASS: tl.constexpr,
):  # fmt: skip
    """Find the tile of this program that ``left`` steps before the end of its range lie in.

    Returns (block, number, first_step, end_step, partial, left): the tile, which of its steps are this program's, the
    partial that it goes to, 0 or 1 (WHOLE for a whole tile, NOTHING where the range has no step of it), and the steps
    left after it. All is found anew for every tile: the loops over steps have no registers to spare.
    """
    _, stop = stream_k_range(tl.program_id(0), tl.num_programs(0), tl.load(step_ends + G * BLOCKS - 1))
    at = stop - left
    block, number, begin, end = find_tile(
        at, step_ends, offsets, anchors, G, BLOCKS, BLOCK_M, BLOCK_N, COLUMNS, PARTS, PASS
    )
    first_step = tl.maximum(at - begin - PROLOGUE_COST, 0).to(tl.int32)
    end_step = tl.maximum(tl.minimum(stop, end) - begin - PROLOGUE_COST, 0).to(tl.int32)
    opens, ends = first_step == 0, end <= stop
    partial = tl.where(opens & ends, WHOLE, tl.where(end_step == 0, NOTHING, opens.to(tl.int32)))
    return block, number, first_step, end_step, partial, left - (end - at).to(tl.int32)
