"""The tile scheduler: which program takes which tiles of ragged groups, found on the device.

docs/gpu.md has the schedule, with pictures: pairs of row blocks in the forward pass, Stream-K ranges of steps in the
backward. csrc/cuda/tile_scheduler.h is the same for Hopper. Where skips are not mutual, each row block of anchors meets
all row blocks of its group. :func:`count_work` writes, for every group, how many items there are up to and with it. A
persistent program takes the items ``pid, pid + programs, ...`` and finds the group of each by bisection.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Estimates, not measured on a GPU. In steps: the cost of a tile beside its steps, and the shortest range of a program.
PROLOGUE_COST = tl.constexpr(4)
MIN_STREAM_K_RANGE = tl.constexpr(4)


@triton.jit
def count_work(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    pair_ends,  # (G,) int32, written: pairs of row blocks of all groups up to this one
    tile_ends,  # (G,) int32, written: row tiles of all groups up to this one
    step_ends,  # (G,) int64, written: likewise their steps, prologue costs included
    G,
    ROW_BLOCK,
    TRIANGLE: tl.constexpr,
    TILE_ROWS: tl.constexpr,  # of the passes over rows
    BLOCK_M: tl.constexpr,  # of the gradient
    BLOCK_N: tl.constexpr,  # rows of a step
    PARTS: tl.constexpr,  # of the channels, each with steps of its own
    CHUNK: tl.constexpr,
):
    """Count the work of every group; one program."""
    pairs, tiles = 0, 0
    steps = tl.cast(0, tl.int64)
    for first in range(0, G, CHUNK):
        g = first + tl.arange(0, CHUNK)
        inside = g < G
        a = tl.load(anchors + g, mask=inside, other=0)
        n = tl.load(offsets + g + 1, mask=inside, other=0) - tl.load(offsets + g, mask=inside, other=0)
        anchor_panels, row_blocks = tl.cdiv(a, ROW_BLOCK), tl.cdiv(n, ROW_BLOCK)
        group_pairs = anchor_panels * row_blocks
        if TRIANGLE:
            group_pairs -= anchor_panels * (anchor_panels - 1) // 2
        group_tiles = tl.where(a > 0, tl.cdiv(n, TILE_ROWS), 0)
        gradient_tiles = tl.where(a > 0, tl.cdiv(n, BLOCK_M), 0)
        tl.store(pair_ends + g, pairs + tl.cumsum(group_pairs, 0), mask=inside)
        tl.store(tile_ends + g, tiles + tl.cumsum(group_tiles, 0), mask=inside)
        pairs += tl.sum(group_pairs)
        tiles += tl.sum(group_tiles)
        long, short, long_tiles = tile_lengths(n, a, BLOCK_M, BLOCK_N, PARTS)
        group_steps = long * long_tiles + short * (gradient_tiles * PARTS - long_tiles)
        tl.store(step_ends + g, steps + tl.cumsum(group_steps, 0), mask=inside)
        steps += tl.sum(group_steps)


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


@triton.jit
def find_pair(number, row_blocks, TRIANGLE: tl.constexpr):
    """Return the row blocks (P, Q) of a pair of a group; the pairs of P = 0 come first."""
    p = number * 0
    if TRIANGLE:
        while number >= row_blocks - p:
            number -= row_blocks - p
            p += 1
        return p, p + number
    else:
        return number // row_blocks, number % row_blocks


@triton.jit
def tile_lengths(points, anchors, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr):
    """Return the steps of a tile that has an anchor, those of one that has none, and the number of the first; int64.

    Steps include the prologue cost, and the number counts all parts of the channels.
    """
    long = tl.cdiv(points, BLOCK_N).to(tl.int64) + PROLOGUE_COST
    short = tl.cdiv(anchors, BLOCK_N).to(tl.int64) + PROLOGUE_COST
    return long, short, tl.cdiv(anchors, BLOCK_M).to(tl.int64) * PARTS


@triton.jit
def stream_k_range(worker, total):
    """Return the Stream-K range [at, stop) of a program, of ``total`` (int64) steps; empty for a program too many."""
    workers = tl.maximum(tl.minimum(tl.num_programs(0), tl.cdiv(total, MIN_STREAM_K_RANGE)), 1)
    at, stop = total * worker // workers, total * (worker + 1) // workers
    return tl.where(worker < workers, at, total), tl.where(worker < workers, stop, total)


@triton.jit
def find_tile(
    step, step_ends, offsets, anchors, G,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Return the group of a step, the number of the step's tile in it, the part of its channels, and the tile's first
    and one-past-last of all steps, the prologue cost included."""
    g, local = find_item(step, step_ends, G)
    a = tl.load(anchors + g)
    n = tl.load(offsets + g + 1) - tl.load(offsets + g)
    long, short, long_tiles = tile_lengths(n, a, BLOCK_M, BLOCK_N, PARTS)
    is_long = local < long * long_tiles
    past = tl.where(is_long, 0, long * long_tiles)
    length = tl.where(is_long, long, short)
    number = (local - past) // length
    begin = step - local + past + number * length
    number += tl.where(is_long, 0, long_tiles)
    return g, (number // PARTS).to(tl.int32), (number % PARTS).to(tl.int32), begin, begin + length
